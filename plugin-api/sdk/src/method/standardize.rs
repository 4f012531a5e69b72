//! Normalisation of packed maps to mean 0 and variance 1, without learned parts: one operation of
//! two passes, where the same from Burn's operations takes six forward and some fifteen backward.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Capture, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use kd_graph::ops::{Packing, STANDARDIZE, STANDARDIZE_BACKWARD};
use kd_graph::standardize::{Norm, Scope};

use super::packed::Packed;
use super::recorded;

impl Packed {
    /// `torch.nn.GroupNorm(1, C, affine=False)` on each level: mean 0, variance 1 over channels and
    /// cells of each image, ε = 1e-5. Differentiable.
    #[must_use]
    pub fn group_norm(&self) -> Packed {
        standardize(self, Scope::Image, false)
    }

    /// ReLU of [`Self::group_norm`]; the gradient at 0 is 0.
    #[must_use]
    pub fn group_norm_relu(&self) -> Packed {
        standardize(self, Scope::Image, true)
    }

    /// `torch.nn.InstanceNorm2d(C, affine=False)` on each level: mean 0, variance 1 over the cells of
    /// each channel of each image, ε = 1e-5. A constant channel, such as any of a 1×1 map, becomes
    /// 0. Differentiable.
    #[must_use]
    pub fn instance_norm(&self) -> Packed {
        standardize(self, Scope::Channel, false)
    }
}

/// # Panics
/// If the maps are not f32.
fn standardize(x: &Packed, scope: Scope, relu: bool) -> Packed {
    let norm = Norm {
        sizes: x.sizes().iter().map(|s| [s.n, s.h, s.w]).collect(),
        scope,
        relu,
    };
    let y = <Dispatch as StandardizeOps>::standardize_cells(x.cells().into_dispatch(), norm);
    x.with(Tensor::from_dispatch(y))
}

/// The operation as the tape sees it.
#[backend_extension(Flex: cfg(feature = "cpu"), Capture, Autodiff)]
pub(crate) trait StandardizeOps: Backend {
    fn standardize_cells(x: FloatTensor<Self>, norm: Norm) -> FloatTensor<Self>;
}

/// Forward and gradient on plain tensors.
pub(crate) trait StandardizeKernels: Backend {
    fn forward(x: FloatTensor<Self>, norm: &Norm) -> FloatTensor<Self>;
    fn backward(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        norm: &Norm,
    ) -> FloatTensor<Self>;
}

impl StandardizeOps for Capture {
    fn standardize_cells(x: FloatTensor<Self>, norm: Norm) -> FloatTensor<Self> {
        <Self as StandardizeKernels>::forward(x, &norm)
    }
}

impl<B: Backend + StandardizeOps + StandardizeKernels, C: CheckpointStrategy> StandardizeOps
    for Autodiff<B, C>
{
    fn standardize_cells(x: FloatTensor<Self>, norm: Norm) -> FloatTensor<Self> {
        let node = x.node();
        let x = x.into_primitive();
        let y = B::forward(x.clone(), &norm);
        match NormBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, norm), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

#[derive(Debug)]
struct NormBackward;

impl<B: Backend + StandardizeKernels> Backward<B, 1> for NormBackward {
    type State = (FloatTensor<B>, Norm);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (x, norm) = ops.state;
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::backward(x, gradient, &norm));
        }
    }
}

fn scalars(norm: &Norm) -> Packing<2> {
    Packing {
        options: [norm.scope.to_scalar(), i64::from(norm.relu)],
        sizes: norm.sizes.clone(),
    }
}

impl StandardizeKernels for Capture {
    fn forward(x: FloatTensor<Self>, norm: &Norm) -> FloatTensor<Self> {
        let shape = x.shape();
        let [y] = recorded::custom(STANDARDIZE, vec![x], scalars(norm).to_scalars(), [shape]);
        y
    }

    fn backward(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        norm: &Norm,
    ) -> FloatTensor<Self> {
        let shape = x.shape();
        let scalars = scalars(norm).to_scalars();
        let [dx] = recorded::custom(STANDARDIZE_BACKWARD, vec![x, gradient], scalars, [shape]);
        dx
    }
}

#[cfg(feature = "cpu")]
mod cpu {
    use burn::backend::{Flex, TensorMetadata};
    use burn_flex::FlexTensor;
    use kd_graph::standardize::Norm;

    use super::{StandardizeKernels, StandardizeOps};
    use crate::method::flex::{contiguous, tensor, values};

    impl StandardizeOps for Flex {
        fn standardize_cells(x: FlexTensor, norm: Norm) -> FlexTensor {
            <Self as StandardizeKernels>::forward(x, &norm)
        }
    }

    impl StandardizeKernels for Flex {
        fn forward(x: FlexTensor, norm: &Norm) -> FlexTensor {
            let x = contiguous(x);
            tensor(norm.forward(values(&x), x.shape()[1]), &x.shape())
        }

        fn backward(x: FlexTensor, gradient: FlexTensor, norm: &Norm) -> FlexTensor {
            let (x, gradient) = (contiguous(x), contiguous(gradient));
            let dx = norm.backward(values(&x), values(&gradient), x.shape()[1]);
            tensor(dx, &x.shape())
        }
    }
}

#[cfg(feature = "cpu")]
#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData, activation};
    use kd_graph::standardize::EPSILON;

    use super::*;
    use crate::testkit::{Random, relative_error};

    /// f32 in another order of sums.
    const TOLERANCE: f64 = 2e-6;

    /// The same from Burn's operations.
    fn composed(x: &Packed, scope: Scope, relu: bool) -> Packed {
        let channels = x.channels();
        let levels = x.sizes().iter().enumerate().map(|(level, size)| {
            let maps = x.cells().slice([x.range(level)]);
            let shape = match scope {
                Scope::Image => [size.n, size.h * size.w * channels, 1],
                Scope::Channel => [size.n, size.h * size.w, channels],
            };
            let maps: Tensor<3> = maps.reshape(shape);
            let centered = maps.clone() - maps.mean_dim(1);
            let variance = centered.clone().square().mean_dim(1);
            let maps = centered / (variance + EPSILON).sqrt();
            maps.reshape([size.cells(), channels])
        });
        let y = Tensor::cat(levels.collect(), 0);
        x.with(if relu { activation::relu(y) } else { y })
    }

    fn maps(device: &Device) -> Vec<Tensor<4>> {
        let mut random = Random::new(4);
        [[2, 3, 5, 4], [2, 3, 2, 3], [2, 3, 1, 1]]
            .map(|shape: [usize; 4]| {
                let values = random.normals(shape.iter().product());
                let values = values.iter().map(|v| 0.7 * v + 2.0).collect::<Vec<_>>();
                Tensor::from_data(TensorData::new(values, shape), device).require_grad()
            })
            .to_vec()
    }

    fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    #[test]
    fn values_and_gradients_are_those_of_single_operations() {
        let device = Device::flex().autodiff();
        for (scope, relu) in [
            (Scope::Image, false),
            (Scope::Image, true),
            (Scope::Channel, false),
            (Scope::Channel, true),
        ] {
            let run = |f: fn(&Packed, Scope, bool) -> Packed| {
                let maps = maps(&device);
                let y = f(&Packed::pack(maps.clone()), scope, relu);
                let upstream = Random::new(9).normals(y.cells().shape().num_elements());
                let upstream = TensorData::new(upstream, y.cells().dims());
                let upstream = Tensor::<2>::from_data(upstream, &Device::flex());
                let gradients = (y.cells() * upstream).sum().backward();
                let mut all = vec![floats(y.cells().inner())];
                all.extend(maps.iter().map(|m| floats(m.grad(&gradients).unwrap())));
                all
            };
            for (got, expected) in run(standardize).iter().zip(run(composed)) {
                let expected: Vec<f64> = expected.iter().map(|&v| f64::from(v)).collect();
                let error = relative_error(got, &expected);
                // A single cell has no variance, hence no value and no gradient but rounding.
                let small = expected.iter().all(|v| v.abs() < 1e-3);
                assert!(error < TOLERANCE || small, "{scope:?} {relu}: {error:e}");
            }
        }
    }

    #[test]
    fn a_constant_channel_becomes_zero() {
        let x = Tensor::<4>::full([1, 2, 3, 3], 1e3, &Device::flex());
        let y = Packed::pack([x]).instance_norm();
        assert!(floats(y.cells()).iter().all(|v| *v == 0.0));
    }
}
