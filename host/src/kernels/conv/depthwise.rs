//! Depthwise convolution: every channel on its own, channels across the vector.

use rayon::prelude::*;

use super::columns::{image_of, offsets};
use super::direct::Epilogue;
use super::geometry::{Gather, Window};
use crate::kernels::maps::{Segment, Shared, Stretch, cells, stretches};
use crate::kernels::simd::{Level, Simd, simd_entry};

/// Cells of one task.
const TASK_CELLS: usize = 256;
/// Parts whose weight gradients are summed apart and then in order.
const PARTS: usize = 16;

/// `[taps][channels]` of a weight `[channels, 1, kh, kw]`.
fn by_tap(weight: &[f32], taps: usize) -> Vec<f32> {
    let channels = weight.len() / taps;
    let mut out = vec![0.0; weight.len()];
    for (channel, kernel) in weight.chunks_exact(taps).enumerate() {
        for (tap, &value) in kernel.iter().enumerate() {
            out[tap * channels + channel] = value;
        }
    }
    out
}

/// `out = x ⋆ weight`, each channel with its own kernel.
pub(crate) fn forward(
    level: Level,
    window: &Window,
    segments: &[Segment],
    x: &[f32],
    weight: &[f32],
    epilogue: Epilogue<'_>,
    out: Shared,
) {
    let outputs = window.outputs(segments);
    let weight = by_tap(weight, window.taps());
    let reading = window.reading();
    let place = |cell: usize, grid: Segment| [cell / grid.w, cell % grid.w];
    run(
        level,
        &reading,
        segments,
        [&outputs, &outputs],
        x,
        &weight,
        epilogue,
        out,
        place,
    );
}

/// `dx` for `dy` at the output.
pub(crate) fn input_gradient(
    level: Level,
    window: &Window,
    segments: &[Segment],
    dy: &[f32],
    weight: &[f32],
    dx: Shared,
) {
    let outputs = window.outputs(segments);
    let weight = by_tap(weight, window.taps());
    let [stride_y, stride_x] = window.stride;
    for phase_y in 0..stride_y {
        for phase_x in 0..stride_x {
            let grids = window.phase_grids(segments, [phase_y, phase_x]);
            let reading = window.reverse([phase_y, phase_x]);
            let place = |cell: usize, grid: Segment| {
                let (y, x) = (cell / grid.w, cell % grid.w);
                [y * stride_y + phase_y, x * stride_x + phase_x]
            };
            let to = [&grids[..], segments];
            run(
                level,
                &reading,
                &outputs,
                to,
                dy,
                &weight,
                Epilogue::NONE,
                dx,
                place,
            );
        }
    }
}

/// For every cell of a grid, the sum over its taps, written to the cell `place` of `targets`.
fn run(
    level: Level,
    gather: &Gather,
    sources: &[Segment],
    [grids, targets]: [&[Segment]; 2],
    from: &[f32],
    weight: &[f32],
    epilogue: Epilogue<'_>,
    out: Shared,
    place: impl Fn(usize, Segment) -> [usize; 2] + Sync,
) {
    let channels = from.len() / cells(sources).max(1);
    assert_eq!(
        out.len(),
        cells(targets) * channels,
        "output of another size"
    );
    assert!(epilogue.bias.is_none_or(|bias| bias.len() == channels));
    let (from_at, to_at) = (offsets(sources), offsets(targets));
    stretches(grids, TASK_CELLS).into_par_iter().for_each(|at| {
        let (grid, target) = (grids[at.segment], targets[at.segment]);
        let source = sources[at.segment];
        let image = image_of(from, source, from_at[at.segment], at.image, channels);
        let first = to_at[at.segment] + at.image * target.h * target.w;
        let mut taps = Taps::default();
        for cell in at.start..at.start + at.len {
            let taps = taps.of(gather, [cell / grid.w, cell % grid.w], source);
            let [y, x] = place(cell, grid);
            // SAFETY: each cell belongs to one task; taps lie in the image.
            unsafe {
                let out = out.at((first + y * target.w + x) * channels);
                let bias = epilogue.bias.map_or(std::ptr::null(), <[f32]>::as_ptr);
                cell_sum(
                    level,
                    taps,
                    image,
                    weight,
                    bias,
                    epilogue.relu,
                    channels,
                    out,
                );
            }
        }
    });
}

/// The taps of a cell that lie in the source, as `(cell, tap)`; one list serves all cells of a task.
#[derive(Default)]
struct Taps {
    inside: Vec<(usize, usize)>,
}

impl Taps {
    fn of(&mut self, gather: &Gather, [y, x]: [usize; 2], source: Segment) -> &Self {
        let y = (y * gather.step[0]).cast_signed();
        let x = (x * gather.step[1]).cast_signed();
        self.inside.clear();
        for tap in &gather.taps {
            let (y, x) = (y + tap.y, x + tap.x);
            if (0..source.h.cast_signed()).contains(&y) && (0..source.w.cast_signed()).contains(&x)
            {
                let cell = y.unsigned_abs() * source.w + x.unsigned_abs();
                self.inside.push((cell, tap.tap));
            }
        }
        self
    }
}

simd_entry! {
    /// # Safety
    /// Taps lie in `image`, `out` is valid for `channels`, `bias` too or null.
    unsafe fn cell_sum(
        taps: &Taps,
        image: &[f32],
        weight: &[f32],
        bias: *const f32,
        relu: bool,
        channels: usize,
        out: *mut f32,
    ) = cell_sum_at
}

/// # Safety
/// As [`Simd`] and [`cell_sum`].
#[inline(always)]
unsafe fn cell_sum_at<S: Simd>(
    taps: &Taps,
    image: &[f32],
    weight: &[f32],
    bias: *const f32,
    relu: bool,
    channels: usize,
    out: *mut f32,
) {
    // SAFETY: passed on; the last channels are masked.
    unsafe {
        for c in (0..channels).step_by(S::LANES) {
            let n = channels - c;
            let mut sum = if bias.is_null() {
                S::splat(0.0)
            } else {
                S::load_upto(bias.add(c), n)
            };
            for &(cell, tap) in &taps.inside {
                let x = S::load_upto(image.as_ptr().add(cell * channels + c), n);
                let w = S::load_upto(weight.as_ptr().add(tap * channels + c), n);
                sum = S::mul_add(x, w, sum);
            }
            let sum = if relu { S::relu(sum) } else { sum };
            S::store_upto(out.add(c), sum, n);
        }
    }
}

/// `dw` `[channels, 1, kh, kw]`.
pub(crate) fn weight_gradient(
    level: Level,
    window: &Window,
    segments: &[Segment],
    [x, dy]: [&[f32]; 2],
    channels: usize,
    dw: &mut [f32],
) {
    let outputs = window.outputs(segments);
    let reading = window.reading();
    let (from, to) = (offsets(segments), offsets(&outputs));
    let stretches = stretches(&outputs, TASK_CELLS);
    let each = stretches.len().div_ceil(PARTS).max(1);
    let taps = window.taps();
    let partial: Vec<Vec<f32>> = stretches
        .par_chunks(each)
        .map(|stretches| {
            let mut sums = vec![0.0f32; taps * channels];
            let mut inside = Taps::default();
            for &Stretch {
                segment,
                image,
                start,
                len,
            } in stretches
            {
                let (source, grid) = (segments[segment], outputs[segment]);
                let input = image_of(x, source, from[segment], image, channels);
                let upstream = image_of(dy, grid, to[segment], image, channels);
                for cell in start..start + len {
                    let taps = inside.of(&reading, [cell / grid.w, cell % grid.w], source);
                    let upstream = &upstream[cell * channels..][..channels];
                    // SAFETY: taps lie in the image, `sums` is `[taps][channels]`.
                    unsafe { add_products(level, taps, input, upstream, &mut sums) };
                }
            }
            sums
        })
        .collect();
    dw.fill(0.0);
    for sums in partial {
        for (channel, kernel) in dw.chunks_exact_mut(taps).enumerate() {
            for (tap, value) in kernel.iter_mut().enumerate() {
                *value += sums[tap * channels + channel];
            }
        }
    }
}

simd_entry! {
    /// # Safety
    /// Taps lie in `image`; `sums` has a row of the upstream's length for each.
    unsafe fn add_products(
        taps: &Taps,
        image: &[f32],
        upstream: &[f32],
        sums: &mut [f32],
    ) = add_products_at
}

/// # Safety
/// As [`Simd`] and [`add_products`].
#[inline(always)]
unsafe fn add_products_at<S: Simd>(taps: &Taps, image: &[f32], upstream: &[f32], sums: &mut [f32]) {
    let channels = upstream.len();
    for &(cell, tap) in &taps.inside {
        let x = &image[cell * channels..][..channels];
        let sums = &mut sums[tap * channels..][..channels];
        // SAFETY: three rows of `channels`; the last channels are masked.
        unsafe {
            for c in (0..channels).step_by(S::LANES) {
                let n = channels - c;
                let (x, g) = (x.as_ptr().add(c), upstream.as_ptr().add(c));
                let sum = S::load_upto(sums.as_ptr().add(c), n);
                let sum = S::mul_add(S::load_upto(x, n), S::load_upto(g, n), sum);
                S::store_upto(sums.as_mut_ptr().add(c), sum, n);
            }
        }
    }
}
