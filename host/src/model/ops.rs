//! The one door through which every model reaches its kernels; a faster one goes behind it.
//!
//! All maps are `[N, C, H, W]` f32. Every function is differentiable in every tensor that it takes,
//! and runs on whatever device its arguments live on; a plain tensor is a constant.

use burn::tensor::Tensor;
use burn::tensor::activation;
use burn::tensor::module;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions, MaxPoolOptions};

use crate::kernels;

/// Epsilon of torch's `BatchNorm2d` and of torchvision's `FrozenBatchNorm2d`.
pub const NORM_EPS: f64 = 1e-5;

/// 2-D convolution (cross-correlation) without dilation or groups.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`
/// - `weight`: `[D, C, R, S]`, `bias`: `[D]`
/// - result: `[N, D, (H + 2 padding - R) / stride + 1, (W + 2 padding - S) / stride + 1]`
#[must_use]
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    let y = kernels::conv::conv2d(x, weight, [stride; 2], [padding; 2], [1; 2]);
    match bias {
        Some(bias) => {
            let [channels] = bias.dims();
            y + bias.reshape([1, channels, 1, 1])
        }
        None => y,
    }
}

/// What batch normalisation gives while training.
#[derive(Clone, Debug)]
pub struct Normalized {
    /// `[N, C, H, W]`.
    pub output: Tensor<4>,
    /// Batch mean `[C]`, plain device, no gradient.
    pub mean: Tensor<1>,
    /// Unbiased batch variance `[C]`, plain device, no gradient: what torch blends into
    /// `running_var`, while `output` is normalised by the biased one.
    pub var: Tensor<1>,
}

/// Batch normalisation by the statistics of the batch (arXiv 1502.03167).
///
/// # Shapes
/// - `x`: `[N, C, H, W]`, `gamma`, `beta`: `[C]`
///
/// # Gradients
/// With respect to `x` (through the statistics), `gamma` and `beta`.
///
/// # Panics
/// If a channel has a single value: its variance is undefined, and torch refuses it as well.
#[must_use]
pub fn batch_norm_train(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>) -> Normalized {
    let [n, _, h, w] = x.dims();
    let count = n * h * w;
    assert!(
        count > 1,
        "batch normalisation needs more than one value a channel, got an input of {:?}; train on \
         larger images or batches, or set `norm = \"frozen_batch\"`",
        x.dims()
    );
    let result = module::batch_norm_train(x, gamma, beta, NORM_EPS);
    let unbias = count as f64 / (count - 1) as f64;
    Normalized {
        output: result.output,
        mean: result.mean.inner(),
        var: result.variance.inner().mul_scalar(unbias),
    }
}

/// Normalisation by fixed statistics as `x * scale + shift`; returns `(scale, shift)`, each `[C]`.
///
/// A convolution without bias takes `scale` into its weight and `shift` as its bias, which saves
/// two passes over the activations.
#[must_use]
pub fn fold_norm(
    gamma: Tensor<1>,
    beta: Tensor<1>,
    mean: Tensor<1>,
    var: Tensor<1>,
) -> (Tensor<1>, Tensor<1>) {
    let scale = gamma / var.add_scalar(NORM_EPS).sqrt();
    let shift = beta - mean * scale.clone();
    (scale, shift)
}

/// `max(x, 0)`; the gradient at 0 is 0, as torch's.
#[must_use]
pub fn relu(x: Tensor<4>) -> Tensor<4> {
    activation::relu(x)
}

/// The ResNet stem's max-pool: 3×3, stride 2, padding 1. `H, W` become `ceil(H / 2), ceil(W / 2)`.
#[must_use]
pub fn max_pool_3x3_s2(x: Tensor<4>) -> Tensor<4> {
    let options = MaxPoolOptions::new([3, 3])
        .with_stride([2, 2])
        .with_padding([1, 1]);
    module::max_pool2d(x, options)
}

/// Nearest-neighbour resize to `[height, width]`: `out[i] = x[floor(i * in / out)]`, torch's
/// `interpolate(size = …, mode = "nearest")`.
#[must_use]
pub fn upsample_nearest(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let options = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size(size);
    module::interpolate(x, options)
}
