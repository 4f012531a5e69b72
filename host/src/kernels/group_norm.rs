//! Group normalisation (arXiv 1803.08494) of channels-last maps as one operation, with ReLU.
//!
//! ```text
//! y  = relu(γ x̂ + β),  x̂ = (x − μ) / √(σ² + ε)       μ, σ² (biased) of a map of an image and a group
//! g  = dy unless y <= 0
//! dβ = Σ g      dγ = Σ g x̂      dx = (γ g − mean γg − x̂ mean γgx̂) / √(σ² + ε)
//! ```
//! The sums over cells are those of batch normalisation, one map of one image at a time; those of a
//! group's channels are then put together. A map is read twice forward and twice backward.

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::activation::Activation;
use super::flex::{contiguous, own_values, tensor, values};
use super::maps::{Segment, Shared, filled, images};
use super::norm::EPSILON;
use super::norm::kernel::{self, Moments, Sums};
use super::simd::Level;

/// Which maps are normalised, and how their channels are grouped.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupedMaps {
    /// Sizes of the packed maps.
    pub segments: Arc<[Segment]>,
    /// Groups of channels side by side.
    pub groups: usize,
}

/// The operation as the tape sees it.
#[backend_extension(Flex, Autodiff)]
pub trait GroupNormOps: Backend {
    /// `relu?(gamma x̂ + beta)` for `x` `[cells, C]`.
    fn maps_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        maps: GroupedMaps,
        relu: bool,
    ) -> FloatTensor<Self>;
}

/// Forward and gradients on plain tensors.
pub trait GroupNormKernels: Backend {
    /// The result, and the statistics that normalised each map of each image, group by group.
    fn forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        maps: &GroupedMaps,
        relu: bool,
    ) -> (FloatTensor<Self>, Vec<Statistics>);

    /// Gradients at `x`, `gamma` and `beta`.
    fn gradients(saved: Saved<Self>, gradient: FloatTensor<Self>) -> [FloatTensor<Self>; 3];
}

/// Of one group of one map of one image.
#[derive(Clone, Copy, Debug)]
pub struct Statistics {
    mean: f64,
    /// `1 / √(variance + ε)`.
    inverse: f64,
}

/// What the backward pass needs.
#[derive(Debug)]
pub struct Saved<B: Backend> {
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    maps: GroupedMaps,
    statistics: Vec<Statistics>,
    /// The output, where ReLU was applied.
    y: Option<FloatTensor<B>>,
}

impl<B: Backend> Clone for Saved<B> {
    fn clone(&self) -> Self {
        Saved {
            x: self.x.clone(),
            gamma: self.gamma.clone(),
            maps: self.maps.clone(),
            statistics: self.statistics.clone(),
            y: self.y.clone(),
        }
    }
}

/// Statistics of each group, of the moments of its channels.
fn merge(moments: &Moments, groups: usize) -> Vec<Statistics> {
    let width = moments.mean.len() / groups;
    let group = |(means, variances): (&[f32], &[f32])| {
        let share = |sum: f64| sum / width as f64;
        let mean = share(means.iter().map(|&m| f64::from(m)).sum());
        let within = share(variances.iter().map(|&v| f64::from(v)).sum());
        let between = share(means.iter().map(|&m| (f64::from(m) - mean).powi(2)).sum());
        Statistics {
            mean,
            inverse: 1.0 / (within + between + EPSILON).sqrt(),
        }
    };
    let means = moments.mean.chunks_exact(width);
    means
        .zip(moments.var.chunks_exact(width))
        .map(group)
        .collect()
}

/// Scale and shift of each channel.
fn affine(statistics: &[Statistics], gamma: &[f32], beta: &[f32]) -> [Vec<f32>; 2] {
    let width = gamma.len() / statistics.len();
    let (mut scale, mut shift) = (Vec::new(), Vec::new());
    for (channel, (&gamma, &beta)) in gamma.iter().zip(beta).enumerate() {
        let Statistics { mean, inverse } = statistics[channel / width];
        let factor = f64::from(gamma) * inverse;
        scale.push(factor as f32);
        shift.push((f64::from(beta) - factor * mean) as f32);
    }
    [scale, shift]
}

/// The means that the sums of the backward pass are centred on: those of the groups as f32.
fn centres(statistics: &[Statistics], channels: usize) -> Vec<f32> {
    let width = channels / statistics.len();
    let group = |channel: usize| statistics[channel / width].mean as f32;
    (0..channels).map(group).collect()
}

/// `dx = a g + b x + c`, a factor of each kind a channel.
///
/// `cells` are those of the map.
fn factors(
    statistics: &[Statistics],
    gamma: &[f32],
    sums: &Sums,
    centres: &[f32],
    cells: usize,
) -> [Vec<f32>; 3] {
    let width = gamma.len() / statistics.len();
    let count = (width * cells) as f64;
    let mut all = [const { Vec::new() }; 3];
    for (group, &Statistics { inverse, .. }) in statistics.iter().enumerate() {
        let channels = group * width..(group + 1) * width;
        let mean = |sums: &[f64]| {
            let weighted = channels.clone().map(|c| f64::from(gamma[c]) * sums[c]);
            weighted.sum::<f64>() / count
        };
        let (g, gx) = (mean(&sums.g), mean(&sums.gx));
        let b = -inverse.powi(3) * gx;
        for channel in channels {
            let a = f64::from(gamma[channel]) * inverse;
            let c = -inverse * g - b * f64::from(centres[channel]);
            for (factors, value) in all.iter_mut().zip([a, b, c]) {
                factors.push(value as f32);
            }
        }
    }
    all
}

/// One map of one image: its rows, and the floats that they are.
struct Part {
    cells: usize,
    floats: Range<usize>,
}

fn parts(maps: &GroupedMaps, channels: usize) -> Vec<Part> {
    let part = |rows: Range<usize>| Part {
        cells: rows.len(),
        floats: rows.start * channels..rows.end * channels,
    };
    images(&maps.segments).into_iter().map(part).collect()
}

impl GroupNormKernels for Flex {
    fn forward(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        maps: &GroupedMaps,
        relu: bool,
    ) -> (FlexTensor, Vec<Statistics>) {
        let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
        let channels = x.shape()[1];
        let (input, level) = (values(&x), Level::best());
        let mut statistics = Vec::new();
        let write = |y: Shared| {
            let of_parts: Vec<Vec<Statistics>> = parts(maps, channels)
                .into_par_iter()
                .map(|Part { floats, .. }| {
                    let y = y.part(floats.start, floats.len());
                    let input = &input[floats];
                    let moments = kernel::moments(level, input, channels);
                    let statistics = merge(&moments, maps.groups);
                    let [scale, shift] = affine(&statistics, values(&gamma), values(&beta));
                    let activation = Activation::relu_if(relu);
                    kernel::apply(level, input, [&scale, &shift], None, activation, y);
                    statistics
                })
                .collect();
            statistics = of_parts.into_iter().flatten().collect();
        };
        // SAFETY: the maps of all images are all cells, and the kernel writes every value of them.
        let y = unsafe { filled(input.len(), write) };
        (tensor(y, &[x.shape()[0], channels]), statistics)
    }

    fn gradients(saved: Saved<Flex>, gradient: FlexTensor) -> [FlexTensor; 3] {
        let level = Level::best();
        let Saved {
            maps, statistics, ..
        } = saved;
        let mut gradient = contiguous(gradient);
        let shape = [gradient.shape()[0], gradient.shape()[1]];
        let channels = shape[1];
        let (x, y) = (contiguous(saved.x), saved.y.map(contiguous));
        let gamma = contiguous(saved.gamma);
        let (x, y, gamma) = (values(&x), y.as_ref().map(values), values(&gamma));

        // Reads `dy` and writes `dx`, which may be the same memory; gives the sums for γ and β.
        let run = |dy: Shared, dx: Shared| -> Vec<[Vec<f64>; 2]> {
            parts(&maps, channels)
                .into_par_iter()
                .zip(statistics.par_chunks(maps.groups))
                .map(|(Part { cells, floats }, statistics)| {
                    let part = |all: Shared| all.part(floats.start, floats.len());
                    let x = &x[floats.clone()];
                    let gate = y.map(|y| kernel::Gate::relu(&y[floats.clone()]));
                    let centres = centres(statistics, channels);
                    let centred = Some((x, &centres[..]));
                    let sums =
                        kernel::gradient_sums(level, part(dy), gate, centred, channels, None);
                    let [a, b, c] = factors(statistics, gamma, &sums, &centres, cells);
                    kernel::input_gradient(level, part(dy), gate, x, [&a, &b, &c], part(dx));
                    let width = channels / maps.groups;
                    let inverse = |channel: usize| statistics[channel / width].inverse;
                    let d_gamma = sums.gx.iter().enumerate();
                    let d_gamma = d_gamma.map(|(c, sum)| sum * inverse(c)).collect();
                    [d_gamma, sums.g]
                })
                .collect()
        };
        let (dx, of_parts) = if let Some(own) = own_values(&mut gradient) {
            let own = Shared::new(own);
            let sums = run(own, own);
            (gradient, sums)
        } else {
            let dy = Shared::reading(values(&gradient));
            let mut sums = Vec::new();
            // SAFETY: the maps of all images are all cells, and the kernel writes every value.
            let dx = unsafe { filled(x.len(), |dx| sums = run(dy, dx)) };
            (tensor(dx, &shape), sums)
        };
        // In order, so that the result does not depend on the number of threads.
        let mut affine = [vec![0.0f64; channels], vec![0.0f64; channels]];
        for part in of_parts {
            for (total, part) in affine.iter_mut().zip(part) {
                total
                    .iter_mut()
                    .zip(part)
                    .for_each(|(total, v)| *total += v);
            }
        }
        let [d_gamma, d_beta] = affine.map(|sums| {
            let sums = sums.iter().map(|&sum| sum as f32).collect();
            tensor(sums, &[channels])
        });
        [dx, d_gamma, d_beta]
    }
}

impl GroupNormOps for Flex {
    fn maps_group_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        maps: GroupedMaps,
        relu: bool,
    ) -> FlexTensor {
        <Flex as GroupNormKernels>::forward(x, gamma, beta, &maps, relu).0
    }
}

#[derive(Debug)]
struct GroupNormBackward;

impl<B: Backend + GroupNormKernels> Backward<B, 3> for GroupNormBackward {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Saved<B>, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let found = B::gradients(ops.state, gradient);
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Backend + GroupNormOps + GroupNormKernels, C: CheckpointStrategy> GroupNormOps
    for Autodiff<B, C>
{
    fn maps_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        maps: GroupedMaps,
        relu: bool,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let (x, gamma) = (x.into_primitive(), gamma.into_primitive());
        let beta = beta.into_primitive();
        let (y, statistics) =
            <B as GroupNormKernels>::forward(x.clone(), gamma.clone(), beta, &maps, relu);
        let saved = Saved {
            x,
            gamma,
            maps,
            statistics,
            y: relu.then(|| y.clone()),
        };
        match GroupNormBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(saved, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// Group normalisation, then ReLU if `relu`.
///
/// # Shapes
/// - `x`, result: `[cells, C]`, the cells of `maps`; `gamma`, `beta`: `[C]`
///
/// # Gradients
/// With respect to `x` (through its statistics), `gamma` and `beta`.
///
/// # Panics
/// If `x` has not the cells of `maps`, or its groups do not divide the channels.
#[must_use]
pub fn group_norm(
    x: Tensor<2>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    maps: GroupedMaps,
    relu: bool,
) -> Tensor<2> {
    let [cells, channels] = x.dims();
    assert_eq!(
        cells,
        super::maps::cells(&maps.segments),
        "a row for each cell of the maps"
    );
    assert!(
        maps.groups > 0 && channels.is_multiple_of(maps.groups),
        "{} groups do not divide {channels} channels",
        maps.groups
    );
    Tensor::from_dispatch(<Dispatch as GroupNormOps>::maps_group_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        maps,
        relu,
    ))
}
