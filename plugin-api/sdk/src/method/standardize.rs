//! Normalisation of packed maps to mean 0 and variance 1, without learned parts: one operation of
//! two passes, where the same from Burn's operations takes six forward and some fifteen backward.

use std::ops::Range;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{Tensor, activation};
use burn_flex::FlexTensor;

use super::flex::{contiguous, is_f32_on_cpu, tensor, values};
use super::packed::{MapSize, Packed};

/// torch's default.
const EPSILON: f64 = 1e-5;

/// What shares a mean and a variance, in each map of each image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Channels and cells: GroupNorm with one group.
    Image,
    /// Cells: InstanceNorm.
    Channel,
}

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

fn standardize(x: &Packed, scope: Scope, relu: bool) -> Packed {
    let cells = x.cells();
    if !is_f32_on_cpu(&cells) {
        return composed(x, scope, relu);
    }
    let norm = Norm {
        sizes: Arc::clone(x.sizes()),
        scope,
        relu,
    };
    let y = <Dispatch as StandardizeOps>::standardize_cells(cells.into_dispatch(), norm);
    x.with(Tensor::from_dispatch(y))
}

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

/// What is normalised, and how.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    sizes: Arc<[MapSize]>,
    scope: Scope,
    relu: bool,
}

impl Norm {
    /// Rows of each map of each image.
    fn maps(&self) -> impl Iterator<Item = Range<usize>> {
        let mut start = 0;
        let cells = self
            .sizes
            .iter()
            .flat_map(|size| std::iter::repeat_n(size.h * size.w, size.n));
        cells.map(move |cells| {
            start += cells;
            start - cells..start
        })
    }
}

/// The operation as the tape sees it.
#[backend_extension(Flex, Autodiff)]
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

impl StandardizeOps for Flex {
    fn standardize_cells(x: FlexTensor, norm: Norm) -> FlexTensor {
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

impl StandardizeKernels for Flex {
    fn forward(x: FlexTensor, norm: &Norm) -> FlexTensor {
        let x = contiguous(x);
        let channels = x.shape()[1];
        let input = values(&x);
        let mut y = vec![0.0f32; input.len()];
        for rows in norm.maps() {
            let range = rows.start * channels..rows.end * channels;
            let stats = Stats::of(&input[range.clone()], channels, norm.scope);
            let rows = input[range.clone()].chunks_exact(channels);
            for (x, y) in rows.zip(y[range].chunks_exact_mut(channels)) {
                for (((y, &x), &mean), &scale) in
                    y.iter_mut().zip(x).zip(&stats.mean).zip(&stats.scale)
                {
                    *y = (x - mean) * scale;
                }
                if norm.relu {
                    // NaN passes: it must show in the loss.
                    y.iter_mut()
                        .for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y });
                }
            }
        }
        tensor(y, &x.shape())
    }

    /// `dx = scale (g − mean g − y mean (g y))`, `g` the gradient where ReLU let `y` pass.
    fn backward(x: FlexTensor, gradient: FlexTensor, norm: &Norm) -> FlexTensor {
        let (x, gradient) = (contiguous(x), contiguous(gradient));
        let channels = x.shape()[1];
        let (input, upstream) = (values(&x), values(&gradient));
        let mut dx = vec![0.0f32; input.len()];
        for rows in norm.maps() {
            let range = rows.start * channels..rows.end * channels;
            let (x, g) = (&input[range.clone()], &upstream[range.clone()]);
            let dx = &mut dx[range];
            let stats = Stats::of(x, channels, norm.scope);
            let (mut sums, mut products) = (vec![0.0f64; channels], vec![0.0f64; channels]);
            let row = |rows: usize| rows * channels..(rows + 1) * channels;
            for r in 0..rows.len() {
                let (x, g, dx) = (&x[row(r)], &g[row(r)], &mut dx[row(r)]);
                for c in 0..channels {
                    let y = (x[c] - stats.mean[c]) * stats.scale[c];
                    let g = if norm.relu && y <= 0.0 { 0.0 } else { g[c] };
                    dx[c] = g;
                    sums[c] += f64::from(g);
                    products[c] += f64::from(g * y);
                }
            }
            norm.scope.share(&mut sums, rows.len());
            norm.scope.share(&mut products, rows.len());
            let sums: Vec<f32> = sums.iter().map(|&v| v as f32).collect();
            let products: Vec<f32> = products.iter().map(|&v| v as f32).collect();
            for r in 0..rows.len() {
                let (x, dx) = (&x[row(r)], &mut dx[row(r)]);
                for c in 0..channels {
                    let y = (x[c] - stats.mean[c]) * stats.scale[c];
                    dx[c] = stats.scale[c] * (dx[c] - sums[c] - y * products[c]);
                }
            }
        }
        tensor(dx, &x.shape())
    }
}

impl Scope {
    /// Turns sums over cells by channel into the mean that each channel has to use.
    fn share(self, sums: &mut [f64], cells: usize) {
        match self {
            Scope::Channel => sums.iter_mut().for_each(|sum| *sum /= cells as f64),
            Scope::Image => {
                let count = (cells * sums.len()) as f64;
                let mean = sums.iter().sum::<f64>() / count;
                sums.fill(mean);
            }
        }
    }
}

/// Mean and `1 / sqrt(variance + ε)` for each channel of one map.
struct Stats {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl Stats {
    /// In two passes: a variance from sums of squares loses what it is after.
    fn of(x: &[f32], channels: usize, scope: Scope) -> Self {
        let cells = x.len() / channels;
        let mut mean = vec![0.0f64; channels];
        for row in x.chunks_exact(channels) {
            for (sum, &x) in mean.iter_mut().zip(row) {
                *sum += f64::from(x);
            }
        }
        scope.share(&mut mean, cells);
        let mut variance = vec![0.0f64; channels];
        for row in x.chunks_exact(channels) {
            for ((sum, &x), mean) in variance.iter_mut().zip(row).zip(&mean) {
                let centered = f64::from(x) - mean;
                *sum += centered * centered;
            }
        }
        scope.share(&mut variance, cells);
        Stats {
            mean: mean.iter().map(|&v| v as f32).collect(),
            scale: variance
                .iter()
                .map(|v| (1.0 / (v + EPSILON).sqrt()) as f32)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::testkit::{Random, relative_error};

    /// f32 in another order of sums.
    const TOLERANCE: f64 = 2e-6;

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
