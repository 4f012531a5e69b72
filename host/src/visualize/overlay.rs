//! Classes of pixels as colours over an image.

use super::canvas::{Canvas, Rect};
use super::draw::class_color;
use super::font;
use crate::data::{IGNORE_LABEL, LabelMap, RgbPixels};

/// The image mixed with the colour of each pixel's class: `alpha` of the colour and `1 - alpha` of the
/// image, rounded. Pixels of [`IGNORE_LABEL`] stay as they are.
///
/// # Panics
/// If the sizes differ or `alpha` is not in 0..=1.
#[must_use]
pub fn overlay(pixels: &RgbPixels, labels: &LabelMap, alpha: f32) -> RgbPixels {
    assert_eq!(pixels.size, labels.size, "a label for every pixel");
    assert!((0.0..=1.0).contains(&alpha), "{alpha} of a colour");
    let mut out = pixels.clone();
    let labelled = out.data.chunks_exact_mut(3).zip(&labels.data);
    for (pixel, &label) in labelled.filter(|(_, label)| **label != IGNORE_LABEL) {
        for (value, color) in pixel.iter_mut().zip(label_color(label)) {
            let mixed = alpha * f32::from(color) + (1.0 - alpha) * f32::from(*value);
            *value = mixed.round() as u8;
        }
    }
    out
}

/// `picture` with the names of the classes that `labels` has below it, each on its colour.
///
/// Names stand in class order from left to right, in as many lines as they need. A name is cut off at
/// the picture's width; a label without a name in `classes` shows its number.
#[must_use]
pub fn with_legend(picture: &RgbPixels, labels: &LabelMap, classes: &[String]) -> RgbPixels {
    let shown = (0..IGNORE_LABEL).filter(|label| labels.data.contains(label));
    let named = shown.map(|label| {
        let name = classes.get(usize::from(label)).cloned();
        let name = name.unwrap_or_else(|| format!("#{label}"));
        (name, label_color(label))
    });
    with_names(picture, named)
}

/// `picture` with its likeliest class and the probability in percent below it.
///
/// # Panics
/// If there is not a probability for each class, or no class.
#[must_use]
pub fn with_class(picture: &RgbPixels, probabilities: &[f32], classes: &[String]) -> RgbPixels {
    assert_eq!(
        probabilities.len(),
        classes.len(),
        "one probability a class"
    );
    let all = probabilities.iter().enumerate();
    // Of equals the first, as the evaluation has it.
    let (label, probability) = all
        .rev()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .expect("a model has classes");
    let text = format!("{} {:.0}", classes[label], 100.0 * probability);
    with_names(picture, std::iter::once((text, class_color(label))))
}

/// `picture` with `names` below it, each on its colour.
fn with_names(picture: &RgbPixels, names: impl Iterator<Item = (String, [u8; 3])>) -> RgbPixels {
    let [height, width] = picture.size;
    let scale = (height.max(width) as f64 / 480.0).round().max(1.0) as usize;
    let letter = font::CELL as usize * scale;
    let line = letter + 2 * scale;
    let fitting = (width / letter).saturating_sub(1);
    let mut entries = Vec::new();
    let [mut left, mut top] = [0, height];
    for (name, color) in names {
        let name: String = name.chars().take(fitting).collect();
        // Half a letter at each side.
        let extent = (name.chars().count() + 1) * letter;
        if left + extent > width && left > 0 {
            (left, top) = (0, top + line);
        }
        entries.push((color, name, left, top, extent));
        left += extent;
    }
    let below = if entries.is_empty() { 0 } else { line };
    let size = [top + below, width];
    let mut canvas = Canvas::new(RgbPixels {
        size,
        data: vec![0; size[0] * size[1] * 3],
    });
    canvas.paste([0, 0], picture);
    for (color, name, left, top, extent) in entries {
        let [x1, y1, x2, y2] = [left, top, left + extent, top + line].map(|v| v as i64);
        canvas.fill(Rect { x1, y1, x2, y2 }, color);
        let corner = [left + letter / 2, top + scale].map(|v| v as i64);
        canvas.text(
            corner,
            &name,
            scale as i64,
            super::canvas::text_color(color),
        );
    }
    canvas.into_pixels()
}

/// The colour of a label in PASCAL VOC's palette, which other sets' tools use too: bits 0, 3, 6 of the
/// label are the highest bits of red from the top down, bits 1, 4, 7 of green and 2, 5 of blue
/// (`VOClabelcolormap` of the VOC2012 devkit).
#[must_use]
pub fn label_color(label: u8) -> [u8; 3] {
    let mut color = [0; 3];
    for bit in 0..8 {
        color[bit % 3] |= (label >> bit & 1) << (7 - bit / 3);
    }
    color
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_palette_is_vocs() {
        // From the palette of the label files of VOC2012.
        for (label, color) in [
            (0, [0, 0, 0]),
            (1, [128, 0, 0]),
            (2, [0, 128, 0]),
            (3, [128, 128, 0]),
            (4, [0, 0, 128]),
            (7, [128, 128, 128]),
            (8, [64, 0, 0]),
            (15, [192, 128, 128]),
            (20, [0, 64, 128]),
            (255, [224, 224, 192]),
        ] {
            assert_eq!(label_color(label), color, "{label}");
        }
        let distinct: std::collections::BTreeSet<_> = (0..=255).map(label_color).collect();
        assert_eq!(distinct.len(), 256);
    }

    fn picture(size: [usize; 2], value: u8) -> RgbPixels {
        RgbPixels {
            size,
            data: vec![value; size[0] * size[1] * 3],
        }
    }

    #[test]
    fn colours_are_mixed_where_there_is_a_class() {
        let labels = LabelMap {
            size: [1, 3],
            data: vec![1, IGNORE_LABEL, 0],
        };
        let out = overlay(&picture([1, 3], 100), &labels, 0.25);
        // A quarter of [128, 0, 0] and of black.
        assert_eq!(out.data, [107, 75, 75, 100, 100, 100, 75, 75, 75]);
        assert_eq!(overlay(&picture([1, 3], 9), &labels, 0.0).data, [9; 9]);
    }

    #[test]
    fn the_legend_names_the_classes_that_are_there() {
        let classes = ["ground", "car", "tree"].map(String::from);
        let size = [4, 64];
        let mut labels = LabelMap {
            size,
            data: vec![0; 256],
        };
        labels.data[7] = 2;
        labels.data[8] = IGNORE_LABEL;
        let plain = picture(size, 50);
        let out = with_legend(&plain, &labels, &classes);
        // `ground` takes 56 of 64 columns, `tree` a line of its own.
        assert_eq!(out.size, [4 + 2 * 10, 64]);
        assert_eq!(out.data[..plain.data.len()], plain.data);
        let line = |number: usize| &out.data[(4 + number * 10) * 64 * 3..][..10 * 64 * 3];
        let inks = |number: usize, color: [u8; 3]| {
            line(number)
                .chunks_exact(3)
                .filter(|p| **p == color)
                .count()
        };
        let ground = line(0).chunks_exact(3).filter(|p| **p == [255; 3]).count();
        assert!(ground > 50, "white letters on black: {ground}");
        assert!(inks(1, label_color(2)) > 200);
        assert!(inks(1, [255; 3]) > 30);
        labels.data.fill(IGNORE_LABEL);
        assert_eq!(with_legend(&plain, &labels, &classes), plain);
    }
}
