//! ψ: maps scaled to [0, 1], and teacher maps brought to the student's size.

use kd_plugin::MethodError;
use kd_plugin::burn::tensor::Tensor;
use kd_plugin::burn::tensor::module::interpolate;
use kd_plugin::burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Keeps the range of a constant map from being 0.
const RANGE_EPS: f64 = 1e-6;

/// Over what minimum and maximum are taken, per level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NormScope {
    /// Channels and cells of each image: keeps the relative strength of channels.
    #[default]
    Image,
    /// Cells of each channel of each image.
    Channel,
    /// The whole batch: couples its images.
    Tensor,
}

/// `(x − min) / (max − min + 1e-6)`; gradients flow through minimum and maximum, so that the loss
/// ignores gain and offset of the student exactly.
///
/// # Shapes
/// - `x`, result: `[N, C, H, W]`.
#[must_use]
pub fn min_max(x: Tensor<4>, scope: NormScope) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let (groups, len) = match scope {
        NormScope::Image => (n, c * h * w),
        NormScope::Channel => (n * c, h * w),
        NormScope::Tensor => (1, n * c * h * w),
    };
    let flat: Tensor<2> = x.reshape([groups, len]);
    let low = flat.clone().min_dim(1);
    let range = flat.clone().max_dim(1) - low.clone() + RANGE_EPS;
    ((flat - low) / range).reshape([n, c, h, w])
}

/// `teacher` at `size` `[height, width]`: bilinear, half-pixel centers; itself if it fits.
///
/// # Errors
/// If a side differs by more than `max_ratio`.
pub fn fit(teacher: Tensor<4>, size: [usize; 2], max_ratio: f64) -> Result<Tensor<4>, MethodError> {
    let [_, _, height, width] = teacher.dims();
    if [height, width] == size {
        return Ok(teacher);
    }
    for (from, to) in [(height, size[0]), (width, size[1])] {
        let ratio = from.max(to) as f64 / from.min(to) as f64;
        if ratio > max_ratio {
            return Err(MethodError::shape(format!(
                "teacher map [{height}, {width}] and student map {size:?} differ by a factor of \
                 {ratio:.2}; at most `max_resize_ratio` = {max_ratio} is allowed"
            )));
        }
    }
    let options = InterpolateOptions::new(InterpolateMode::Bilinear)
        .with_align_corners(false)
        .with_output_size(size);
    Ok(interpolate(teacher, options))
}
