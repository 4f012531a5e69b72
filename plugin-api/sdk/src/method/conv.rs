//! A convolution on the maps of all levels at once.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, activation, module};

use super::conv_op::{self, Conv};
use super::packed::Packed;

/// torch's initial weights and bias of linear and convolution layers: uniform within `1 / sqrt(fan_in)`.
#[must_use]
pub fn torch_default(fan_in: usize) -> Initializer {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Initializer::Uniform {
        min: -bound,
        max: bound,
    }
}

/// A convolution of stride 1 that keeps the size of its maps ("same" padding with zeros), with bias.
///
/// `torch.nn.Conv2d(c_in, c_out, k, padding=k//2)`: weights `[C_out, C_in, k, k]`, initial weights and
/// bias uniform within `1 / sqrt(C_in k²)`, as torch's default.
///
/// One operation of the method's program, which the host computes; where the plugin computes by itself,
/// the host's where it offers its kernels (`kd.conv/1`), else Burn's.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[C_out, C_in, k, k]`.
    weight: Param<Tensor<4>>,
    /// `[C_out]`.
    bias: Param<Tensor<1>>,
}

impl Conv2d {
    /// With an odd `kernel`.
    ///
    /// # Panics
    /// If `kernel` is even.
    #[must_use]
    pub fn new(c_in: usize, c_out: usize, kernel: usize, device: &Device) -> Self {
        assert!(kernel % 2 == 1, "an even kernel cannot keep the size");
        let uniform = torch_default(c_in * kernel * kernel);
        Conv2d {
            weight: uniform.init([c_out, c_in, kernel, kernel], device),
            bias: uniform.init([c_out], device),
        }
    }

    /// `x ⋆ weight + bias`, of the same sizes. Differentiable in maps, weight and bias.
    #[must_use]
    pub fn forward(&self, x: &Packed) -> Packed {
        conv2d(x, self.weight.val(), self.bias.val(), false)
    }

    /// `max(x ⋆ weight + bias, 0)`; the gradient at 0 is 0, as torch's.
    #[must_use]
    pub fn forward_relu(&self, x: &Packed) -> Packed {
        conv2d(x, self.weight.val(), self.bias.val(), true)
    }
}

fn conv2d(x: &Packed, weight: Tensor<4>, bias: Tensor<1>, relu: bool) -> Packed {
    let [c_out, c_in, kernel, _] = weight.dims();
    if conv_op::applies(&x.cells(), &weight, &bias) {
        let conv = Conv {
            sizes: x.sizes().clone(),
            c_in,
            c_out,
            kernel,
            relu,
        };
        return x.with(conv_op::conv2d(x.cells(), weight, bias, conv));
    }
    let padding = kernel / 2;
    Packed::pack(x.unpack().into_iter().map(|map| {
        let options = ConvOptions::new([1, 1], [padding; 2], [1, 1], 1);
        let y = module::conv2d(map, weight.clone(), Some(bias.clone()), options);
        if relu { activation::relu(y) } else { y }
    }))
}
