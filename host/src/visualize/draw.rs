//! Boxes with class and score on an image.

use std::path::{Path, PathBuf};

use super::canvas::{Canvas, Rect};
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
    let mut canvas = Canvas::new(pixels.clone());
    let longest = pixels.size[0].max(pixels.size[1]) as f64;
    let line_width = canvas.line_width();
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
    canvas.into_pixels()
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

#[cfg(test)]
mod tests;
