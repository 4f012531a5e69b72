//! 2-d convolution of channels-last maps as one operation, with bias and ReLU.
//!
//! Forward, input gradient and weight gradient are a matrix product on gathered cells (`direct`),
//! Winograd's algorithm (`winograd`) for 3×3 of stride 1, or plain loops for depthwise ones. The
//! gradient with respect to an input that needs none (the image, a frozen layer's) is not computed.
//!
//! # Determinism
//! Work is split by extents alone, every task writes its own part of the output, and partial sums are
//! added in order: results do not depend on the number of threads, bit for bit.

pub(crate) mod algorithm;
mod columns;
mod depthwise;
mod direct;
mod geometry;
mod host;
mod narrow;
mod weight_gradient;
mod winograd;
mod winograd_tiles;
mod winograd_transforms;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;

pub use geometry::Window;

use super::maps::Segment;

/// A convolution of maps of known sizes.
#[derive(Clone, Debug)]
pub struct Conv {
    /// Kernel, stride, padding, dilation.
    pub window: Window,
    /// Groups of channels; as many as channels: depthwise.
    pub groups: usize,
    /// Negative results become 0.
    pub relu: bool,
    /// Sizes of the input maps.
    pub input: Arc<[Segment]>,
}

impl Conv {
    /// Sizes of the output maps.
    #[must_use]
    pub fn output(&self) -> Arc<[Segment]> {
        self.window.outputs(&self.input).into()
    }
}

/// The operation as the tape sees it.
#[backend_extension(Flex, Autodiff)]
pub trait ConvOps: Backend {
    /// `relu?(x ⋆ weight + bias)`; `x` `[cells, C]`, `weight` `[O, C / groups, kh, kw]`.
    fn maps_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: Conv,
    ) -> FloatTensor<Self>;
}

/// Forward and gradients on plain tensors.
pub trait ConvKernels: Backend {
    /// As [`ConvOps::maps_conv2d`].
    fn forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: &Conv,
    ) -> FloatTensor<Self>;

    /// Gradient at `x`.
    fn input_gradient(
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        conv: &Conv,
    ) -> FloatTensor<Self>;

    /// Gradient at a weight of `shape`.
    fn weight_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        shape: [usize; 4],
        conv: &Conv,
    ) -> FloatTensor<Self>;

    /// `gradient` unless the output `y` is at most 0 (everywhere, without `y`), and its sum over the
    /// cells: the gradient at the bias.
    fn epilogue_gradient(
        gradient: FloatTensor<Self>,
        y: Option<FloatTensor<Self>>,
    ) -> [FloatTensor<Self>; 2];
}

impl ConvOps for Flex {
    fn maps_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: Conv,
    ) -> FloatTensor<Self> {
        <Self as ConvKernels>::forward(x, weight, bias, &conv)
    }
}

/// What the backward pass needs.
#[derive(Debug)]
struct Saved<B: Backend> {
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    /// The output, where ReLU was applied.
    y: Option<FloatTensor<B>>,
    conv: Conv,
}

impl<B: Backend> Clone for Saved<B> {
    fn clone(&self) -> Self {
        Saved {
            x: self.x.clone(),
            weight: self.weight.clone(),
            y: self.y.clone(),
            conv: self.conv.clone(),
        }
    }
}

#[derive(Debug)]
struct ConvBackward;

impl<B: Backend + ConvKernels> Backward<B, 3> for ConvBackward {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Saved<B>, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let Saved { x, weight, y, conv } = ops.state;
        let [x_node, weight_node, bias_node] = ops.parents;
        let gradient = if y.is_some() || bias_node.is_some() {
            let [gradient, sum] = B::epilogue_gradient(gradient, y);
            if let Some(node) = bias_node {
                grads.register::<B>(node.id, sum);
            }
            gradient
        } else {
            gradient
        };
        if let Some(node) = weight_node {
            let shape = weight.shape();
            let shape = std::array::from_fn(|axis| shape[axis]);
            let dw = B::weight_gradient(x, gradient.clone(), shape, &conv);
            grads.register::<B>(node.id, dw);
        }
        if let Some(node) = x_node {
            let dx = B::input_gradient(weight, gradient, &conv);
            grads.register::<B>(node.id, dx);
        }
    }
}

impl<B: Backend + ConvOps + ConvKernels, C: CheckpointStrategy> ConvOps for Autodiff<B, C> {
    fn maps_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: Conv,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let y = B::forward(x.clone(), weight.clone(), bias.into_primitive(), &conv);
        let saved = Saved {
            x,
            weight,
            y: conv.relu.then(|| y.clone()),
            conv,
        };
        match ConvBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// Convolution (cross-correlation, as everywhere in this field), then bias and ReLU where given.
///
/// # Shapes
/// - `x`: `[cells, C]`, the cells of `conv.input`; `weight`: `[O, C / groups, kh, kw]`; `bias`: `[O]`
/// - result: `[cells, O]`, the cells of `conv.output()`
///
/// # Gradients
/// With respect to `x`, `weight` and `bias`; the gradient of ReLU at 0 is 0.
#[must_use]
pub fn conv2d(x: Tensor<2>, weight: Tensor<4>, bias: Option<Tensor<1>>, conv: Conv) -> Tensor<2> {
    let [outputs, ..] = weight.dims();
    // A plain tensor: no gradient is computed for it.
    let bias = bias.unwrap_or_else(|| Tensor::zeros([outputs], &x.device().inner()));
    Tensor::from_dispatch(<Dispatch as ConvOps>::maps_conv2d(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        conv,
    ))
}
