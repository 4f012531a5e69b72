//! Batch normalisation over the cells of channels-last maps, with ReLU and residual fused in.
//!
//! ```text
//! y  = relu(γ (x − μ) / √(σ² + ε) + β + residual)          σ² biased
//! g  = dy unless y <= 0, or y >= 6 of a ReLU up to 6      = d_residual
//! dβ = Σ g      dγ = Σ g x̂      dx = γ/√(σ² + ε) · (g − dβ/M − x̂ dγ/M)
//! ```
//! Forward and backward read their maps twice each: once for sums over the cells, once to write.
//! Sums are taken over blocks of cells in f32 and added up in f64, in order.

use rayon::prelude::*;

use crate::kernels::activation::Activation;
use crate::kernels::maps::Shared;
use crate::kernels::simd::{Level, Simd, simd_entry};

/// Floats of a block of cells (64 KiB): what a task reads twice stays near the processor.
const BLOCK_FLOATS: usize = 16 * 1024;

/// Mean and biased variance of every channel.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    pub(crate) mean: Vec<f32>,
    pub(crate) var: Vec<f32>,
}

/// Cells of a block.
fn block_cells(channels: usize) -> usize {
    (BLOCK_FLOATS / channels.max(1)).clamp(8, 1024)
}

/// Moments of `x` `[cells, channels]`, merged block by block (Chan et al. 1979): no cancellation.
pub(crate) fn moments(level: Level, x: &[f32], channels: usize) -> Moments {
    let block = block_cells(channels) * channels;
    let cells = x.len() / channels;
    let blocks = x.len().div_ceil(block);
    let mut partial = vec![0.0f32; blocks * 3 * channels];
    partial
        .par_chunks_mut(3 * channels)
        .zip(x.par_chunks(block))
        .for_each(|(partial, x)| {
            let (mean, rest) = partial.split_at_mut(channels);
            let (squares, rest) = rest.split_at_mut(channels);
            let cells = x.len() / channels;
            // SAFETY: `x` is `cells` rows of `channels`, the others one each.
            unsafe {
                let out = [mean, squares, rest].map(<[f32]>::as_mut_ptr);
                block_moments(level, x.as_ptr(), cells, channels, out);
            }
        });
    let mut mean = vec![0.0f64; channels];
    let mut squares = vec![0.0f64; channels];
    let mut seen = 0.0f64;
    for (partial, x) in partial.chunks_exact(3 * channels).zip(x.chunks(block)) {
        let count = (x.len() / channels) as f64;
        let total = seen + count;
        let (block_mean, block_squares) = partial.split_at(channels);
        for c in 0..channels {
            let delta = f64::from(block_mean[c]) - mean[c];
            mean[c] += delta * count / total;
            squares[c] += f64::from(block_squares[c]) + delta * delta * seen * count / total;
        }
        seen = total;
    }
    Moments {
        mean: mean.iter().map(|&m| m as f32).collect(),
        var: squares.iter().map(|&s| (s / cells as f64) as f32).collect(),
    }
}

simd_entry! {
    /// Mean and sum of squared deviations of a block.
    ///
    /// # Safety
    /// `x` is valid for `cells` rows of `channels`; mean, squares and working memory for one.
    unsafe fn block_moments(
        x: *const f32,
        cells: usize,
        channels: usize,
        out: [*mut f32; 3],
    ) = block_moments_at
}

/// # Safety
/// As [`Simd`] and [`block_moments`].
#[inline(always)]
unsafe fn block_moments_at<S: Simd>(
    x: *const f32,
    cells: usize,
    channels: usize,
    [mean, squares, rest]: [*mut f32; 3],
) {
    // SAFETY: passed on; the last channels are masked.
    unsafe {
        // Row by row, as the map lies in memory; the sums stay in the first-level cache.
        for c in (0..channels).step_by(S::LANES) {
            S::store_upto(mean.add(c), S::splat(0.0), channels - c);
            S::store_upto(squares.add(c), S::splat(0.0), channels - c);
            S::store_upto(rest.add(c), S::splat(0.0), channels - c);
        }
        for cell in 0..cells {
            let row = x.add(cell * channels);
            for c in (0..channels).step_by(S::LANES) {
                let n = channels - c;
                let sum = S::add(S::load_upto(mean.add(c), n), S::load_upto(row.add(c), n));
                S::store_upto(mean.add(c), sum, n);
            }
        }
        let share = S::splat(1.0 / cells as f32);
        for c in (0..channels).step_by(S::LANES) {
            let n = channels - c;
            let middle = S::mul(S::load_upto(mean.add(c), n), share);
            S::store_upto(mean.add(c), middle, n);
        }
        for cell in 0..cells {
            let row = x.add(cell * channels);
            for c in (0..channels).step_by(S::LANES) {
                let n = channels - c;
                let off = S::sub(S::load_upto(row.add(c), n), S::load_upto(mean.add(c), n));
                let square = S::mul_add(off, off, S::load_upto(squares.add(c), n));
                S::store_upto(squares.add(c), square, n);
                S::store_upto(rest.add(c), S::add(S::load_upto(rest.add(c), n), off), n);
            }
        }
        // What the first sum lost to rounding is left in the sum of the deviations.
        for c in (0..channels).step_by(S::LANES) {
            let n = channels - c;
            let left = S::load_upto(rest.add(c), n);
            let off = S::mul(left, share);
            S::store_upto(mean.add(c), S::add(S::load_upto(mean.add(c), n), off), n);
            let square = S::sub(S::load_upto(squares.add(c), n), S::mul(left, off));
            // Equal values leave rounding, of either sign.
            let square = S::relu(square);
            S::store_upto(squares.add(c), square, n);
        }
    }
}

/// `y = activation(x * scale + shift + residual?)`, `scale` and `shift` one a channel.
pub(crate) fn apply(
    level: Level,
    x: &[f32],
    [scale, shift]: [&[f32]; 2],
    residual: Option<&[f32]>,
    activation: Activation,
    y: Shared,
) {
    let channels = scale.len();
    assert!(shift.len() == channels && y.len() == x.len());
    assert!(residual.is_none_or(|r| r.len() == x.len()));
    let block = block_cells(channels) * channels;
    (0..x.len().div_ceil(block))
        .into_par_iter()
        .for_each(|task| {
            let start = task * block;
            let len = block.min(x.len() - start);
            let residual = residual.map_or(std::ptr::null(), |r| r[start..start + len].as_ptr());
            // SAFETY: the block belongs to this task alone; extents were checked.
            unsafe {
                let (x, y) = (x[start..start + len].as_ptr(), y.at(start));
                let (scale, shift) = (scale.as_ptr(), shift.as_ptr());
                let extent = [len / channels, channels];
                apply_block(level, x, extent, [scale, shift], residual, activation, y);
            }
        });
}

simd_entry! {
    /// # Safety
    /// Maps are valid for `[cells, channels]`, `residual` may be null.
    unsafe fn apply_block(
        x: *const f32,
        extent: [usize; 2],
        affine: [*const f32; 2],
        residual: *const f32,
        activation: Activation,
        y: *mut f32,
    ) = apply_block_at
}

/// # Safety
/// As [`Simd`] and [`apply_block`].
#[inline(always)]
unsafe fn apply_block_at<S: Simd>(
    x: *const f32,
    [cells, channels]: [usize; 2],
    [scale, shift]: [*const f32; 2],
    residual: *const f32,
    activation: Activation,
    y: *mut f32,
) {
    // SAFETY: passed on; the last channels are masked.
    unsafe {
        for cell in 0..cells {
            let at = cell * channels;
            for c in (0..channels).step_by(S::LANES) {
                let n = channels - c;
                let (scale, shift) = (S::load_upto(scale.add(c), n), S::load_upto(shift.add(c), n));
                let mut v = S::mul_add(S::load_upto(x.add(at + c), n), scale, shift);
                if !residual.is_null() {
                    v = S::add(v, S::load_upto(residual.add(at + c), n));
                }
                match activation {
                    Activation::None => {}
                    Activation::Relu => v = S::relu(v),
                    Activation::Relu6 => v = S::cap(S::relu(v), S::splat(activation.bound())),
                }
                S::store_upto(y.add(at + c), v, n);
            }
        }
    }
}

/// Sums over the cells that the backward pass needs.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    /// `Σ g`.
    pub(crate) g: Vec<f64>,
    /// `Σ g (x − mean)`.
    pub(crate) gx: Vec<f64>,
}

/// Output of an activation, and where it ends: its gradient is 0 where `y <= 0` and where
/// `y >= bound`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate<'a> {
    pub(crate) y: &'a [f32],
    /// Infinity where the activation has no upper end.
    pub(crate) bound: f32,
}

impl<'a> Gate<'a> {
    /// Of ReLU.
    pub(crate) fn relu(y: &'a [f32]) -> Self {
        Gate {
            y,
            bound: f32::INFINITY,
        }
    }

    /// Start of the block at `start` and the bound; null and infinity without a gate.
    fn block(gate: Option<Self>, start: usize, len: usize) -> (*const f32, f32) {
        gate.map_or((std::ptr::null(), f32::INFINITY), |gate| {
            (gate.y[start..start + len].as_ptr(), gate.bound)
        })
    }
}

/// Sums of `g = dy` (closed by the gate, if there is one) and of `g (x - mean)`, by channel.
///
/// With `write`, `g` is written there; it may be `dy`'s own memory.
pub(crate) fn gradient_sums(
    level: Level,
    dy: Shared,
    gate: Option<Gate<'_>>,
    centred: Option<(&[f32], &[f32])>,
    channels: usize,
    write: Option<Shared>,
) -> Sums {
    assert!(gate.is_none_or(|gate| gate.y.len() == dy.len()));
    assert!(centred.is_none_or(|(x, mean)| x.len() == dy.len() && mean.len() == channels));
    assert!(write.is_none_or(|w| w.len() == dy.len()));
    let block = block_cells(channels) * channels;
    let mut partial = vec![0.0f32; dy.len().div_ceil(block) * 2 * channels];
    partial
        .par_chunks_mut(2 * channels)
        .enumerate()
        .for_each(|(task, partial)| {
            let start = task * block;
            let len = block.min(dy.len() - start);
            let part = |map: &[f32]| map[start..start + len].as_ptr();
            let (g, gx) = partial.split_at_mut(channels);
            // SAFETY: the block belongs to this task alone; extents were checked.
            unsafe {
                let (y, bound) = Gate::block(gate, start, len);
                let maps = GradientMaps {
                    dy: dy.at(start),
                    y,
                    bound,
                    x: centred.map_or(std::ptr::null(), |(x, _)| part(x)),
                    mean: centred.map_or(std::ptr::null(), |(_, mean)| mean.as_ptr()),
                    write: write.map_or(std::ptr::null_mut(), |w| w.at(start)),
                };
                let extent = [len / channels, channels];
                sum_block(level, &maps, extent, g.as_mut_ptr(), gx.as_mut_ptr());
            }
        });
    let mut sums = Sums {
        g: vec![0.0; channels],
        gx: vec![0.0; channels],
    };
    for partial in partial.chunks_exact(2 * channels) {
        let (g, gx) = partial.split_at(channels);
        for c in 0..channels {
            sums.g[c] += f64::from(g[c]);
            sums.gx[c] += f64::from(gx[c]);
        }
    }
    sums
}

/// Maps of one block; all but `dy` may be null.
struct GradientMaps {
    dy: *const f32,
    y: *const f32,
    /// Where the gate closes above.
    bound: f32,
    x: *const f32,
    mean: *const f32,
    write: *mut f32,
}

simd_entry! {
    /// # Safety
    /// Maps are valid for `[cells, channels]`, `g` and `gx` for `channels`.
    unsafe fn sum_block(
        maps: &GradientMaps,
        extent: [usize; 2],
        g: *mut f32,
        gx: *mut f32,
    ) = sum_block_at
}

/// # Safety
/// As [`Simd`] and [`sum_block`].
#[inline(always)]
unsafe fn sum_block_at<S: Simd>(
    maps: &GradientMaps,
    [cells, channels]: [usize; 2],
    g_out: *mut f32,
    gx_out: *mut f32,
) {
    // SAFETY: passed on; the last channels are masked.
    unsafe {
        for c in (0..channels).step_by(S::LANES) {
            S::store_upto(g_out.add(c), S::splat(0.0), channels - c);
            S::store_upto(gx_out.add(c), S::splat(0.0), channels - c);
        }
        for cell in 0..cells {
            for c in (0..channels).step_by(S::LANES) {
                let n = channels - c;
                let at = cell * channels + c;
                let mut g = S::load_upto(maps.dy.add(at), n);
                if !maps.y.is_null() {
                    let y = S::load_upto(maps.y.add(at), n);
                    g = S::gate_below(S::gate(g, y), y, S::splat(maps.bound));
                }
                let sum = S::add(S::load_upto(g_out.add(c), n), g);
                S::store_upto(g_out.add(c), sum, n);
                if !maps.x.is_null() {
                    let mean = S::load_upto(maps.mean.add(c), n);
                    let off = S::sub(S::load_upto(maps.x.add(at), n), mean);
                    let sum = S::mul_add(g, off, S::load_upto(gx_out.add(c), n));
                    S::store_upto(gx_out.add(c), sum, n);
                }
                if !maps.write.is_null() {
                    S::store_upto(maps.write.add(at), g, n);
                }
            }
        }
    }
}

/// `dx = a g + b x + c` with `g = dy`, closed by the gate if there is one; the factors one a channel.
///
/// `dx` may be `dy`'s own memory.
pub(crate) fn input_gradient(
    level: Level,
    dy: Shared,
    gate: Option<Gate<'_>>,
    x: &[f32],
    [a, b, c]: [&[f32]; 3],
    dx: Shared,
) {
    let channels = a.len();
    assert!(b.len() == channels && c.len() == channels);
    assert!(x.len() == dy.len() && dx.len() == dy.len());
    assert!(gate.is_none_or(|gate| gate.y.len() == dy.len()));
    let block = block_cells(channels) * channels;
    (0..dy.len().div_ceil(block))
        .into_par_iter()
        .for_each(|task| {
            let start = task * block;
            let len = block.min(dy.len() - start);
            let part = |map: &[f32]| map[start..start + len].as_ptr();
            // SAFETY: the block belongs to this task alone; extents were checked.
            unsafe {
                let (y, bound) = Gate::block(gate, start, len);
                let maps = [dy.at(start).cast_const(), y, part(x)];
                let factors = [a.as_ptr(), b.as_ptr(), c.as_ptr()];
                gradient_block(
                    level,
                    maps,
                    bound,
                    [len / channels, channels],
                    factors,
                    dx.at(start),
                );
            }
        });
}

simd_entry! {
    /// # Safety
    /// Maps (the second may be null) are valid for `[cells, channels]`, factors for `channels`.
    unsafe fn gradient_block(
        maps: [*const f32; 3],
        bound: f32,
        extent: [usize; 2],
        factors: [*const f32; 3],
        dx: *mut f32,
    ) = gradient_block_at
}

/// # Safety
/// As [`Simd`] and [`gradient_block`].
#[inline(always)]
unsafe fn gradient_block_at<S: Simd>(
    [dy, y, x]: [*const f32; 3],
    bound: f32,
    [cells, channels]: [usize; 2],
    [a, b, c]: [*const f32; 3],
    dx: *mut f32,
) {
    // SAFETY: passed on; the last channels are masked.
    unsafe {
        for cell in 0..cells {
            for channel in (0..channels).step_by(S::LANES) {
                let n = channels - channel;
                let at = cell * channels + channel;
                let mut g = S::load_upto(dy.add(at), n);
                if !y.is_null() {
                    let y = S::load_upto(y.add(at), n);
                    g = S::gate_below(S::gate(g, y), y, S::splat(bound));
                }
                let (b, c) = (
                    S::load_upto(b.add(channel), n),
                    S::load_upto(c.add(channel), n),
                );
                let rest = S::mul_add(b, S::load_upto(x.add(at), n), c);
                let value = S::mul_add(S::load_upto(a.add(channel), n), g, rest);
                S::store_upto(dx.add(at), value, n);
            }
        }
    }
}
