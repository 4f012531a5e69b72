//! Operations on tokens: rows of a matrix, each looked at by itself.

use burn::tensor::{Tensor, activation};

use super::{ConvOptions2d, as_type, conv2d, in_f32};
use crate::kernels::conv::Window;
use crate::kernels::{gelu as gelu_of_tokens, layer_norm as norm_of_tokens, softmax as of_rows};
use crate::kernels::{is_for_kernels, is_on_host};
use crate::maps::{Maps, Segment};

/// `x Wᵀ + b` of each row: torch's `Linear`.
///
/// # Shapes
/// - `x`: `[rows, C]`, `weight`: `[O, C]`, `bias`: `[O]`
/// - result: `[rows, O]`
#[must_use]
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let [rows, inputs] = x.dims();
    let [outputs, _] = weight.dims();
    if !is_on_host(&x) {
        let dtype = x.dtype();
        let (weight, bias) = (as_type(weight, dtype), as_type(bias, dtype));
        return x.matmul(weight.transpose()) + bias.unsqueeze();
    }
    // The rows as cells of one image: the kernels cut images into tasks.
    let maps = Maps::new(x, [Segment::new(1, rows, 1)]);
    let options = ConvOptions2d {
        window: Window::square(1, 1, 0),
        groups: 1,
        relu: false,
    };
    let weight = weight.reshape([outputs, inputs, 1, 1]);
    conv2d(&maps, weight, Some(bias), options).cells().clone()
}

/// Layer normalisation (arXiv 1607.06450): each row is normalised by its mean and biased variance, then
/// scaled and shifted channel by channel.
///
/// # Shapes
/// - `x`, result: `[rows, C]`; `gamma`, `beta`: `[C]`
///
/// # Gradients
/// With respect to `x` (through the statistics), `gamma` and `beta`.
#[must_use]
pub fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let dtype = x.dtype();
    let x = in_f32(x);
    let y = if is_for_kernels(&x) {
        norm_of_tokens::layer_norm(x, gamma, beta, epsilon)
    } else {
        let centred = x.clone() - x.mean_dim(1);
        let variance = centred.clone().square().mean_dim(1);
        let y = centred / variance.add_scalar(epsilon).sqrt();
        y * gamma.unsqueeze() + beta.unsqueeze()
    };
    as_type(y, dtype)
}

/// `x Φ(x)` (arXiv 1606.08415), `Φ` the standard normal distribution: torch's `GELU`, not its
/// approximation by `tanh`. Computed in f32.
///
/// # Shapes
/// - `x`, result: `[rows, C]`
#[must_use]
pub fn gelu(x: Tensor<2>) -> Tensor<2> {
    let dtype = x.dtype();
    let x = in_f32(x);
    let y = if is_for_kernels(&x) {
        gelu_of_tokens::gelu(x)
    } else {
        // Composed: Burn's own has the approximation's gradient off the CPU.
        let scaled = x.clone().mul_scalar(std::f64::consts::FRAC_1_SQRT_2);
        x.mul_scalar(0.5) * scaled.erf().add_scalar(1.0)
    };
    as_type(y, dtype)
}

/// Softmax along the last axis, computed and given in f32.
///
/// # Shapes
/// - `x`, result: `[.., C]`
#[must_use]
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let x = in_f32(x);
    if is_for_kernels(&x) {
        of_rows::softmax(x)
    } else {
        activation::softmax(x, D - 1)
    }
}
