//! The one door through which every model reaches its kernels; a faster one goes behind it.
//!
//! Every function is differentiable in every tensor that it takes; a plain tensor is a constant. On
//! the CPU backend they are [`crate::kernels`], elsewhere Burn's own operations.
//!
//! Maps are in f32 or in half precision (bf16), and a layer gives what it takes. Weights come in f32
//! and are brought to the maps' numbers here, so that their gradients are f32 again; normalisation
//! computes in f32.

mod tokens;

pub use tokens::{gelu, layer_norm, linear, softmax};

use burn::tensor::module;
use burn::tensor::ops::{ConvOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions};
use burn::tensor::{DType, FloatDType, Tensor, TensorData, activation};

use crate::config::Precision;
pub use crate::kernels::activation::Activation;
use crate::kernels::conv::{self, Conv, Window};
use crate::kernels::enlarge::{self, Enlargement};
use crate::kernels::{
    group_norm as groups_of_maps, is_for_kernels, is_on_host, norm, pool, resample, residual,
};
use crate::maps::{Maps, Segment};

/// Epsilon of torch's `BatchNorm2d` and `GroupNorm` and of torchvision's `FrozenBatchNorm2d`.
pub const NORM_EPS: f64 = norm::EPSILON;

/// What a convolution is beside its weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvOptions2d {
    /// Kernel, stride, padding, dilation.
    pub window: Window,
    /// Groups of channels.
    pub groups: usize,
    /// Applies ReLU to the result.
    pub relu: bool,
}

/// `x` in the numbers of activations: what a model is given decides what its layers compute in.
#[must_use]
pub fn in_precision<const D: usize>(x: Tensor<D>, precision: Precision) -> Tensor<D> {
    match precision {
        Precision::F32 => in_f32(x),
        Precision::Bf16 => as_type(x, DType::BF16),
    }
}

/// `x` in f32: for losses, statistics and taps.
#[must_use]
pub fn in_f32<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    as_type(x, DType::F32)
}

/// A tensor of this type already is left alone: it keeps its place on the tape.
pub(super) fn as_type<const D: usize>(x: Tensor<D>, dtype: DType) -> Tensor<D> {
    if x.dtype() == dtype {
        x
    } else {
        x.cast(FloatDType::from(dtype))
    }
}

/// 2-D convolution (cross-correlation), bias and ReLU in one.
///
/// # Shapes
/// - `x`: maps of `C` channels, `weight`: `[O, C / groups, kh, kw]`, `bias`: `[O]`
/// - result: maps of `O` channels and `(H + 2 padding - dilation (kh - 1) - 1) / stride + 1` rows
#[must_use]
pub fn conv2d(
    x: &Maps,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvOptions2d,
) -> Maps {
    let ConvOptions2d {
        window,
        groups,
        relu,
    } = options;
    let dtype = x.cells().dtype();
    let weight = as_type(weight, dtype);
    let bias = bias.map(|bias| as_type(bias, dtype));
    if is_on_host(x.cells()) {
        let conv = Conv {
            window,
            groups,
            relu,
            input: x.segments().clone(),
        };
        let output = conv.output();
        return Maps::new(conv::conv2d(x.cells().clone(), weight, bias, conv), output);
    }
    per_map(x, |map| {
        let options = ConvOptions::new(window.stride, window.padding, window.dilation, groups);
        let y = module::conv2d(map, weight.clone(), bias.clone(), options);
        if relu { activation::relu(y) } else { y }
    })
}

/// Applies an operation on `[N, C, H, W]` to the maps of each size.
fn per_map(x: &Maps, f: impl Fn(Tensor<4>) -> Tensor<4>) -> Maps {
    let maps: Vec<Tensor<4>> = (0..x.segments().len())
        .map(|level| f(x.nchw(level)))
        .collect();
    Maps::pack_nchw(&maps)
}

/// What batch normalisation gives while training.
#[derive(Clone, Debug)]
pub struct Normalized {
    /// As the input.
    pub output: Maps,
    /// Batch mean `[C]`, plain device, no gradient.
    pub mean: Tensor<1>,
    /// Unbiased batch variance `[C]`, plain device, no gradient: what torch blends into
    /// `running_var`, while `output` is normalised by the biased one.
    pub var: Tensor<1>,
}

/// Batch normalisation by the statistics of the batch (arXiv 1502.03167), plus `residual`, then
/// `activation`.
///
/// # Shapes
/// - `x`, `residual`: maps of `C` channels; `gamma`, `beta`: `[C]`
///
/// # Gradients
/// With respect to `x` (through the statistics), `gamma`, `beta` and `residual`.
///
/// # Panics
/// If a channel has a single value: its variance is undefined, and torch refuses it as well.
#[must_use]
pub fn batch_norm_train(
    x: &Maps,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    residual: Option<&Maps>,
    activation: Activation,
) -> Normalized {
    let [count, channels] = x.cells().dims();
    assert!(
        count > 1,
        "batch normalisation needs more than one value a channel, got maps of {:?}; train on \
         larger images or batches, or set `norm = \"frozen_batch\"`",
        x.segments()
    );
    let residual = residual.map(|residual| residual.cells().clone());
    let (output, mean, var) = if is_for_kernels(x.cells()) {
        let result = norm::batch_norm(x.cells().clone(), gamma, beta, residual, activation);
        (result.output, result.mean, result.var)
    } else {
        let column = in_f32(x.cells().clone()).reshape([count, channels, 1, 1]);
        let result = module::batch_norm_train(column, gamma, beta, NORM_EPS);
        // What the tape keeps from here on is in the maps' numbers again.
        let mut y = as_type(result.output.reshape([count, channels]), x.cells().dtype());
        if let Some(residual) = residual {
            y = y + residual;
        }
        if activation != Activation::None {
            y = activation::relu(y);
        }
        if activation == Activation::Relu6 {
            y = capped_cells(y, activation.bound());
        }
        (y, result.mean.inner(), result.variance.inner())
    };
    let unbias = count as f64 / (count - 1) as f64;
    Normalized {
        output: Maps::new(output, x.segments().clone()),
        mean,
        var: var.mul_scalar(unbias),
    }
}

/// Group normalisation (arXiv 1803.08494), then ReLU if `relu`: each map of each image is normalised
/// by mean and biased variance over its cells and the channels of a group, as torch's `GroupNorm` on
/// one level after the other.
///
/// # Shapes
/// - `x`: maps of `C` channels; `gamma`, `beta`: `[C]`; `groups` divides `C`, and a group is channels
///   side by side
///
/// # Gradients
/// With respect to `x` (through the statistics), `gamma` and `beta`. A group of one value comes out
/// as `beta`, without a gradient at `x`.
///
/// # Panics
/// If `groups` does not divide the channels.
#[must_use]
pub fn group_norm(x: &Maps, gamma: Tensor<1>, beta: Tensor<1>, groups: usize, relu: bool) -> Maps {
    let channels = x.channels();
    assert!(
        groups > 0 && channels.is_multiple_of(groups),
        "{groups} groups do not divide {channels} channels"
    );
    if is_for_kernels(x.cells()) {
        let shape = groups_of_maps::GroupedMaps {
            segments: x.segments().clone(),
            groups,
        };
        let cells = x.cells().clone();
        let y = groups_of_maps::group_norm(cells, gamma, beta, shape, relu);
        return Maps::new(y, x.segments().clone());
    }
    let dtype = x.cells().dtype();
    let levels = x.segments().iter().enumerate();
    let normalized = levels.map(|(level, segment)| {
        let rows = x.cells().clone().slice([x.rows(level)]);
        let rows =
            in_f32(rows).reshape([segment.n, segment.h * segment.w, groups, channels / groups]);
        let mean = |x: Tensor<4>| x.mean_dim(1).mean_dim(3); // [N, 1, G, 1]
        let centred = rows.clone() - mean(rows);
        let variance = mean(centred.clone().square());
        let y = centred / variance.add_scalar(NORM_EPS).sqrt();
        y.reshape([segment.cells(), channels])
    });
    let y = Tensor::cat(normalized.collect(), 0);
    let y = y * gamma.unsqueeze() + beta.unsqueeze();
    let y = if relu { activation::relu(y) } else { y };
    Maps::new(as_type(y, dtype), x.segments().clone())
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
pub fn relu(x: &Maps) -> Maps {
    Maps::new(activation::relu(x.cells().clone()), x.segments().clone())
}

/// `min(x, bound)`: the upper end of an activation where it could not be fused; the gradient is 0 from
/// `bound` on, as torch's.
#[must_use]
pub fn capped(x: &Maps, bound: f32) -> Maps {
    let cells = capped_cells(x.cells().clone(), bound);
    Maps::new(cells, x.segments().clone())
}

fn capped_cells(x: Tensor<2>, bound: f32) -> Tensor<2> {
    let above = x.clone().greater_equal_elem(bound);
    x.mask_fill(above, bound)
}

/// `x + y`, of equal sizes.
#[must_use]
pub fn add(x: &Maps, y: &Maps) -> Maps {
    let sum = x.cells().clone() + y.cells().clone();
    Maps::new(sum, x.segments().clone())
}

/// `max(x + y, 0)`.
#[must_use]
pub fn add_relu(x: &Maps, y: &Maps) -> Maps {
    if !is_for_kernels(x.cells()) {
        return relu(&add(x, y));
    }
    let sum = residual::add_relu(x.cells().clone(), y.cells().clone());
    Maps::new(sum, x.segments().clone())
}

/// The ResNet stem's max-pool: 3×3, stride 2, padding 1. `H, W` become `ceil(H / 2), ceil(W / 2)`.
#[must_use]
pub fn max_pool_3x3_s2(x: &Maps) -> Maps {
    if is_for_kernels(x.cells()) {
        let (y, segment) = pool::max_pool(x.cells().clone(), x.segment());
        return Maps::new(y, [segment]);
    }
    let options = MaxPoolOptions::new([3, 3])
        .with_stride([2, 2])
        .with_padding([1, 1]);
    per_map(x, |map| module::max_pool2d(map, options.clone()))
}

/// `fine` plus `coarse` enlarged to its size: `out[i] = fine[i] + coarse[floor(i * coarse / fine)]`,
/// torch's `interpolate(mode = "nearest")`.
#[must_use]
pub fn upsample_add(fine: &Maps, coarse: &Maps) -> Maps {
    let (to, from) = (fine.segment(), coarse.segment());
    if is_for_kernels(fine.cells()) {
        let (fine, coarse) = (fine.cells().clone(), coarse.cells().clone());
        return Maps::new(resample::upsample_add(fine, coarse, to, from), [to]);
    }
    let options = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([to.h, to.w]);
    Maps::from_nchw(fine.nchw(0) + module::interpolate(coarse.nchw(0), options))
}

/// `x` enlarged to cells of `size` (`[height, width]`), bilinearly: cell `i` of an axis reads at
/// `i / scale`, beyond the last cell that one. torch's `grid_sample` at those places.
///
/// # Gradients
/// With respect to `x`.
#[must_use]
pub fn enlarge(x: &Maps, size: [usize; 2], scale: f64) -> Maps {
    let from = x.segment();
    let to = Segment::new(from.n, size[0], size[1]);
    let shape = Enlargement { from, to, scale };
    if is_for_kernels(x.cells()) {
        return Maps::new(enlarge::enlarge(x.cells().clone(), shape), [to]);
    }
    let (channels, dtype) = (x.channels(), x.cells().dtype());
    let device = x.cells().device();
    let [rows, columns] = shape.axes().map(|axis| {
        let data = TensorData::new(axis.matrix(), [1, axis.taps.len(), axis.coarse]);
        Tensor::<3>::from_data(data, &device)
    });
    // A matrix for each axis: a product is the same in every run, a scattered sum need not be.
    let cells = in_f32(x.cells().clone());
    let y = cells.reshape([from.n, from.h, from.w * channels]);
    let y = rows.expand([from.n, to.h, from.h]).matmul(y);
    let y = y.reshape([to.n * to.h, from.w, channels]);
    let y = columns.expand([to.n * to.h, to.w, from.w]).matmul(y);
    Maps::new(as_type(y.reshape([to.cells(), channels]), dtype), [to])
}

/// Mean of every channel over the cells of each image: maps of one cell.
#[must_use]
pub fn image_means(x: &Maps) -> Maps {
    let Segment { n, h, w } = x.segment();
    let channels = x.channels();
    let dtype = x.cells().dtype();
    let cells = in_f32(x.cells().clone()).reshape([n, h * w, channels]);
    let means = cells.mean_dim(1).reshape([n, channels]);
    Maps::new(as_type(means, dtype), [Segment::new(n, 1, 1)])
}

/// Maps of one cell, each spread over all cells of an image of `to`.
#[must_use]
pub fn spread(x: &Maps, to: Segment) -> Maps {
    let channels = x.channels();
    let cells = x.cells().clone().reshape([to.n, 1, channels]);
    let cells = cells.expand([to.n, to.h * to.w, channels]);
    Maps::new(cells.reshape([to.cells(), channels]), [to])
}
