//! Softmax along the last axis as one operation: one pass over a row that stays in the cache, forward
//! and backward, and the tape keeps the result alone.
//!
//! ```text
//! y = exp(x − max x) / Σ exp(x − max x)      dx = y (dy − Σ y dy)
//! ```

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
use super::focal::exp_of_negative;
use super::maps::{Shared, filled};
use super::simd::{Level, Simd, simd_entry};

/// Floats handled side by side.
const LANES: usize = 16;
/// Floats of one task, about.
const TASK: usize = 16 * 1024;

/// The operation as the tape sees it.
#[backend_extension(Flex, Autodiff)]
pub trait SoftmaxOps: Backend {
    /// Softmax along the last axis.
    fn rows_softmax(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Gradient on plain tensors.
pub trait SoftmaxKernels: Backend {
    /// The gradient at the input, of the output and the gradient there.
    fn input_gradient(output: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

simd_entry! {
    /// Rows of `len` floats.
    ///
    /// # Safety
    /// The processor has the level.
    unsafe fn rows(x: &[f32], len: usize, y: &mut [f32]) = rows_at
}

/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn rows_at<S: Simd>(x: &[f32], len: usize, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(len).zip(y.chunks_exact_mut(len)) {
        let (whole, rest) = x.as_chunks::<LANES>();
        let mut last = [f32::NEG_INFINITY; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let mut tops = last;
        for x in whole {
            for i in 0..LANES {
                tops[i] = if x[i] > tops[i] { x[i] } else { tops[i] };
            }
        }
        let top = tops.into_iter().fold(f32::NEG_INFINITY, f32::max);
        let (to, to_rest) = y.as_chunks_mut::<LANES>();
        let mut totals = [0.0; LANES];
        for (y, x) in to.iter_mut().zip(whole) {
            for i in 0..LANES {
                y[i] = exp_of_negative(x[i] - top);
                totals[i] += y[i];
            }
        }
        // What stands beyond the row is too small to count: 1.6e-38 beside a sum of 1 or more.
        for i in 0..LANES {
            last[i] = exp_of_negative(last[i] - top);
            totals[i] += last[i];
        }
        let share = 1.0 / totals.iter().sum::<f32>();
        to_rest.copy_from_slice(&last[..rest.len()]);
        for y in y {
            *y *= share;
        }
    }
}

simd_entry! {
    /// Rows of `len` floats of the gradient.
    ///
    /// # Safety
    /// The processor has the level.
    unsafe fn gradient_rows(
        rows: [&[f32]; 2],
        len: usize,
        dx: &mut [f32],
    ) = gradient_rows_at
}

/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn gradient_rows_at<S: Simd>([y, dy]: [&[f32]; 2], len: usize, dx: &mut [f32]) {
    let rows = y.chunks_exact(len).zip(dy.chunks_exact(len));
    for ((y, dy), dx) in rows.zip(dx.chunks_exact_mut(len)) {
        let (whole, rest) = y.as_chunks::<LANES>();
        let (dy_whole, dy_rest) = dy.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for (y, dy) in whole.iter().zip(dy_whole) {
            for i in 0..LANES {
                sums[i] += y[i] * dy[i];
            }
        }
        for ((sum, y), dy) in sums.iter_mut().zip(rest).zip(dy_rest) {
            *sum += y * dy;
        }
        let total: f32 = sums.iter().sum();
        for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = y * (dy - total);
        }
    }
}

/// Length of a row, and floats of one task: whole rows.
fn split(shape: &[usize]) -> [usize; 2] {
    let len = shape.last().copied().unwrap_or(1);
    [len, TASK.div_ceil(len) * len]
}

impl SoftmaxOps for Flex {
    fn rows_softmax(x: FlexTensor) -> FlexTensor {
        let x = contiguous(x);
        let shape = x.shape();
        let ([len, task], level) = (split(&shape), Level::best());
        let from = values(&x);
        let write = |y: Shared| {
            from.par_chunks(task).enumerate().for_each(|(at, x)| {
                // SAFETY: these rows belong to this task alone; all of them are written.
                let y = unsafe { y.slice(at * task, x.len()) };
                // SAFETY: safe code, compiled for the level that the processor has.
                unsafe { rows(level, x, len, y) };
            });
        };
        // SAFETY: the tasks cover all rows.
        let y = unsafe { filled(from.len(), write) };
        tensor(y, &shape)
    }
}

impl SoftmaxKernels for Flex {
    fn input_gradient(output: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let (output, gradient) = (contiguous(output), contiguous(gradient));
        let shape = output.shape();
        let ([len, task], level) = (split(&shape), Level::best());
        let (y, dy) = (values(&output), values(&gradient));
        let write = |dx: Shared| {
            let tasks = y.par_chunks(task).zip(dy.par_chunks(task));
            tasks.enumerate().for_each(|(at, (y, dy))| {
                // SAFETY: these rows belong to this task alone; all of them are written.
                let dx = unsafe { dx.slice(at * task, y.len()) };
                // SAFETY: safe code, compiled for the level that the processor has.
                unsafe { gradient_rows(level, [y, dy], len, dx) };
            });
        };
        // SAFETY: the tasks cover all rows.
        let dx = unsafe { filled(y.len(), write) };
        tensor(dx, &shape)
    }
}

#[derive(Debug)]
struct SoftmaxBackward;

impl<B: Backend + SoftmaxKernels> Backward<B, 1> for SoftmaxBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::input_gradient(ops.state, gradient));
        }
    }
}

impl<B: Backend + SoftmaxOps + SoftmaxKernels, C: CheckpointStrategy> SoftmaxOps
    for Autodiff<B, C>
{
    fn rows_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let node = x.node();
        let y = B::rows_softmax(x.into_primitive());
        match SoftmaxBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => prep.finish(y.clone(), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// Softmax along the last axis.
///
/// # Shapes
/// - `x`, result: `[.., C]`
///
/// # Gradients
/// With respect to `x`.
#[must_use]
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as SoftmaxOps>::rows_softmax(x.into_dispatch()))
}
