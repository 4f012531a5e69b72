//! Layers in torch's layout and initial values.

use kd_plugin::burn::module::{Module, Param};
use kd_plugin::burn::nn::Initializer;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};
use kd_plugin::torch_default;

/// torch's default.
const EPSILON: f64 = 1e-5;

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
        let uniform = torch_default(inputs);
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

/// LayerNorm over the columns of each row, no affine part: `(x − mean) / sqrt(var + ε)` with the biased
/// variance.
#[must_use]
pub fn layer_norm(x: Tensor<2>) -> Tensor<2> {
    let centered = x.clone() - x.mean_dim(1);
    let variance = centered.clone().square().mean_dim(1);
    centered / (variance + EPSILON).sqrt()
}
