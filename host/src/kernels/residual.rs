//! The end of a residual block, `relu(x + y)`, as one operation: where normalisation is folded into
//! the convolution and cannot take the sum along.

#[cfg(test)]
mod tests;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::flex::{contiguous, tensor, values};
use super::maps::{Shared, filled};

/// Floats of one task.
const CHUNK: usize = 16 * 1024;

/// The operation as the tape sees it.
#[backend_extension(Flex, Autodiff)]
pub trait ResidualOps: Backend {
    /// `relu(x + y)`, both `[cells, C]`.
    fn maps_add_relu(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Gradient on plain tensors.
pub trait ResidualKernels: Backend {
    /// `gradient` unless `output` is at most 0: the gradient at both summands.
    fn gated(gradient: FloatTensor<Self>, output: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// `f` of each pair of elements.
fn pairwise(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    assert_eq!(a.len(), b.len(), "maps of one size");
    let write = |out: Shared| {
        a.par_chunks(CHUNK)
            .zip(b.par_chunks(CHUNK))
            .enumerate()
            .for_each(|(task, (a, b))| {
                // SAFETY: this chunk belongs to this task alone; all of it is written.
                let out = unsafe { out.slice(task * CHUNK, a.len()) };
                for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                    *out = f(a, b);
                }
            });
    };
    // SAFETY: the chunks cover everything.
    unsafe { filled(a.len(), write) }
}

/// NaN stays, as torch's.
fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

impl ResidualOps for Flex {
    fn maps_add_relu(x: FlexTensor, y: FlexTensor) -> FlexTensor {
        let shape = [x.shape()[0], x.shape()[1]];
        let (x, y) = (contiguous(x), contiguous(y));
        tensor(pairwise(values(&x), values(&y), |x, y| relu(x + y)), &shape)
    }
}

impl ResidualKernels for Flex {
    fn gated(gradient: FlexTensor, output: FlexTensor) -> FlexTensor {
        let shape = [output.shape()[0], output.shape()[1]];
        let (gradient, output) = (contiguous(gradient), contiguous(output));
        let gate = |g: f32, y: f32| if y <= 0.0 { 0.0 } else { g };
        tensor(pairwise(values(&gradient), values(&output), gate), &shape)
    }
}

#[derive(Debug)]
struct AddReluBackward;

impl<B: Backend + ResidualKernels> Backward<B, 2> for AddReluBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = B::gated(grads.consume::<B>(&ops.node), ops.state);
        for node in ops.parents.into_iter().flatten() {
            grads.register::<B>(node.id, gradient.clone());
        }
    }
}

impl<B: Backend + ResidualOps + ResidualKernels, C: CheckpointStrategy> ResidualOps
    for Autodiff<B, C>
{
    fn maps_add_relu(x: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), y.node()];
        let output = B::maps_add_relu(x.into_primitive(), y.into_primitive());
        match AddReluBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(output.clone(), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }
}

/// `relu(x + y)`.
///
/// # Shapes
/// - `x`, `y`, result: `[cells, C]`
///
/// # Gradients
/// With respect to both; 0 where the result is 0.
#[must_use]
pub fn add_relu(x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as ResidualOps>::maps_add_relu(
        x.into_dispatch(),
        y.into_dispatch(),
    ))
}
