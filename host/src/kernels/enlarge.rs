//! Bilinear enlargement of a channels-last map as one operation.

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

use super::bilinear::Axis;
use super::flex::{contiguous, tensor, values};
use super::maps::{Segment, filled};

/// From which cells to which.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Enlargement {
    /// The maps that are read.
    pub from: Segment,
    /// The maps that are made; as many images.
    pub to: Segment,
    /// Cell `i` of an axis reads at `i / scale`.
    pub scale: f64,
}

impl Enlargement {
    /// Where rows and columns are read.
    pub(crate) fn axes(&self) -> [Axis; 2] {
        [(self.to.h, self.from.h), (self.to.w, self.from.w)]
            .map(|(fine, coarse)| Axis::from_corner(fine, coarse, self.scale))
    }
}

/// The operation as the tape sees it.
#[backend_extension(Flex, Autodiff)]
pub trait EnlargeOps: Backend {
    /// `x` is `[cells, C]`, the cells of `shape.from`.
    fn maps_enlarge(x: FloatTensor<Self>, shape: Enlargement) -> FloatTensor<Self>;
}

/// Gradient on plain tensors.
pub trait EnlargeKernels: Backend {
    /// Gradient at the map that was enlarged.
    fn input_gradient(gradient: FloatTensor<Self>, shape: Enlargement) -> FloatTensor<Self>;
}

impl EnlargeOps for Flex {
    fn maps_enlarge(x: FlexTensor, shape: Enlargement) -> FlexTensor {
        let x = contiguous(x);
        let channels = x.shape()[1];
        let out = shape.to.cells();
        let write = |y| kernel::enlarge(values(&x), shape, channels, y);
        // SAFETY: the kernel writes every value.
        let y = unsafe { filled(out * channels, write) };
        tensor(y, &[out, channels])
    }
}

impl EnlargeKernels for Flex {
    fn input_gradient(gradient: FlexTensor, shape: Enlargement) -> FlexTensor {
        let gradient = contiguous(gradient);
        let channels = gradient.shape()[1];
        let cells = shape.from.cells();
        let write = |dx| kernel::input_gradient(values(&gradient), shape, channels, dx);
        // SAFETY: the kernel writes every value.
        let dx = unsafe { filled(cells * channels, write) };
        tensor(dx, &[cells, channels])
    }
}

#[derive(Debug)]
struct EnlargeBackward;

impl<B: Backend + EnlargeKernels> Backward<B, 1> for EnlargeBackward {
    type State = Enlargement;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::input_gradient(gradient, ops.state));
        }
    }
}

impl<B: Backend + EnlargeOps + EnlargeKernels, C: CheckpointStrategy> EnlargeOps
    for Autodiff<B, C>
{
    fn maps_enlarge(x: FloatTensor<Self>, shape: Enlargement) -> FloatTensor<Self> {
        let node = x.node();
        let y = B::maps_enlarge(x.into_primitive(), shape);
        match EnlargeBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(shape, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// Bilinear interpolation whose cell `i` reads at `i / scale` along each axis, beyond the last cell
/// that one.
///
/// # Shapes
/// - `x`: `[cells, C]`, the cells of `shape.from`; result: those of `shape.to`
///
/// # Gradients
/// With respect to `x`.
///
/// # Panics
/// If the maps have other numbers of images, or there is no cell to read.
#[must_use]
pub fn enlarge(x: Tensor<2>, shape: Enlargement) -> Tensor<2> {
    let y = <Dispatch as EnlargeOps>::maps_enlarge(x.into_dispatch(), shape);
    Tensor::from_dispatch(y)
}
