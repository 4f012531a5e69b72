//! A scalar whose gradient is computed beside it, put on the autodiff tape in one node.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};

/// The operation on primitives.
#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "cuda"))]
pub(crate) trait KnownGradient: Backend {
    /// `value`; under autodiff, `x` receives `gradient` times the upstream gradient.
    fn known_gradient(
        x: FloatTensor<Self>,
        value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let _ = (x, gradient);
        value
    }
}

impl KnownGradient for Flex {}

#[cfg(feature = "cuda")]
impl KnownGradient for burn::backend::Cube {}

impl<B: Backend + KnownGradient, C: CheckpointStrategy> KnownGradient for Autodiff<B, C> {
    fn known_gradient(
        x: FloatTensor<Self>,
        value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct KnownGradientBackward;

        impl<B: Backend> Backward<B, 1> for KnownGradientBackward {
            type State = FloatTensor<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let upstream = gradients.consume::<B>(&ops.node);
                let [parent] = ops.parents;
                if let Some(parent) = parent {
                    let ones = Shape::from(vec![1; ops.state.shape().num_dims()]);
                    let upstream = B::float_reshape(upstream, ones);
                    gradients.register::<B>(parent.id, B::float_mul(ops.state, upstream));
                }
            }
        }

        let value = value.into_primitive();
        let gradient = gradient.into_primitive();
        match KnownGradientBackward
            .prepare::<C>([x.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish(gradient, value),
            OpsKind::UnTracked(prepared) => prepared.finish(value),
        }
    }
}

/// `value`, with `gradient` as its gradient with respect to `x`.
///
/// # Shapes
/// - `x`, `gradient`: equal
/// - `value`: `[1]`
///
/// # Gradients
/// To `x` alone: `gradient` times the upstream gradient. `value` and `gradient` are constants and
/// must be plain tensors.
pub(crate) fn with_known_gradient<const D: usize>(
    x: Tensor<D>,
    value: Tensor<1>,
    gradient: Tensor<D>,
) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as KnownGradient>::known_gradient(
        x.into_dispatch(),
        value.into_dispatch(),
        gradient.into_dispatch(),
    ))
}
