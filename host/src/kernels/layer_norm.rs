//! Layer normalisation (arXiv 1607.06450) of tokens as one operation.
//!
//! ```text
//! y  = γ x̂ + β,  x̂ = (x − μ) / √(σ² + ε)          μ, σ² (biased) of a row
//! dβ = Σ dy      dγ = Σ dy x̂      dx = (γ dy − mean γdy − x̂ mean γdyx̂) / √(σ² + ε)
//! ```
//! A row stays in the first-level cache from its statistics to its result. Backward they are computed
//! anew: that is cheaper than another tensor on the tape.

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
use rayon::prelude::*;

use super::flex::{contiguous, tensor, values};
use super::maps::{Shared, filled};
use super::simd::{Level, Simd, simd_entry};

/// Floats summed side by side.
const LANES: usize = 16;
/// Rows of one task.
const TASK_ROWS: usize = 64;

/// The operation as the tape sees it.
#[backend_extension(Flex, Autodiff)]
pub trait LayerNormOps: Backend {
    /// `gamma x̂ + beta` for `x` `[rows, C]`.
    fn tokens_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;
}

/// Gradients on plain tensors.
pub trait LayerNormKernels: Backend {
    /// At `x`, `gamma` and `beta`.
    fn gradients(saved: Saved<Self>, gradient: FloatTensor<Self>) -> [FloatTensor<Self>; 3];
}

/// What the backward pass needs.
#[derive(Debug)]
pub struct Saved<B: Backend> {
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    epsilon: f64,
}

impl<B: Backend> Clone for Saved<B> {
    fn clone(&self) -> Self {
        Saved {
            x: self.x.clone(),
            gamma: self.gamma.clone(),
            epsilon: self.epsilon,
        }
    }
}

/// `Σ f(i)` of the indices of a row: [`LANES`] sums, put together in f64.
#[inline(always)]
fn sum(len: usize, f: impl Fn(usize) -> f32) -> f64 {
    let mut lanes = [0.0f32; LANES];
    let whole = len / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane += f(start + i);
        }
    }
    for (lane, i) in lanes.iter_mut().zip(whole..len) {
        *lane += f(i);
    }
    lanes.into_iter().map(f64::from).sum()
}

/// Mean, and one over the deviation.
#[inline(always)]
fn statistics(x: &[f32], epsilon: f64) -> [f32; 2] {
    let count = x.len() as f64;
    let mean = (sum(x.len(), |i| x[i]) / count) as f32;
    let off = |i: usize| x[i] - mean;
    let variance = sum(x.len(), |i| off(i) * off(i)) / count;
    // What the mean lost to rounding is left in the mean of the deviations.
    let left = sum(x.len(), off) / count;
    let variance = (variance - left * left).max(0.0);
    let inverse = 1.0 / (variance + epsilon).sqrt();
    [(f64::from(mean) + left) as f32, inverse as f32]
}

simd_entry! {
    /// Rows of `y`.
    ///
    /// # Safety
    /// The processor has the level.
    unsafe fn normalise(x: &[f32], affine: [&[f32]; 2], epsilon: f64, y: &mut [f32]) = normalise_at
}

/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn normalise_at<S: Simd>(
    x: &[f32],
    [gamma, beta]: [&[f32]; 2],
    epsilon: f64,
    y: &mut [f32],
) {
    let channels = gamma.len();
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
        let [mean, inverse] = statistics(x, epsilon);
        for (((y, &x), &gamma), &beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
            *y = (x - mean) * inverse * gamma + beta;
        }
    }
}

simd_entry! {
    /// Rows of `dx`; the sums for γ and β are added to.
    ///
    /// # Safety
    /// The processor has the level.
    unsafe fn input_gradient(
        rows: [&[f32]; 2],
        gamma: &[f32],
        epsilon: f64,
        dx: &mut [f32],
        sums: [&mut [f32]; 2],
    ) = input_gradient_at
}

/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn input_gradient_at<S: Simd>(
    [x, dy]: [&[f32]; 2],
    gamma: &[f32],
    epsilon: f64,
    dx: &mut [f32],
    [d_gamma, d_beta]: [&mut [f32]; 2],
) {
    let channels = gamma.len();
    let rows = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
    for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(channels)) {
        // One bound for all, so that none is checked within the loops.
        let (x, dy, gamma) = (&x[..channels], &dy[..channels], &gamma[..channels]);
        let [mean, inverse] = statistics(x, epsilon);
        let share = 1.0 / channels as f64;
        let g = sum(channels, |i| gamma[i] * dy[i]) * share;
        let gx = sum(channels, |i| gamma[i] * dy[i] * (x[i] - mean)) * share * f64::from(inverse);
        let (g, gx) = (g as f32, gx as f32);
        let sums = d_gamma.iter_mut().zip(d_beta.iter_mut());
        let row = dx.iter_mut().zip(x).zip(dy).zip(gamma);
        for ((((dx, &x), &dy), &gamma), (d_gamma, d_beta)) in row.zip(sums) {
            let hat = (x - mean) * inverse;
            *dx = (gamma * dy - g - hat * gx) * inverse;
            *d_gamma += dy * hat;
            *d_beta += dy;
        }
    }
}

impl LayerNormOps for Flex {
    fn tokens_layer_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
    ) -> FlexTensor {
        let shape = [x.shape()[0], x.shape()[1]];
        let [x, gamma, beta] = [x, gamma, beta].map(contiguous);
        let (x, gamma, beta) = (values(&x), values(&gamma), values(&beta));
        let (task, level) = (TASK_ROWS * shape[1], Level::best());
        let write = |y: Shared| {
            x.par_chunks(task).enumerate().for_each(|(at, x)| {
                // SAFETY: these rows belong to this task alone; all of them are written.
                let y = unsafe { y.slice(at * task, x.len()) };
                // SAFETY: safe code, compiled for the level that the processor has.
                unsafe { normalise(level, x, [gamma, beta], epsilon, y) };
            });
        };
        // SAFETY: the tasks cover all rows.
        let y = unsafe { filled(x.len(), write) };
        tensor(y, &shape)
    }
}

impl LayerNormKernels for Flex {
    fn gradients(saved: Saved<Flex>, gradient: FlexTensor) -> [FlexTensor; 3] {
        let [x, gamma, dy] = [saved.x, saved.gamma, gradient].map(contiguous);
        let shape = [x.shape()[0], x.shape()[1]];
        let channels = shape[1];
        let (x, gamma, dy) = (values(&x), values(&gamma), values(&dy));
        let (task, level) = (TASK_ROWS * channels, Level::best());
        let mut parts = Vec::new();
        let write = |dx: Shared| {
            parts = (x.par_chunks(task).zip(dy.par_chunks(task)).enumerate())
                .map(|(at, (x, dy))| {
                    // SAFETY: these rows belong to this task alone; all of them are written.
                    let dx = unsafe { dx.slice(at * task, x.len()) };
                    let mut sums = [vec![0.0; channels], vec![0.0; channels]];
                    let [d_gamma, d_beta] = &mut sums;
                    let to = [&mut d_gamma[..], &mut d_beta[..]];
                    // SAFETY: safe code, compiled for the level that the processor has.
                    unsafe { input_gradient(level, [x, dy], gamma, saved.epsilon, dx, to) };
                    sums
                })
                .collect::<Vec<[Vec<f32>; 2]>>();
        };
        // SAFETY: the tasks cover all rows.
        let dx = unsafe { filled(x.len(), write) };
        // In order, so that the result does not depend on the number of threads.
        let mut totals = [vec![0.0f64; channels], vec![0.0f64; channels]];
        for part in &parts {
            for (total, part) in totals.iter_mut().zip(part) {
                for (total, &v) in total.iter_mut().zip(part) {
                    *total += f64::from(v);
                }
            }
        }
        let [d_gamma, d_beta] = totals.map(|sums| {
            let sums = sums.iter().map(|&sum| sum as f32).collect();
            tensor(sums, &[channels])
        });
        [tensor(dx, &shape), d_gamma, d_beta]
    }
}

#[derive(Debug)]
struct LayerNormBackward;

impl<B: Backend + LayerNormKernels> Backward<B, 3> for LayerNormBackward {
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

impl<B: Backend + LayerNormOps + LayerNormKernels, C: CheckpointStrategy> LayerNormOps
    for Autodiff<B, C>
{
    fn tokens_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let (x, gamma) = (x.into_primitive(), gamma.into_primitive());
        let beta = beta.into_primitive();
        let y = B::tokens_layer_norm(x.clone(), gamma.clone(), beta, epsilon);
        let saved = Saved { x, gamma, epsilon };
        match LayerNormBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(saved, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// Normalises each row by its mean and biased variance.
///
/// # Shapes
/// - `x`, result: `[rows, C]`; `gamma`, `beta`: `[C]`
///
/// # Gradients
/// With respect to `x` (through its statistics), `gamma` and `beta`.
///
/// # Panics
/// If there is not a scale and a shift for each channel.
#[must_use]
pub fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<2> {
    let [_, channels] = x.dims();
    assert!(
        gamma.dims() == [channels] && beta.dims() == [channels],
        "a scale and a shift for each of {channels} channels"
    );
    Tensor::from_dispatch(<Dispatch as LayerNormOps>::tokens_layer_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    ))
}
