//! 2-d convolution as one operation for every backend.
//!
//! On the CPU backend forward, input gradient and weight gradient are the kernels of `flex`;
//! elsewhere, and for grouped or non-f32 convolutions, Burn's own. The gradient with respect to an
//! input that needs none (the image) is not computed.

mod flex;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::{ConvOptions, ModuleOps};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;

/// The operation and its two gradients. The default bodies are Burn's kernels.
#[backend_extension(Flex, Autodiff)]
pub trait ConvOps: Backend {
    /// `y[n, o] = Σ_c x[n, c] ⋆ w[o, c]`.
    fn fast_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d(x, weight, None, options)
    }

    /// Gradient with respect to `x`.
    fn fast_conv2d_dx(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d_x_backward(x, weight, gradient, options)
    }

    /// Gradient with respect to `weight`.
    fn fast_conv2d_dw(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d_weight_backward(x, weight, gradient, options)
    }
}

impl ConvOps for Flex {
    fn fast_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        match flex::Geometry::of(&x, &weight, &options) {
            Some(geometry) => flex::forward(&geometry, x, weight),
            None => Self::conv2d(x, weight, None, options),
        }
    }

    fn fast_conv2d_dx(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        match flex::Geometry::of(&x, &weight, &options) {
            Some(geometry) => flex::input_gradient(&geometry, weight, gradient),
            None => Self::conv2d_x_backward(x, weight, gradient, options),
        }
    }

    fn fast_conv2d_dw(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        match flex::Geometry::of(&x, &weight, &options) {
            Some(geometry) => flex::weight_gradient(&geometry, x, gradient),
            None => Self::conv2d_weight_backward(x, weight, gradient, options),
        }
    }
}

impl<B: Backend + ConvOps, C: CheckpointStrategy> ConvOps for Autodiff<B, C> {
    fn fast_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct ConvBackward;
        impl<B: Backend + ConvOps> Backward<B, 2> for ConvBackward {
            type State = (NodeId, NodeId, ConvOptions<2>);

            fn backward(
                self,
                ops: Ops<Self::State, 2>,
                grads: &mut Gradients,
                checkpointer: &mut Checkpointer,
            ) {
                let [x_node, weight_node] = ops.parents;
                let gradient = grads.consume::<B>(&ops.node);
                let (x, weight, options) = ops.state;
                let x = checkpointer.retrieve_node_output::<B::FloatTensorPrimitive>(x);
                let weight = checkpointer.retrieve_node_output::<B::FloatTensorPrimitive>(weight);
                if let Some(node) = x_node {
                    let dx = B::fast_conv2d_dx(
                        x.clone(),
                        weight.clone(),
                        gradient.clone(),
                        options.clone(),
                    );
                    grads.register::<B>(node.id, dx);
                }
                if let Some(node) = weight_node {
                    let dw = B::fast_conv2d_dw(x, weight, gradient, options);
                    grads.register::<B>(node.id, dw);
                }
            }
        }
        let nodes = [x.node(), weight.node()];
        match ConvBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let saved = (
                    prep.checkpoint(&x),
                    prep.checkpoint(&weight),
                    options.clone(),
                );
                let y = B::fast_conv2d(x.into_primitive(), weight.into_primitive(), options);
                prep.finish(saved, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::fast_conv2d(
                x.into_primitive(),
                weight.into_primitive(),
                options,
            )),
        }
    }
}

/// Convolution (cross-correlation, as everywhere in this field) without bias.
///
/// # Shapes
/// - `x`: `[N, C, H, W]`; `weight`: `[O, C, kh, kw]`; result: `[N, O, H', W']`.
#[must_use]
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
) -> Tensor<4> {
    let options = ConvOptions::new(stride, padding, dilation, 1);
    Tensor::from_dispatch(<Dispatch as ConvOps>::fast_conv2d(
        x.into_dispatch(),
        weight.into_dispatch(),
        options,
    ))
}

#[cfg(test)]
mod tests {
    use burn::tensor::module::conv2d as burn_conv2d;
    use burn::tensor::{Device, Distribution, Tensor};

    use super::*;

    /// f32 sums in another order: about 1e-7 · sqrt(terms) is expected.
    const TOLERANCE: f32 = 2e-6;

    fn relative(a: Tensor<4>, b: Tensor<4>) -> f32 {
        let norm = b.clone().square().sum().sqrt().into_scalar::<f32>();
        (a - b).square().sum().sqrt().into_scalar::<f32>() / norm.max(1e-20)
    }

    /// `[n, c, h, w, o, k, stride, padding, dilation]`
    const CASES: [[usize; 9]; 12] = [
        [2, 8, 9, 11, 16, 3, 1, 1, 1],
        [1, 3, 33, 30, 16, 7, 2, 3, 1],
        [3, 16, 8, 8, 32, 1, 1, 0, 1],
        [2, 16, 9, 7, 8, 1, 2, 0, 1],
        [2, 8, 16, 16, 8, 3, 2, 1, 1],
        [1, 40, 5, 6, 24, 3, 1, 1, 1],
        [2, 4, 12, 12, 6, 3, 1, 2, 2],
        [1, 8, 1, 1, 8, 3, 1, 1, 1],
        [1, 8, 2, 3, 8, 3, 2, 1, 1],
        [5, 1, 7, 7, 1, 3, 1, 0, 1],
        [1, 64, 20, 20, 64, 3, 1, 1, 1],
        [2, 33, 10, 10, 36, 3, 1, 1, 1],
    ];

    #[test]
    fn forward_and_gradients_equal_burns_own() {
        let plain = Device::flex();
        let device = plain.clone().autodiff();
        plain.seed(11);
        for [n, c, h, w, o, k, stride, padding, dilation] in CASES {
            let case = format!("n{n} c{c} {h}x{w} o{o} k{k} s{stride} p{padding} d{dilation}");
            let x =
                Tensor::<4>::random([n, c, h, w], Distribution::Default, &device).require_grad();
            let weight = Tensor::<4>::random([o, c, k, k], Distribution::Normal(0.0, 1.0), &device)
                .require_grad();
            let options = ConvOptions::new([stride; 2], [padding; 2], [dilation; 2], 1);
            let ours = conv2d(
                x.clone(),
                weight.clone(),
                [stride; 2],
                [padding; 2],
                [dilation; 2],
            );
            let theirs = burn_conv2d(x.clone(), weight.clone(), None, options);
            let upstream = Tensor::<4>::random(ours.dims(), Distribution::Normal(0.0, 1.0), &plain);
            let y = relative(ours.clone().inner(), theirs.clone().inner());
            let ours = (ours * upstream.clone()).sum().backward();
            let theirs = (theirs * upstream).sum().backward();
            let dx = relative(x.grad(&ours).unwrap(), x.grad(&theirs).unwrap());
            let dw = relative(weight.grad(&ours).unwrap(), weight.grad(&theirs).unwrap());
            assert!(
                y < TOLERANCE && dx < TOLERANCE && dw < TOLERANCE,
                "{case}: {y} {dx} {dw}"
            );
        }
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        let plain = Device::flex();
        for [n, c, h, w, o, k, stride, padding, dilation] in CASES {
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                pool.install(|| {
                    let device = plain.clone().autodiff();
                    let ramp = |len: usize| {
                        (0..len)
                            .map(|i| ((i * 7919 % 1013) as f32 / 1013.0) - 0.4)
                            .collect()
                    };
                    let tensor = |shape: [usize; 4]| {
                        let values: Vec<f32> = ramp(shape.iter().product());
                        let data = burn::tensor::TensorData::new(values, shape);
                        Tensor::<4>::from_data(data, &device).require_grad()
                    };
                    let (x, weight) = (tensor([n, c, h, w]), tensor([o, c, k, k]));
                    let y = conv2d(
                        x.clone(),
                        weight.clone(),
                        [stride; 2],
                        [padding; 2],
                        [dilation; 2],
                    );
                    let grads = y.clone().square().sum().backward();
                    let bits = |t: Tensor<4>| t.into_data().bytes().to_vec();
                    (
                        bits(y.inner()),
                        bits(x.grad(&grads).unwrap()),
                        bits(weight.grad(&grads).unwrap()),
                    )
                })
            };
            assert!(run(1) == run(3), "n{n} c{c} {h}x{w} o{o} k{k}");
        }
    }
}
