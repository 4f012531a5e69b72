//! Resize, horizontal flip, normalisation; boxes move exactly with the pixels.

use super::{DatasetError, ImageMeta, ImageTargets, MaskCrop, Record, RgbPixels, resize};
use crate::config::{ResizeMode, TransformConfig};
use crate::rng::KeyedRng;

/// One image ready for the network, not yet padded.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// `[3, H, W]` normalised, with `[H, W] = meta.size`.
    pub image: Vec<f32>,
    /// Objects but crowd regions, clipped to the image.
    pub targets: ImageTargets,
    /// Where it came from.
    pub meta: ImageMeta,
}

/// Whether training mirrors an image: a draw that depends on its arguments alone.
#[must_use]
pub fn flip_drawn(probability: f64, seed: u64, epoch: u64, image_id: i64) -> bool {
    // The id's bits serve as a key: negative ids are as good as others.
    let key = [seed, epoch, image_id.cast_unsigned()];
    KeyedRng::new("flip", &key).uniform() < probability
}

/// Brings images of any size to the network's input.
///
/// - `fixed` resizes to one size, aspect ratio not kept; `keep_ratio` chooses the size as
///   torchvision's `GeneralizedRCNNTransform`: scale `min(short_side / shorter, long_side /
///   longer)`, extents rounded down.
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
    /// If a size or deviation is not positive or the probability is not in 0..=1.
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
            ResizeMode::Fixed | ResizeMode::KeepRatio => {}
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
        if self.config.resize == ResizeMode::Fixed {
            return self.config.size;
        }
        let [shorter, longer] = [size[0].min(size[1]), size[0].max(size[1])].map(|s| s as f64);
        let short_scale = self.config.short_side as f64 / shorter;
        let scale = short_scale.min(self.config.long_side as f64 / longer);
        size.map(|extent| ((extent as f64 * scale).floor() as usize).max(1))
    }

    /// Resizes, mirrors if `flip`, normalises.
    #[must_use]
    pub fn apply(&self, record: &Record, pixels: &RgbPixels, flip: bool) -> Sample {
        let size = self.output_size(pixels.size);
        let image = if size == pixels.size {
            self.planes(&pixels.data, size, flip)
        } else {
            self.planes(&resize(pixels, size).data, size, flip)
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
            meta: ImageMeta {
                image_id: record.image_id,
                original_size: pixels.size,
                size,
                flipped: flip,
            },
        }
    }

    /// Interleaved bytes to normalised planes.
    fn planes(&self, rgb: &[u8], [height, width]: [usize; 2], flip: bool) -> Vec<f32> {
        let mut planes = vec![0.0; 3 * height * width];
        for (channel, plane) in planes.chunks_exact_mut(height * width).enumerate() {
            let table = &self.normalised[channel];
            for (out, row) in plane
                .chunks_exact_mut(width)
                .zip(rgb.chunks_exact(width * 3))
            {
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
