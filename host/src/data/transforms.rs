//! Resize, crop, horizontal flip, normalisation; boxes and labels move exactly with the pixels.

use std::borrow::Cow;

use super::{
    Augmentation, DatasetError, Geometry, IGNORE_LABEL, ImageMeta, ImageTargets, LabelMap,
    MaskCrop, Part, Record, RgbPixels, resize,
};
use crate::config::{ResizeMode, TransformConfig};

/// One image ready for the network, not yet padded.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// `[3, H, W]` normalised, with `[H, W] = meta.size`.
    pub image: Vec<f32>,
    /// Objects but crowd regions, clipped to the image.
    pub targets: ImageTargets,
    /// A class for every pixel of `image`; of segmentation alone.
    pub label_map: Option<LabelMap>,
    /// Where it came from.
    pub meta: ImageMeta,
}

/// Brings images of any size to the network's input.
///
/// - `fixed` resizes to one size, aspect ratio not kept; `keep_ratio` chooses the size as
///   torchvision's `GeneralizedRCNNTransform`: scale `min(short_side / shorter, long_side /
///   longer)`, extents rounded down; `center_crop` as torchvision's `Resize(short_side)` and
///   `CenterCrop(size)`; `none` keeps the image's own, times `own_scale`.
/// - Pixels are resized as 8-bit values with a bilinear filter that widens when it shrinks
///   (antialias): [`resize`], equal to Pillow's `BILINEAR`; torchvision's `Resize` of a tensor differs by
///   rounding, torchvision's *detection* transform does not antialias.
/// - Normalisation is `(value / 255 - mean) / std` per RGB channel.
#[derive(Clone, Debug)]
pub struct Transform {
    config: TransformConfig,
    normalised: Normalised,
}

/// Normalised value of each byte, per channel.
#[derive(Clone, Debug)]
pub(super) struct Normalised(Box<[[f32; 256]; 3]>);

impl Normalised {
    pub(super) fn new(mean: [f32; 3], std: [f32; 3]) -> Self {
        let value =
            |channel: usize, byte: usize| (byte as f32 / 255.0 - mean[channel]) / std[channel];
        let table = |channel| std::array::from_fn(|byte| value(channel, byte));
        Normalised(Box::new(std::array::from_fn(table)))
    }
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
            ResizeMode::CenterCrop
                if config.size.contains(&0)
                    || config.size.iter().any(|extent| *extent > config.short_side) =>
            {
                let reason = format!(
                    "is {:?}; both extents must be positive, and at most `short_side` ({})",
                    config.size, config.short_side
                );
                return fault("data.transform.size", reason);
            }
            ResizeMode::None if !(config.own_scale.is_finite() && config.own_scale > 0.0) => {
                let reason = format!("is {}; a positive factor is needed", config.own_scale);
                return fault("data.transform.own_scale", reason);
            }
            ResizeMode::KeepRatio if config.short_side == 0 => {
                return fault("data.transform.short_side", "must be positive".into());
            }
            ResizeMode::KeepRatio if config.long_side < config.short_side => {
                let reason = format!("{} is less than `short_side`", config.long_side);
                return fault("data.transform.long_side", reason);
            }
            ResizeMode::Fixed
            | ResizeMode::KeepRatio
            | ResizeMode::CenterCrop
            | ResizeMode::None => {}
        }
        for (key, [low, high], limit) in [
            ("data.transform.area_range", config.area_range, 1.0),
            ("data.transform.aspect_range", config.aspect_range, f64::MAX),
        ] {
            if !(0.0 < low && low <= high && high <= limit) {
                let reason = match limit {
                    1.0 => "two shares of the area that ascend, above 0 and up to 1, are needed",
                    _ => "two positive ratios that ascend are needed",
                };
                return fault(key, format!("is [{low}, {high}]; {reason}"));
            }
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
        Ok(Transform {
            config: config.clone(),
            normalised: Normalised::new(config.mean, config.std),
        })
    }

    /// The configuration it follows.
    #[must_use]
    pub fn config(&self) -> &TransformConfig {
        &self.config
    }

    /// `[height, width]` that an image of `size` is resized to, before cropping and padding.
    #[must_use]
    pub fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        let config = &self.config;
        let [shorter, longer] = [size[0].min(size[1]), size[0].max(size[1])];
        match config.resize {
            ResizeMode::Fixed => config.size,
            ResizeMode::None if config.own_scale == 1.0 => size,
            ResizeMode::None => size.map(|extent| rounded(extent as f64 * config.own_scale)),
            ResizeMode::CenterCrop => size.map(|extent| match extent == shorter {
                true => config.short_side,
                false => config.short_side * longer / shorter,
            }),
            ResizeMode::KeepRatio => {
                let short_scale = config.short_side as f64 / shorter as f64;
                let scale = short_scale.min(config.long_side as f64 / longer as f64);
                size.map(|extent| ((extent as f64 * scale).floor() as usize).max(1))
            }
        }
    }

    /// How a picture of `size` is seen where nothing is drawn but the mirroring.
    #[must_use]
    pub fn whole(&self, size: [usize; 2], flip: bool) -> Geometry {
        let resized = self.output_size(size);
        if self.config.resize != ResizeMode::CenterCrop {
            return Geometry::whole(resized, flip);
        }
        let canvas = self.config.size;
        // Python's `round`, in which torchvision computes it, goes to the even of two as near.
        let corner = [0, 1].map(|axis| {
            let slack = (resized[axis] - canvas[axis]) as f64;
            (slack / 2.0).round_ties_even() as usize
        });
        Geometry {
            part: None,
            resized,
            kept: Part {
                corner,
                size: canvas,
            },
            canvas,
            flip,
        }
    }

    /// How `part` of a picture is seen, resized to `size` of the configuration.
    #[must_use]
    pub fn of_part(&self, part: Part, flip: bool) -> Geometry {
        Geometry {
            part: Some(part),
            ..Geometry::whole(self.config.size, flip)
        }
    }

    /// How a picture of `size` is seen that is scaled and cropped.
    #[must_use]
    pub fn augmented(&self, size: [usize; 2], augmentation: &Augmentation) -> Geometry {
        let Augmentation { scale, crop, flip } = *augmentation;
        let resized = self
            .output_size(size)
            .map(|extent| rounded(extent as f64 * scale));
        let canvas = crop.map_or(resized, |crop| crop.size);
        let shown = [0, 1].map(|axis| canvas[axis].min(resized[axis]));
        let corner = [0, 1].map(|axis| {
            let slack = resized[axis] - shown[axis];
            let place = crop.map_or(0.0, |crop| crop.place[axis]);
            // The place is less than 1; a product that rounds up must not leave the image.
            ((place * (slack + 1) as f64) as usize).min(slack)
        });
        Geometry {
            part: None,
            resized,
            kept: Part {
                corner,
                size: shown,
            },
            canvas,
            flip,
        }
    }

    /// Resizes, crops to the middle where that is the mode, mirrors if `flip`, normalises.
    #[must_use]
    pub fn apply(&self, record: &Record, pixels: &RgbPixels, flip: bool) -> Sample {
        let geometry = self.whole(pixels.size, flip);
        self.sample(record, pixels, &geometry, None)
    }

    /// The picture, its objects and its labels under `geometry`. Pixels are resized once, by
    /// [`resize`]; labels by the nearest pixel ([`LabelMap::resized`]). Objects are those of a whole
    /// picture: a data set of boxes is not cropped.
    ///
    /// # Panics
    /// If `labels` has another size than `pixels`, or the picture of a data set of label maps is seen in
    /// part before it is resized.
    #[must_use]
    pub fn sample(
        &self,
        record: &Record,
        pixels: &RgbPixels,
        geometry: &Geometry,
        labels: Option<&LabelMap>,
    ) -> Sample {
        let Geometry {
            resized,
            kept,
            canvas,
            flip,
            ..
        } = *geometry;
        let label_map = labels.map(|labels| {
            assert_eq!(labels.size, pixels.size, "a label for every pixel");
            assert_eq!(geometry.part, None, "labels are resized whole");
            let labels = labels.resized(resized);
            let labels = part::<1>(&labels.data, resized[1], kept);
            placed(&labels, kept.size, canvas, flip)
        });
        let mut targets = ImageTargets::default();
        for index in shown(record, pixels.size, geometry) {
            let object = &record.objects[index];
            targets
                .boxes_xyxy
                .push(move_box(object.box_xyxy, pixels.size, canvas, flip));
            targets.labels.push(object.label);
            let turned = |mask: MaskCrop| if flip { mask.mirrored() } else { mask };
            targets.mask_crops.push(object.mask.map(turned));
        }
        Sample {
            image: render(&self.normalised, pixels, geometry),
            targets,
            label_map,
            meta: ImageMeta {
                image_id: record.image_id,
                original_size: pixels.size,
                size: canvas,
                flipped: flip,
            },
        }
    }
}

/// To the nearest pixel, and at least one.
fn rounded(extent: f64) -> usize {
    (extent.round() as usize).max(1)
}

/// The objects of `record`, in a picture of `size`, that are targets under `geometry`: no crowd region,
/// and not gone where boxes are clipped to the image.
pub(super) fn shown(record: &Record, size: [usize; 2], geometry: &Geometry) -> Vec<usize> {
    let is_shown = |index: &usize| {
        let object = &record.objects[*index];
        let moved = move_box(object.box_xyxy, size, geometry.canvas, geometry.flip);
        !object.is_crowd && moved[2] > moved[0] && moved[3] > moved[1]
    };
    (0..record.objects.len()).filter(is_shown).collect()
}

/// Normalised planes `[3, H, W]` of a picture, `[H, W]` that of the canvas.
pub(super) fn render(normalised: &Normalised, pixels: &RgbPixels, geometry: &Geometry) -> Vec<f32> {
    let mut pixels = Cow::Borrowed(pixels);
    if let Some(taken) = geometry.part {
        pixels = Cow::Owned(RgbPixels {
            size: taken.size,
            data: part::<3>(&pixels.data, pixels.size[1], taken),
        });
    }
    if geometry.resized != pixels.size {
        pixels = Cow::Owned(resize(&pixels, geometry.resized));
    }
    let kept = geometry.kept;
    let rgb = match kept.size == pixels.size {
        true => Cow::Borrowed(&pixels.data),
        false => Cow::Owned(part::<3>(&pixels.data, pixels.size[1], kept)),
    };
    planes(normalised, &rgb, kept.size, geometry.canvas, geometry.flip)
}

/// Interleaved bytes of `size` to normalised planes of `canvas`, 0 at right and bottom.
fn planes(
    normalised: &Normalised,
    rgb: &[u8],
    size: [usize; 2],
    canvas: [usize; 2],
    flip: bool,
) -> Vec<f32> {
    let mut planes = vec![0.0; 3 * canvas[0] * canvas[1]];
    let width = size[1];
    for (channel, plane) in planes.chunks_exact_mut(canvas[0] * canvas[1]).enumerate() {
        let table = &normalised.0[channel];
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

/// A part of an image of so many columns.
fn part<const BYTES: usize>(data: &[u8], columns: usize, part: Part) -> Vec<u8> {
    let Part {
        corner: [top, left],
        size: [height, width],
    } = part;
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
pub(super) fn move_box(
    box_xyxy: [f32; 4],
    from: [usize; 2],
    to: [usize; 2],
    flip: bool,
) -> [f32; 4] {
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
