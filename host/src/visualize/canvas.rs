//! Rectangles, outlines and text on a picture.

use super::font;
use crate::data::RgbPixels;

/// Black or white, whichever reads better on `background` (Rec. 601 luma).
pub(super) fn text_color(background: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = background.map(u32::from);
    if 299 * r + 587 * g + 114 * b > 128_000 {
        [0; 3]
    } else {
        [255; 3]
    }
}

/// Pixels `x1..x2` × `y1..y2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) x1: i64,
    pub(super) y1: i64,
    pub(super) x2: i64,
    pub(super) y2: i64,
}

/// A picture that is drawn on.
pub(super) struct Canvas {
    pixels: RgbPixels,
}

impl Canvas {
    pub(super) fn new(pixels: RgbPixels) -> Self {
        Canvas { pixels }
    }

    pub(super) fn into_pixels(self) -> RgbPixels {
        self.pixels
    }

    /// Width of outlines, which grows with the picture.
    pub(super) fn line_width(&self) -> i64 {
        (self.height().max(self.width()) as f64 / 400.0)
            .round()
            .max(1.0) as i64
    }

    fn height(&self) -> i64 {
        self.pixels.size[0] as i64
    }

    fn width(&self) -> i64 {
        self.pixels.size[1] as i64
    }

    /// The part of a box on the image, at least a pixel wide and high.
    pub(super) fn visible(&self, box_xyxy: &[f32; 4]) -> Option<Rect> {
        let [x1, y1, x2, y2] = *box_xyxy;
        if !box_xyxy.iter().all(|v| v.is_finite()) {
            return None;
        }
        let (x1, y1) = (x1.floor() as i64, y1.floor() as i64);
        let rect = Rect {
            x1,
            y1,
            x2: (x2.ceil() as i64).max(x1 + 1),
            y2: (y2.ceil() as i64).max(y1 + 1),
        };
        let clipped = Rect {
            x1: rect.x1.max(0),
            y1: rect.y1.max(0),
            x2: rect.x2.min(self.width()),
            y2: rect.y2.min(self.height()),
        };
        (clipped.x1 < clipped.x2 && clipped.y1 < clipped.y2).then_some(clipped)
    }

    pub(super) fn fill(&mut self, rect: Rect, color: [u8; 3]) {
        let columns =
            rect.x1.clamp(0, self.width()) as usize..rect.x2.clamp(0, self.width()) as usize;
        let rows =
            rect.y1.clamp(0, self.height()) as usize..rect.y2.clamp(0, self.height()) as usize;
        if columns.is_empty() {
            return;
        }
        let stride = self.pixels.size[1] * 3;
        for row in rows {
            let start = row * stride;
            for pixel in self.pixels.data[start + columns.start * 3..start + columns.end * 3]
                .chunks_exact_mut(3)
            {
                pixel.copy_from_slice(&color);
            }
        }
    }

    /// A frame along the inner side of `rect`'s edges.
    pub(super) fn outline(&mut self, rect: Rect, line_width: i64, color: [u8; 3]) {
        let Rect { x1, y1, x2, y2 } = rect;
        self.fill(
            Rect {
                y2: (y1 + line_width).min(y2),
                ..rect
            },
            color,
        );
        self.fill(
            Rect {
                y1: (y2 - line_width).max(y1),
                ..rect
            },
            color,
        );
        self.fill(
            Rect {
                x2: (x1 + line_width).min(x2),
                ..rect
            },
            color,
        );
        self.fill(
            Rect {
                x1: (x2 - line_width).max(x1),
                ..rect
            },
            color,
        );
    }

    pub(super) fn caption(&mut self, rect: Rect, text: &str, scale: i64, color: [u8; 3]) {
        let margin = scale;
        let advance = font::CELL * scale;
        let fitting = ((self.width() - 2 * margin) / advance).max(0) as usize;
        let text: Vec<char> = text.chars().take(fitting).collect();
        let width = text.len() as i64 * advance + 2 * margin;
        let height = advance + 2 * margin;
        // Above the box if there is room, else inside its top, else as low as the image allows.
        let y1 = if rect.y1 >= height {
            rect.y1 - height
        } else {
            rect.y1
        };
        let y1 = y1.min(self.height() - height).max(0);
        let x1 = rect.x1.min(self.width() - width).max(0);
        self.fill(
            Rect {
                x1,
                y1,
                x2: x1 + width,
                y2: y1 + height,
            },
            color,
        );
        let ink = text_color(color);
        let text: String = text.into_iter().collect();
        self.text([x1 + margin, y1 + margin], &text, scale, ink);
    }

    /// One line of text with its left upper corner at `[left, top]`.
    pub(super) fn text(&mut self, [left, top]: [i64; 2], text: &str, scale: i64, ink: [u8; 3]) {
        let advance = font::CELL * scale;
        for (position, character) in (0..).zip(text.chars()) {
            self.glyph(left + position * advance, top, character, scale, ink);
        }
    }

    /// Puts another picture here, which must fit.
    pub(super) fn paste(&mut self, [left, top]: [usize; 2], picture: &RgbPixels) {
        let row = picture.size[1] * 3;
        let stride = self.pixels.size[1] * 3;
        for (y, values) in picture.data.chunks_exact(row).enumerate() {
            let start = (top + y) * stride + left * 3;
            self.pixels.data[start..start + row].copy_from_slice(values);
        }
    }

    fn glyph(&mut self, left: i64, top: i64, character: char, scale: i64, color: [u8; 3]) {
        for (y, row) in (0..).zip(font::glyph(character)) {
            for x in (0..font::CELL).filter(|x| row >> x & 1 == 1) {
                let (x1, y1) = (left + x * scale, top + y * scale);
                self.fill(
                    Rect {
                        x1,
                        y1,
                        x2: x1 + scale,
                        y2: y1 + scale,
                    },
                    color,
                );
            }
        }
    }
}
