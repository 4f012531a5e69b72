//! Boxes with class and score on an image.

use std::path::{Path, PathBuf};

use super::font;
use crate::data::RgbPixels;

/// A picture cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    /// The file system or the encoder said no.
    #[error("picture `{}` cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
}

/// A copy of `pixels` with every box outlined in its class's color and captioned `class score`.
///
/// Line width and text grow with the image. Where detections overlap, the earlier in the list lies
/// on top. Captions stand above their box or, where there is no room, inside it; they never leave
/// the image. Boxes are clipped to the image; a box wholly outside (or not finite) is not drawn. A
/// label without a name in `classes` is captioned with its number.
///
/// # Units
/// `boxes_xyxy` in pixels of `pixels`; `scores` are probabilities, printed in percent.
///
/// # Panics
/// If the lists differ in length.
#[must_use]
pub fn draw_detections(
    pixels: &RgbPixels,
    boxes_xyxy: &[[f32; 4]],
    labels: &[usize],
    scores: Option<&[f32]>,
    classes: &[String],
) -> RgbPixels {
    assert_eq!(boxes_xyxy.len(), labels.len(), "one label a box");
    if let Some(scores) = scores {
        assert_eq!(boxes_xyxy.len(), scores.len(), "one score a box");
    }
    let mut canvas = Canvas {
        pixels: pixels.clone(),
    };
    let longest = pixels.size[0].max(pixels.size[1]) as f64;
    let line_width = (longest / 400.0).round().max(1.0) as i64;
    let text_scale = (longest / 480.0).round().max(1.0) as i64;

    let shown: Vec<(usize, Rect)> = boxes_xyxy
        .iter()
        .enumerate()
        .filter_map(|(index, box_xyxy)| Some((index, canvas.visible(box_xyxy)?)))
        .collect();
    // All outlines first: no line crosses a caption. The best (first) is painted last.
    for &(index, rect) in shown.iter().rev() {
        canvas.outline(rect, line_width, class_color(labels[index]));
    }
    for &(index, rect) in shown.iter().rev() {
        let label = labels[index];
        let mut text = classes
            .get(label)
            .cloned()
            .unwrap_or_else(|| format!("#{label}"));
        if let Some(scores) = scores {
            text.push_str(&format!(" {:.0}", 100.0 * scores[index]));
        }
        canvas.caption(rect, &text, text_scale, class_color(label));
    }
    canvas.pixels
}

/// Writes a PNG file.
///
/// # Errors
/// If the file cannot be written.
pub fn save_png(pixels: &RgbPixels, path: &Path) -> Result<(), DrawError> {
    let [height, width] = pixels.size.map(|extent| extent as u32);
    image::save_buffer_with_format(
        path,
        &pixels.data,
        width,
        height,
        image::ExtendedColorType::Rgb8,
        image::ImageFormat::Png,
    )
    .map_err(|source| DrawError::Write {
        path: path.to_owned(),
        source,
    })
}

/// The color of a class: hues a golden angle apart, so that any few classes differ well.
#[must_use]
pub fn class_color(label: usize) -> [u8; 3] {
    const GOLDEN_RATIO: f64 = 0.618_033_988_749_895;
    const SATURATION: f64 = 0.8;
    let sextant = 6.0 * (0.33 + label as f64 * GOLDEN_RATIO).fract();
    // Each channel peaks at its own third of the circle.
    [5.0, 3.0, 1.0].map(|offset: f64| {
        let distance = (offset + sextant).rem_euclid(6.0);
        let share = distance.min(4.0 - distance).clamp(0.0, 1.0);
        (255.0 * (1.0 - SATURATION * share)).round() as u8
    })
}

/// Black or white, whichever reads better on `background` (Rec. 601 luma).
fn text_color(background: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = background.map(u32::from);
    if 299 * r + 587 * g + 114 * b > 128_000 {
        [0; 3]
    } else {
        [255; 3]
    }
}

/// Pixels `x1..x2` × `y1..y2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rect {
    x1: i64,
    y1: i64,
    x2: i64,
    y2: i64,
}

struct Canvas {
    pixels: RgbPixels,
}

impl Canvas {
    fn height(&self) -> i64 {
        self.pixels.size[0] as i64
    }

    fn width(&self) -> i64 {
        self.pixels.size[1] as i64
    }

    /// The part of a box on the image, at least a pixel wide and high.
    fn visible(&self, box_xyxy: &[f32; 4]) -> Option<Rect> {
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

    fn fill(&mut self, rect: Rect, color: [u8; 3]) {
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
    fn outline(&mut self, rect: Rect, line_width: i64, color: [u8; 3]) {
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

    fn caption(&mut self, rect: Rect, text: &str, scale: i64, color: [u8; 3]) {
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
        for (position, character) in (0..).zip(text) {
            self.glyph(
                x1 + margin + position * advance,
                y1 + margin,
                character,
                scale,
                ink,
            );
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

#[cfg(test)]
mod tests;
