//! Normalisation of packed maps for traced programs, on tensors of the CPU backend.

use burn::backend::TensorMetadata;
use burn_flex::FlexTensor;
use kd_graph::standardize::Norm;

use super::flex::{contiguous, tensor, values};

/// `y` for `x`, `[cells, channels]`.
pub(crate) fn forward(norm: &Norm, x: FlexTensor) -> FlexTensor {
    let x = contiguous(x);
    tensor(norm.forward(values(&x), x.shape()[1]), &x.shape())
}

/// The gradient at `x` of `sum(dy * y)`.
pub(crate) fn backward(norm: &Norm, x: FlexTensor, dy: FlexTensor) -> FlexTensor {
    let (x, dy) = (contiguous(x), contiguous(dy));
    let dx = norm.backward(values(&x), values(&dy), x.shape()[1]);
    tensor(dx, &x.shape())
}
