//! Layers in torch's layout and initial values, and normalisations without learned parts.

use kd_plugin::Packed;
use kd_plugin::burn::module::{Module, Param};
use kd_plugin::burn::nn::Initializer;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};

/// torch's default epsilon of every normalisation here.
pub const EPSILON: f64 = 1e-5;

/// `torch.nn.Linear`: `y = x Wᵀ + b`; initial values uniform within `1 / sqrt(inputs)`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[outputs, inputs]`.
    weight: Param<Tensor<2>>,
    /// `[outputs]`.
    bias: Param<Tensor<1>>,
}

impl Linear {
    /// Of these extents.
    #[must_use]
    pub fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        let bound = 1.0 / (inputs as f64).sqrt();
        let uniform = Initializer::Uniform {
            min: -bound,
            max: bound,
        };
        Linear {
            weight: uniform.init([outputs, inputs], device),
            bias: uniform.init([outputs], device),
        }
    }

    /// With a bias that starts at 0.
    #[must_use]
    pub fn with_zero_bias(inputs: usize, outputs: usize, device: &Device) -> Self {
        Linear {
            bias: Initializer::Zeros.init([outputs], device),
            ..Linear::new(inputs, outputs, device)
        }
    }

    /// `[rows, inputs]` to `[rows, outputs]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }
}

/// LayerNorm over the columns of each row, no affine part.
#[must_use]
pub fn layer_norm(x: Tensor<2>) -> Tensor<2> {
    standardize(x, 1)
}

/// GroupNorm with one group, no affine part: over channels and cells of each map of each image.
#[must_use]
pub fn group_norm(x: &Packed) -> Packed {
    each_image(x, |maps| {
        let [images, cells, channels] = maps.dims();
        let rows = standardize(maps.reshape([images, cells * channels]), 1);
        rows.reshape([images, cells, channels])
    })
}

/// InstanceNorm, no affine part: over the cells of each channel of each map of each image. A constant
/// channel, such as any of a 1×1 map, becomes 0.
#[must_use]
pub fn instance_norm(x: &Packed) -> Packed {
    each_image(x, |maps| standardize(maps, 1))
}

/// `(x − mean) / sqrt(var + ε)` along `dim`, with the biased variance.
fn standardize<const D: usize>(x: Tensor<D>, dim: usize) -> Tensor<D> {
    let centered = x.clone() - x.mean_dim(dim);
    let variance = centered.clone().square().mean_dim(dim);
    centered / (variance + EPSILON).sqrt()
}

/// Applies `f` to the maps of each level as `[images, cells, channels]`.
fn each_image(x: &Packed, f: impl Fn(Tensor<3>) -> Tensor<3>) -> Packed {
    let channels = x.channels();
    let levels = x.sizes().iter().enumerate().map(|(level, size)| {
        let cells = x.cells().slice([x.range(level)]);
        let maps = cells.reshape([size.n, size.h * size.w, channels]);
        f(maps).reshape([size.cells(), channels])
    });
    x.with(Tensor::cat(levels.collect(), 0))
}
