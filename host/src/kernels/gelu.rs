//! GELU (arXiv 1606.08415), `x Φ(x)`, as one operation.
//!
//! The slope `Φ(x) + x φ(x)` is computed with the value, where both read `x` and share its square, and
//! the tape keeps it in the place of `x`: backward is one product.

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

/// Floats of one task.
const CHUNK: usize = 16 * 1024;

/// The operation as the tape sees it.
#[backend_extension(Flex, Autodiff)]
pub trait GeluOps: Backend {
    /// `x Φ(x)`.
    fn tokens_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Value and slope on plain tensors.
pub trait GeluKernels: Backend {
    /// `x Φ(x)` and `Φ(x) + x φ(x)`.
    fn with_slope(x: FloatTensor<Self>) -> [FloatTensor<Self>; 2];
}

/// `erf(x)`: a quotient of polynomials on `(-4, 4)`, ±1 from there on; off by at most 4.5e-7.
#[inline(always)]
fn erf(x: f32) -> f32 {
    const END: f32 = 4.0;
    const ABOVE: [f32; 6] = [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const BELOW: [f32; 4] = [
        -2.133_740_6e-4,
        -1.682_827e-3,
        -7.373_329_2e-3,
        -1.426_473_9e-2,
    ];
    // In this order NaN stays.
    let given = x;
    let x = if x > END { END } else { x };
    let x = if x < -END { -END } else { x };
    let square = x * x;
    let mut above = -2.726_142_3e-10;
    for coefficient in ABOVE {
        above = above * square + coefficient;
    }
    let mut below = -1.456_607_2e-5;
    for coefficient in BELOW {
        below = below * square + coefficient;
    }
    // The quotient at the ends is ±1 but for its rounding, which differs between processors.
    let y = x * above / below;
    let y = if y > 1.0 || given >= END { 1.0 } else { y };
    if y < -1.0 || given <= -END { -1.0 } else { y }
}

/// `Φ(x)`.
#[inline(always)]
fn distribution(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * std::f32::consts::FRAC_1_SQRT_2)
}

simd_entry! {
    /// # Safety
    /// The processor has the level.
    unsafe fn value(x: &[f32], y: &mut [f32]) = value_at
}

/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn value_at<S: Simd>(x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = x * distribution(x);
    }
}

simd_entry! {
    /// # Safety
    /// The processor has the level.
    unsafe fn value_and_slope(x: &[f32], y: &mut [f32], slope: &mut [f32]) = value_and_slope_at
}

/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn value_and_slope_at<S: Simd>(x: &[f32], y: &mut [f32], slope: &mut [f32]) {
    /// `1 / √(2π)`.
    const PEAK: f32 = 0.398_942_3;
    /// Square of where the density, and `x` times it, are nothing beside a rounding. `exp` stops at its
    /// smallest number, which a large `x` must not multiply.
    const FAR: f32 = 170.0;
    for ((y, slope), &x) in y.iter_mut().zip(slope).zip(x) {
        let below = distribution(x);
        let square = x * x;
        let density = PEAK * exp_of_negative(-0.5 * square);
        let density = if square > FAR { 0.0 } else { density };
        *y = x * below;
        *slope = below + x * density;
    }
}

impl GeluOps for Flex {
    fn tokens_gelu(x: FlexTensor) -> FlexTensor {
        let x = contiguous(x);
        let shape = x.shape();
        let (from, level) = (values(&x), Level::best());
        let write = |y: Shared| {
            from.par_chunks(CHUNK).enumerate().for_each(|(at, x)| {
                // SAFETY: this chunk belongs to this task alone; all of it is written.
                let y = unsafe { y.slice(at * CHUNK, x.len()) };
                // SAFETY: safe code, compiled for the level that the processor has.
                unsafe { value(level, x, y) };
            });
        };
        // SAFETY: the chunks cover everything.
        let y = unsafe { filled(from.len(), write) };
        tensor(y, &shape)
    }
}

impl GeluKernels for Flex {
    fn with_slope(x: FlexTensor) -> [FlexTensor; 2] {
        let x = contiguous(x);
        let shape = x.shape();
        let (from, level) = (values(&x), Level::best());
        let mut slopes = Vec::new();
        let write = |y: Shared| {
            let write = |slope: Shared| {
                from.par_chunks(CHUNK).enumerate().for_each(|(at, x)| {
                    let part = |of: Shared| {
                        // SAFETY: this chunk belongs to this task alone; all of it is written.
                        unsafe { of.slice(at * CHUNK, x.len()) }
                    };
                    // SAFETY: safe code, compiled for the level that the processor has.
                    unsafe { value_and_slope(level, x, part(y), part(slope)) };
                });
            };
            // SAFETY: the chunks cover everything.
            slopes = unsafe { filled(from.len(), write) };
        };
        // SAFETY: as above.
        let y = unsafe { filled(from.len(), write) };
        [tensor(y, &shape), tensor(slopes, &shape)]
    }
}

#[derive(Debug)]
struct GeluBackward;

impl<B: Backend> Backward<B, 1> for GeluBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let [parent] = ops.parents;
        if let Some(node) = parent {
            grads.register::<B>(node.id, B::float_mul(gradient, ops.state));
        }
    }
}

impl<B: Backend + GeluOps + GeluKernels, C: CheckpointStrategy> GeluOps for Autodiff<B, C> {
    fn tokens_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let node = x.node();
        let x = x.into_primitive();
        match GeluBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let [y, slope] = B::with_slope(x);
                prep.finish(slope, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::tokens_gelu(x)),
        }
    }
}

/// `x Φ(x)`, `Φ` the standard normal distribution; any shape.
///
/// # Gradients
/// With respect to `x`: `Φ(x) + x φ(x)`.
#[must_use]
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as GeluOps>::tokens_gelu(x.into_dispatch()))
}
