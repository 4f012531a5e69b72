//! A coarser map enlarged and added to a finer one, as one operation.

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

/// The operation as the tape sees it.
#[backend_extension(Flex, Autodiff)]
pub trait ResampleOps: Backend {
    /// `fine + enlarged(coarse)`; both `[cells, C]`, the cells of `to` and of `from`.
    fn maps_upsample_add(
        fine: FloatTensor<Self>,
        coarse: FloatTensor<Self>,
        to: Segment,
        from: Segment,
    ) -> FloatTensor<Self>;
}

/// Gradient on plain tensors.
pub trait ResampleKernels: Backend {
    /// Gradient at the coarse map.
    fn coarse_gradient(gradient: FloatTensor<Self>, sizes: [Segment; 2]) -> FloatTensor<Self>;
}

impl ResampleOps for Flex {
    fn maps_upsample_add(
        fine: FlexTensor,
        coarse: FlexTensor,
        to: Segment,
        from: Segment,
    ) -> FlexTensor {
        let (fine, coarse) = (contiguous(fine), contiguous(coarse));
        let channels = fine.shape()[1];
        let (fine, coarse) = (values(&fine), values(&coarse));
        let write = |y| kernel::upsample_add(fine, coarse, [to, from], channels, y);
        // SAFETY: the kernel writes every value.
        let y = unsafe { filled(fine.len(), write) };
        tensor(y, &[to.cells(), channels])
    }
}

impl ResampleKernels for Flex {
    fn coarse_gradient(gradient: FlexTensor, [to, from]: [Segment; 2]) -> FlexTensor {
        let gradient = contiguous(gradient);
        let channels = gradient.shape()[1];
        let write = |d| kernel::coarse_gradient(values(&gradient), [to, from], channels, d);
        // SAFETY: the kernel writes every value.
        let d_coarse = unsafe { filled(from.cells() * channels, write) };
        tensor(d_coarse, &[from.cells(), channels])
    }
}

#[derive(Debug)]
struct UpsampleBackward;

impl<B: Backend + ResampleKernels> Backward<B, 2> for UpsampleBackward {
    type State = [Segment; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let [fine, coarse] = ops.parents;
        if let Some(node) = coarse {
            let d_coarse = B::coarse_gradient(gradient.clone(), ops.state);
            grads.register::<B>(node.id, d_coarse);
        }
        if let Some(node) = fine {
            grads.register::<B>(node.id, gradient);
        }
    }
}

impl<B: Backend + ResampleOps + ResampleKernels, C: CheckpointStrategy> ResampleOps
    for Autodiff<B, C>
{
    fn maps_upsample_add(
        fine: FloatTensor<Self>,
        coarse: FloatTensor<Self>,
        to: Segment,
        from: Segment,
    ) -> FloatTensor<Self> {
        let nodes = [fine.node(), coarse.node()];
        let (fine, coarse) = (fine.into_primitive(), coarse.into_primitive());
        let y = B::maps_upsample_add(fine, coarse, to, from);
        match UpsampleBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish([to, from], y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// `fine + enlarged(coarse)`, nearest neighbour: cell `i` takes `floor(i * coarse / fine)`.
///
/// # Shapes
/// - `fine`: `[cells, C]`, the cells of `to`; `coarse`: those of `from`; result as `fine`
///
/// # Gradients
/// With respect to both.
#[must_use]
pub fn upsample_add(fine: Tensor<2>, coarse: Tensor<2>, to: Segment, from: Segment) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as ResampleOps>::maps_upsample_add(
        fine.into_dispatch(),
        coarse.into_dispatch(),
        to,
        from,
    ))
}
