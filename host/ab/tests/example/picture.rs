//! Small pictures as `data:` addresses.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const WIDTH: u32 = 240;
const HEIGHT: u32 = 160;

/// A corner and an extent in pixels, with a colour.
pub(super) type Drawn = ([u32; 4], [u8; 3]);

/// A PNG of a plain ground with outlined boxes.
pub(super) fn boxes(drawn: &[Drawn]) -> String {
    let mut pixels = vec![0; (WIDTH * HEIGHT * 3) as usize];
    for (at, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (x, y) = (at as u32 % WIDTH, at as u32 / WIDTH);
        *pixel = if y > HEIGHT / 2 {
            [96, 98, 102]
        } else {
            [168, 190, 210]
        };
        for &([left, top, width, height], colour) in drawn {
            let (right, bottom) = (left + width, top + height);
            let inside = (left..=right).contains(&x) && (top..=bottom).contains(&y);
            let edge = x < left + 3 || x + 3 > right || y < top + 3 || y + 3 > bottom;
            if inside && edge {
                *pixel = colour;
            }
        }
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, WIDTH, HEIGHT);
    encoder.set_color(png::ColorType::Rgb);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(&pixels)
        .unwrap();
    format!("data:image/png;base64,{}", STANDARD.encode(file))
}
