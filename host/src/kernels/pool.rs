//! The stem's max-pool of channels-last maps as one operation.

pub(super) mod kernel;

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

use super::flex::{contiguous, tensor, values};
use super::maps::{Segment, filled};
use super::simd::Level;

/// The operation as the tape sees it.
#[backend_extension(Flex, Autodiff)]
pub trait PoolOps: Backend {
    /// 3×3, stride 2, padding 1, of `x` `[cells, C]`, the cells of `input`.
    fn maps_max_pool(x: FloatTensor<Self>, input: Segment) -> FloatTensor<Self>;
}

/// Forward and gradient on plain tensors.
pub trait PoolKernels: Backend {
    /// The pooled map, and for each of its values the place it came from.
    fn forward(x: FloatTensor<Self>, input: Segment) -> [FloatTensor<Self>; 2];

    /// Gradient at the input.
    fn input_gradient(
        gradient: FloatTensor<Self>,
        place: FloatTensor<Self>,
        input: Segment,
    ) -> FloatTensor<Self>;
}

impl PoolKernels for Flex {
    fn forward(x: FlexTensor, input: Segment) -> [FlexTensor; 2] {
        let x = contiguous(x);
        let channels = x.shape()[1];
        let out = kernel::output(input).cells();
        let mut y = Vec::new();
        // SAFETY: the kernel writes every value of both.
        let place = unsafe {
            filled(out * channels, |place| {
                y = filled(out * channels, |y| {
                    kernel::max_pool(Level::best(), values(&x), input, channels, [y, place]);
                });
            })
        };
        [y, place].map(|values| tensor(values, &[out, channels]))
    }

    fn input_gradient(gradient: FlexTensor, place: FlexTensor, input: Segment) -> FlexTensor {
        let (gradient, place) = (contiguous(gradient), contiguous(place));
        let channels = gradient.shape()[1];
        let maps = [values(&gradient), values(&place)];
        let write = |dx| kernel::input_gradient(Level::best(), maps, input, channels, dx);
        // SAFETY: the kernel writes every value.
        let dx = unsafe { filled(input.cells() * channels, write) };
        tensor(dx, &[input.cells(), channels])
    }
}

impl PoolOps for Flex {
    fn maps_max_pool(x: FlexTensor, input: Segment) -> FlexTensor {
        let [y, _] = <Flex as PoolKernels>::forward(x, input);
        y
    }
}

#[derive(Debug)]
struct PoolBackward;

impl<B: Backend + PoolKernels> Backward<B, 1> for PoolBackward {
    type State = (FloatTensor<B>, Segment);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (place, input) = ops.state;
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::input_gradient(gradient, place, input));
        }
    }
}

impl<B: Backend + PoolOps + PoolKernels, C: CheckpointStrategy> PoolOps for Autodiff<B, C> {
    fn maps_max_pool(x: FloatTensor<Self>, input: Segment) -> FloatTensor<Self> {
        let node = x.node();
        let [y, place] = <B as PoolKernels>::forward(x.into_primitive(), input);
        match PoolBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((place, input), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// Max-pool 3×3, stride 2, padding 1: `h, w` become `ceil(h / 2), ceil(w / 2)`.
///
/// # Shapes
/// - `x`: `[cells, C]`, the cells of `input`; result: the cells of the returned segment.
///
/// # Gradients
/// To the first largest value of each window.
#[must_use]
pub fn max_pool(x: Tensor<2>, input: Segment) -> (Tensor<2>, Segment) {
    let y = <Dispatch as PoolOps>::maps_max_pool(x.into_dispatch(), input);
    (Tensor::from_dispatch(y), kernel::output(input))
}
