//! How images become the network's input.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Resize, crop, flip, normalise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformConfig {
    /// `fixed`: to `size` exactly. `keep_ratio`: shorter side to `short_side`, longer at most
    /// `long_side`. `center_crop`, of classification: shorter side to `short_side`, then `size` out of the
    /// middle. `none`: images keep their size, times `own_scale`. Every resize is Pillow's `BILINEAR`
    /// of 8-bit pixels: antialiased where it shrinks.
    pub resize: ResizeMode,
    /// `[height, width]` for `fixed` and `center_crop`.
    #[schemars(inner(range(min = 32)))]
    pub size: [usize; 2],
    /// Pixels, for `keep_ratio` and `center_crop`; of the latter at least either extent of `size`.
    #[schemars(range(min = 32))]
    pub short_side: usize,
    /// Pixels, for `keep_ratio`.
    #[schemars(range(min = 32))]
    pub long_side: usize,
    /// For `none`: images are resized to so many times their own size, to the nearest pixel; 1: not at
    /// all.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub own_scale: f64,
    /// Training of segmentation multiplies the size that an image is resized to by a factor drawn from
    /// `[lowest, highest]`; `[1.0, 1.0]`: as it is.
    #[schemars(extend("items" = {"type": "number", "exclusiveMinimum": 0}))]
    pub scale_range: [f64; 2],
    /// Training of segmentation takes a part of `[height, width]` after that, anywhere; smaller images
    /// are padded at right and bottom, without labels. Empty: none, but `size` where `resize = "fixed"`
    /// and `scale_range` scales.
    #[schemars(inner(range(min = 32)))]
    pub crop_size: Vec<usize>,
    /// Training of classification takes a part of the image of a random share of its area, from
    /// `[smallest, largest]`, and a random shape, and resizes it to `size`, as torchvision's
    /// `RandomResizedCrop` (its default: `[0.08, 1.0]`); `[1.0, 1.0]`: as evaluation does.
    #[schemars(extend("items" = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}))]
    pub area_range: [f64; 2],
    /// Width over height of that part, drawn from `[lowest, highest]`, uniform in the logarithm.
    #[schemars(extend("items" = {"type": "number", "exclusiveMinimum": 0}))]
    pub aspect_range: [f64; 2],
    /// Probability of a horizontal flip in training.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub flip_prob: f64,
    /// Subtracted per RGB channel, on values in 0..1.
    pub mean: [f32; 3],
    /// Divided by per RGB channel.
    #[schemars(extend("items" = {"type": "number", "exclusiveMinimum": 0}))]
    pub std: [f32; 3],
}

/// How images are brought to the network's input size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// To one size, aspect ratio not kept.
    Fixed,
    /// Shorter side to a length, longer side bounded.
    KeepRatio,
    /// Shorter side to a length, then a part of one size out of the middle.
    CenterCrop,
    /// Not at all.
    None,
}

impl TransformConfig {
    /// `[height, width]` of whole images, where all have one size.
    #[must_use]
    pub fn one_size(&self) -> Option<[usize; 2]> {
        match self.resize {
            ResizeMode::Fixed | ResizeMode::CenterCrop => Some(self.size),
            ResizeMode::KeepRatio | ResizeMode::None => None,
        }
    }
}
