//! A gradient computed outside enters the tape: an op of value 0 whose gradient at `x` is given.
//!
//! Equal to adding `sum(x * gradient)` to the loss, without its arithmetic. The gradient given is
//! final: the upstream factor of the zero is not applied, so the op must be added to the total
//! with weight 1.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};

/// The op, for every backend.
#[backend_extension(Flex, Autodiff, Cube: cfg(feature = "cuda"))]
pub trait InjectOps: Backend {
    /// Zero of shape `[1]`.
    fn inject(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let device = x.device();
        let dtype = x.dtype().into();
        drop(gradient);
        Self::float_zeros(Shape::new([1]), &device, dtype)
    }
}

impl InjectOps for Flex {}

#[cfg(feature = "cuda")]
impl InjectOps for burn::backend::Cube {}

impl<B: Backend + InjectOps, C: CheckpointStrategy> InjectOps for Autodiff<B, C> {
    fn inject(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct InjectBackward;
        impl<B: Backend> Backward<B, 1> for InjectBackward {
            type State = FloatTensor<B>;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                grads: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                let _one = grads.consume::<B>(&ops.node);
                let [parent] = ops.parents;
                if let Some(node) = parent {
                    grads.register::<B>(node.id, ops.state);
                }
            }
        }
        let gradient = gradient.into_primitive();
        match InjectBackward
            .prepare::<C>([x.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let zero = B::inject(x.primitive().clone(), gradient.clone());
                prep.finish(gradient, zero)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::inject(x.primitive().clone(), gradient)),
        }
    }
}

/// Zero of shape `[1]` whose gradient with respect to `x` is `gradient`.
///
/// # Shapes
/// `x` and `gradient` equal, on one device; `gradient` plain.
#[must_use]
pub fn inject<const D: usize>(x: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as InjectOps>::inject(
        x.into_dispatch(),
        gradient.into_dispatch(),
    ))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn equals_the_surrogate_sum_of_products() {
        let plain = Device::flex();
        let device = plain.clone().autodiff();
        plain.seed(3);
        let x = Tensor::<2>::random([4, 5], Distribution::Default, &device).require_grad();
        let w = Tensor::<2>::random([5, 3], Distribution::Default, &device).require_grad();
        let outside = Tensor::<2>::random([4, 3], Distribution::Default, &plain);

        let tap = x.clone().matmul(w.clone());
        let task = tap.clone().powf_scalar(2.0).sum();
        let injected = (task + inject(tap, outside.clone())).backward();

        let tap = x.clone().matmul(w.clone());
        let surrogate = (tap.clone().powf_scalar(2.0).sum() + (tap * outside).sum()).backward();
        for (name, t) in [("x", &x), ("w", &w)] {
            let a = t.grad(&injected).unwrap().into_data();
            let b = t.grad(&surrogate).unwrap().into_data();
            // The same additions in the same order: equal to the bit.
            assert_eq!(a, b, "{name}");
        }
    }
}
