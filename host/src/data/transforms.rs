//! Resize, crop, horizontal flip, normalisation; boxes and labels move exactly with the pixels.

use std::borrow::Cow;

use super::{
    Augmentation, DatasetError, IGNORE_LABEL, ImageMeta, ImageTargets, LabelMap, MaskCrop, Record,
    RgbPixels, resize,
};
use crate::config::{ResizeMode, TransformConfig};

/// One image ready for the network, not yet padded.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// `[3, H, W]` normalised, with `[H, W] = meta.size`.
    pub image: Vec<f32>,
    /// Objects but crowd regions, clipped to the image.
    pub targets: ImageTargets,
    /// A class for every pixel of `image`; `None` in detection.
    pub label_map: Option<LabelMap>,
    /// Where it came from.
    pub meta: ImageMeta,
}

/// Brings images of any size to the network's input.
///
/// - `fixed` resizes to one size, aspect ratio not kept; `keep_ratio` chooses the size as
///   torchvision's `GeneralizedRCNNTransform`: scale `min(short_side / shorter, long_side /
///   longer)`, extents rounded down; `none` keeps the image's own.
/// - Pixels are resized as 8-bit values with a bilinear filter that widens when it shrinks
///   (antialias): [`resize`], equal to Pillow's `BILINEAR`; torchvision's `Resize` differs by
///   rounding, torchvision's *detection* transform does not antialias.
/// - Normalisation is `(value / 255 - mean) / std` per RGB channel.
#[derive(Clone, Debug)]
pub struct Transform {
    config: TransformConfig,
    /// Normalised value of each byte, per channel.
    normalised: Box<[[f32; 256]; 3]>,
}

impl Transform {
    /// Checks the configuration.
    ///
    /// # Errors
    /// If a size, scale or deviation is not positive or the probability is not in 0..=1.
    pub fn new(config: &TransformConfig) -> Result<Self, DatasetError> {
        let fault = |key: &'static str, reason: String| Err(DatasetError::Config { key, reason });
        match config.resize {
            ResizeMode::Fixed if config.size.contains(&0) => {
                let reason = format!("is {:?}; both extents must be positive", config.size);
                return fault("data.transform.size", reason);
            }
            ResizeMode::KeepRatio if config.short_side == 0 => {
                return fault("data.transform.short_side", "must be positive".into());
            }
            ResizeMode::KeepRatio if config.long_side < config.short_side => {
                let reason = format!("{} is less than `short_side`", config.long_side);
                return fault("data.transform.long_side", reason);
            }
            ResizeMode::Fixed | ResizeMode::KeepRatio | ResizeMode::None => {}
        }
        let [low, high] = config.scale_range;
        if !(low.is_finite() && high.is_finite() && 0.0 < low && low <= high) {
            let reason = format!("is [{low}, {high}]; two positive factors that ascend are needed");
            return fault("data.transform.scale_range", reason);
        }
        if !matches!(config.crop_size[..], [] | [1..=usize::MAX, 1..=usize::MAX]) {
            let reason = format!(
                "is {:?}; `[height, width]` or `[]` is needed",
                config.crop_size
            );
            return fault("data.transform.crop_size", reason);
        }
        if !(0.0..=1.0).contains(&config.flip_prob) {
            let reason = format!("is {}; a probability is in 0..=1", config.flip_prob);
            return fault("data.transform.flip_prob", reason);
        }
        if !config.mean.iter().all(|mean| mean.is_finite()) {
            return fault("data.transform.mean", "must be finite".into());
        }
        if !config.std.iter().all(|std| std.is_finite() && *std > 0.0) {
            return fault("data.transform.std", "must be positive".into());
        }
        let normalised = std::array::from_fn(|channel| {
            std::array::from_fn(|byte| {
                (byte as f32 / 255.0 - config.mean[channel]) / config.std[channel]
            })
        });
        Ok(Transform {
            config: config.clone(),
            normalised: Box::new(normalised),
        })
    }

    /// The configuration it follows.
    #[must_use]
    pub fn config(&self) -> &TransformConfig {
        &self.config
    }

    /// `[height, width]` that an image of `size` is resized to, before padding.
    #[must_use]
    pub fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        match self.config.resize {
            ResizeMode::Fixed => return self.config.size,
            ResizeMode::None => return size,
            ResizeMode::KeepRatio => {}
        }
        let [shorter, longer] = [size[0].min(size[1]), size[0].max(size[1])].map(|s| s as f64);
        let short_scale = self.config.short_side as f64 / shorter;
        let scale = short_scale.min(self.config.long_side as f64 / longer);
        size.map(|extent| ((extent as f64 * scale).floor() as usize).max(1))
    }

    /// Resizes, mirrors if `flip`, normalises: an image of a detection set.
    #[must_use]
    pub fn apply(&self, record: &Record, pixels: &RgbPixels, flip: bool) -> Sample {
        let size = self.output_size(pixels.size);
        let image = if size == pixels.size {
            self.planes(&pixels.data, size, size, flip)
        } else {
            self.planes(&resize(pixels, size).data, size, size, flip)
        };
        let mut targets = ImageTargets::default();
        for object in record.objects.iter().filter(|object| !object.is_crowd) {
            let moved = move_box(object.box_xyxy, pixels.size, size, flip);
            // Clipping may leave nothing of a box that only just reached into the image.
            if moved[2] > moved[0] && moved[3] > moved[1] {
                targets.boxes_xyxy.push(moved);
                targets.labels.push(object.label);
                let turned = |mask: MaskCrop| if flip { mask.mirrored() } else { mask };
                targets.mask_crops.push(object.mask.map(turned));
            }
        }
        Sample {
            image,
            targets,
            label_map: None,
            meta: ImageMeta {
                image_id: record.image_id,
                original_size: pixels.size,
                size,
                flipped: flip,
            },
        }
    }

    /// Resizes, scales, crops, mirrors, normalises: an image of a segmentation set with its labels.
    /// Pixels are resized once, by both factors together, as [`resize`] does it; labels by the
    /// nearest pixel ([`LabelMap::resized`]).
    ///
    /// # Panics
    /// If `labels` has another size than `pixels`.
    #[must_use]
    pub fn apply_labelled(
        &self,
        record: &Record,
        pixels: &RgbPixels,
        labels: &LabelMap,
        augmentation: &Augmentation,
    ) -> Sample {
        assert_eq!(labels.size, pixels.size, "a label for every pixel");
        let Augmentation { scale, crop, flip } = *augmentation;
        let scaled = |extent: usize| ((extent as f64 * scale).round() as usize).max(1);
        let resized = self.output_size(pixels.size).map(scaled);
        let size = crop.map_or(resized, |crop| crop.size);
        let shown = [0, 1].map(|axis| size[axis].min(resized[axis]));
        let corner = [0, 1].map(|axis| {
            let slack = resized[axis] - shown[axis];
            let place = crop.map_or(0.0, |crop| crop.place[axis]);
            // The place is less than 1; a product that rounds up must not leave the image.
            ((place * (slack + 1) as f64) as usize).min(slack)
        });
        let scaled_pixels = if resized == pixels.size {
            Cow::Borrowed(pixels)
        } else {
            Cow::Owned(resize(pixels, resized))
        };
        let rgb = part::<3>(&scaled_pixels.data, resized[1], corner, shown);
        let labels = labels.resized(resized);
        let labels = part::<1>(&labels.data, resized[1], corner, shown);
        Sample {
            image: self.planes(&rgb, shown, size, flip),
            targets: ImageTargets::default(),
            label_map: Some(placed(&labels, shown, size, flip)),
            meta: ImageMeta {
                image_id: record.image_id,
                original_size: pixels.size,
                size,
                flipped: flip,
            },
        }
    }

    /// Interleaved bytes of `size` to normalised planes of `canvas`, 0 at right and bottom.
    fn planes(&self, rgb: &[u8], size: [usize; 2], canvas: [usize; 2], flip: bool) -> Vec<f32> {
        let mut planes = vec![0.0; 3 * canvas[0] * canvas[1]];
        let width = size[1];
        for (channel, plane) in planes.chunks_exact_mut(canvas[0] * canvas[1]).enumerate() {
            let table = &self.normalised[channel];
            for (out, row) in plane
                .chunks_exact_mut(canvas[1])
                .zip(rgb.chunks_exact(width * 3))
            {
                let out = &mut out[..width];
                let values = row
                    .chunks_exact(3)
                    .map(|pixel| table[usize::from(pixel[channel])]);
                if flip {
                    out.iter_mut().rev().zip(values).for_each(|(o, v)| *o = v);
                } else {
                    out.iter_mut().zip(values).for_each(|(o, v)| *o = v);
                }
            }
        }
        planes
    }
}

/// `[height, width]` pixels from `[top, left]` of an image of so many columns.
fn part<const BYTES: usize>(
    data: &[u8],
    columns: usize,
    [top, left]: [usize; 2],
    [height, width]: [usize; 2],
) -> Vec<u8> {
    let mut part = Vec::with_capacity(height * width * BYTES);
    for row in data.chunks_exact(columns * BYTES).skip(top).take(height) {
        part.extend_from_slice(&row[left * BYTES..(left + width) * BYTES]);
    }
    part
}

/// Labels of `size`, mirrored if `flip`, on a `canvas` without labels at right and bottom.
fn placed(labels: &[u8], size: [usize; 2], canvas: [usize; 2], flip: bool) -> LabelMap {
    let mut data = vec![IGNORE_LABEL; canvas[0] * canvas[1]];
    let rows = labels.chunks_exact(size[1]);
    for (out, row) in data.chunks_exact_mut(canvas[1]).zip(rows) {
        let out = &mut out[..size[1]];
        out.copy_from_slice(row);
        if flip {
            out.reverse();
        }
    }
    LabelMap { size: canvas, data }
}

/// A box of a `[height, width]` image in the pixels of its resized, maybe mirrored, version.
fn move_box(box_xyxy: [f32; 4], from: [usize; 2], to: [usize; 2], flip: bool) -> [f32; 4] {
    let [x1, y1, x2, y2] = box_xyxy.map(f64::from);
    let [height, width] = to.map(|s| s as f64);
    let [ratio_y, ratio_x] = [height / from[0] as f64, width / from[1] as f64];
    let x = |v: f64| (v * ratio_x).clamp(0.0, width);
    let y = |v: f64| ((v * ratio_y).clamp(0.0, height)) as f32;
    let (left, right) = if flip {
        (width - x(x2), width - x(x1))
    } else {
        (x(x1), x(x2))
    };
    [left as f32, y(y1), right as f32, y(y2)]
}

#[cfg(test)]
mod tests;
