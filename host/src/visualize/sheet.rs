//! A contact sheet: captioned pictures in rows and columns.

use super::canvas::{Canvas, Rect};
use super::font;
use crate::data::RgbPixels;

/// Width of a picture on the sheet; 32 letters.
pub const TILE_WIDTH: usize = 256;
/// Between pictures, and around the sheet.
const MARGIN: usize = 6;
/// Lines of a caption, and the space of each.
const LINES: usize = 2;
const LINE_HEIGHT: usize = font::CELL as usize + 2;
const BACKGROUND: [u8; 3] = [24; 3];
const ABSENT: [u8; 3] = [56; 3];
const INK: [u8; 3] = [230; 3];

/// A place on the sheet.
#[derive(Clone, Debug)]
pub struct Tile {
    /// Above the picture; cut off at the picture's width.
    pub caption: [String; LINES],
    /// `None` leaves the place gray.
    pub picture: Option<RgbPixels>,
}

/// `[height, width]` of a picture of `size` on the sheet.
#[must_use]
pub fn tile_size([height, width]: [usize; 2]) -> [usize; 2] {
    let scaled = (height * TILE_WIDTH) as f64 / width as f64;
    [(scaled.round() as usize).max(1), TILE_WIDTH]
}

/// Puts tiles, whose pictures have `tile` as size, on one sheet.
///
/// # Panics
/// If a picture has another size.
#[must_use]
pub fn sheet(rows: &[Vec<Tile>], tile: [usize; 2]) -> RgbPixels {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let place = [LINES * LINE_HEIGHT + tile[0] + MARGIN, tile[1] + MARGIN];
    let size = [MARGIN + rows.len() * place[0], MARGIN + columns * place[1]];
    let mut canvas = Canvas::new(RgbPixels {
        size,
        data: BACKGROUND.repeat(size[0] * size[1]),
    });
    let letters = tile[1] / font::CELL as usize;
    for (row, tiles) in rows.iter().enumerate() {
        for (column, content) in tiles.iter().enumerate() {
            let [top, left] = [MARGIN + row * place[0], MARGIN + column * place[1]];
            for (line, text) in content.caption.iter().enumerate() {
                let shown: String = text.chars().take(letters).collect();
                let corner = [left as i64, (top + line * LINE_HEIGHT) as i64];
                canvas.text(corner, &shown, 1, INK);
            }
            let top = top + LINES * LINE_HEIGHT;
            if let Some(picture) = &content.picture {
                assert_eq!(picture.size, tile, "pictures of one size");
                canvas.paste([left, top], picture);
            } else {
                let [x1, y1, height, width] = [left, top, tile[0], tile[1]].map(|v| v as i64);
                let (x2, y2) = (x1 + width, y1 + height);
                canvas.fill(Rect { x1, y1, x2, y2 }, ABSENT);
            }
        }
    }
    canvas.into_pixels()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(picture: Option<RgbPixels>) -> Tile {
        Tile {
            caption: ["neck.p3 student".into(), "0 to 1".into()],
            picture,
        }
    }

    #[test]
    fn pictures_keep_their_ratio() {
        assert_eq!(tile_size([64, 64]), [256, 256]);
        assert_eq!(tile_size([600, 800]), [192, 256]);
        assert_eq!(tile_size([1, 4000]), [1, 256]);
    }

    #[test]
    fn the_sheet_has_room_for_every_row_and_column() {
        let red = RgbPixels {
            size: [10, 256],
            data: [255, 0, 0].repeat(2560),
        };
        let rows = [
            vec![tile(Some(red.clone())), tile(None), tile(Some(red))],
            vec![tile(None)],
        ];
        let sheet = sheet(&rows, [10, 256]);
        // Margins of 6; captions of 20 above pictures of 10.
        assert_eq!(sheet.size, [6 + 2 * 36, 6 + 3 * 262]);
        let pixel = |y: usize, x: usize| &sheet.data[(y * sheet.size[1] + x) * 3..][..3];
        assert_eq!(pixel(26, 6), [255, 0, 0]);
        assert_eq!(pixel(35, 6 + 2 * 262 + 255), [255, 0, 0]);
        assert_eq!(pixel(26, 6 + 262), ABSENT);
        assert_eq!(pixel(36, 6), BACKGROUND);
        assert_eq!(pixel(70, 6 + 262), BACKGROUND);
        assert!((6..16).any(|y| (6..100).any(|x| pixel(y, x) == INK)));
    }
}
