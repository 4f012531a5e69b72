//! Convolution as a matrix product over gathered cells.
//!
//! The cells that an output cell reads stand side by side in a row of the column matrix (taps outer,
//! channels inner), so gathering copies whole cells. A 1×1 convolution reads the map as it lies.

use rayon::prelude::*;

use super::columns::{gather, image_of, offsets};
use super::geometry::Window;
use crate::kernels::gemm::{self, DEPTH, PANEL, Product, Rows, Start, packed_len};
use crate::kernels::maps::{Channels, Segment, Shared, cells, filled, stretches};
use crate::kernels::scratch::with_scratch;
use crate::kernels::simd::Level;

/// Floats of the column matrix of one task (512 KiB).
const COLUMN_FLOATS: usize = 128 * 1024;
/// Rows of one task: enough to use a panel of weights many times, few enough for several tasks.
const TASK_ROWS: usize = 224;

/// Packs the matrix `[(tap, k), n]` of some taps of a weight `[.., .., kernel]`.
///
/// Element `(tap, k, n)` lies at `k * strides[0] + n * strides[1] + tap`.
pub(crate) fn pack_weight(
    weight: &[f32],
    taps: &[usize],
    [k, n]: [usize; 2],
    strides: [usize; 2],
) -> Vec<f32> {
    let depth = taps.len() * k;
    let panels = n.div_ceil(PANEL);
    let whole = depth / DEPTH * DEPTH;
    let fill = |first: usize, panel: usize, out: &mut [f32]| {
        let n0 = panel * PANEL;
        let width = PANEL.min(n - n0);
        let (rows, _) = out.as_chunks_mut::<PANEL>();
        if width < PANEL {
            rows.as_flattened_mut().fill(0.0);
        }
        // Columns outside: the weight is read as it lies where `k` is its fast axis, and the panel
        // stays in the first-level cache.
        for column in 0..width {
            let from = &weight[(n0 + column) * strides[1]..];
            let mut at = first;
            while at < first + rows.len() {
                let (tap, channel) = (taps[at / k], at % k);
                let run = (k - channel).min(first + rows.len() - at);
                let from = from[channel * strides[0] + tap..]
                    .iter()
                    .step_by(strides[0]);
                for (row, value) in rows[at - first..at - first + run].iter_mut().zip(from) {
                    row[column] = *value;
                }
                at += run;
            }
        }
    };
    let write = |packed: Shared| {
        let tasks = depth.div_ceil(DEPTH) * panels;
        (0..tasks).into_par_iter().for_each(|task| {
            let (block, panel) = (task / panels * DEPTH, task % panels);
            let rows = if block < whole { DEPTH } else { depth - whole };
            let start = block * panels * PANEL + panel * rows * PANEL;
            // SAFETY: this panel of this block belongs to this task alone; all of it is written.
            fill(block, panel, unsafe { packed.slice(start, rows * PANEL) });
        });
    };
    // SAFETY: the tasks cover all blocks and panels.
    unsafe { filled(packed_len(depth, n), write) }
}

/// What is added to and done with the sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epilogue<'a> {
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) relu: bool,
}

impl Epilogue<'_> {
    pub(crate) const NONE: Epilogue<'static> = Epilogue {
        bias: None,
        relu: false,
    };

    fn start(&self, n: usize) -> Start {
        match self.bias {
            Some(bias) => {
                assert_eq!(bias.len(), n, "one bias an output channel");
                Start::Bias(bias.as_ptr())
            }
            None => Start::Zero,
        }
    }
}

/// `out = x ⋆ weight`; `weight` is `[o, c, kh, kw]`.
pub(crate) fn forward(
    level: Level,
    window: &Window,
    segments: &[Segment],
    (x, x_channels): (&[f32], Channels),
    weight: &[f32],
    epilogue: Epilogue<'_>,
    (out, out_channels): (Shared, Channels),
) {
    let outputs = window.outputs(segments);
    let (c, o, taps) = (x_channels.channels, out_channels.channels, window.taps());
    let order: Vec<usize> = (0..taps).collect();
    let packed = pack_weight(weight, &order, [c, o], [taps, c * taps]);
    let start = epilogue.start(o);
    let rows = Grid {
        level,
        weight: &packed,
        k: taps * c,
        start: StartOf(start),
        relu: epilogue.relu,
        to: out_channels,
    };
    assert_eq!(
        out.len(),
        cells(&outputs) * out_channels.pitch,
        "output of another size"
    );
    if window.is_pointwise() {
        return rows.pointwise(cells(segments), x, x_channels, out);
    }
    let (from, to) = (offsets(segments), offsets(&outputs));
    let reading = window.reading();
    let task_rows = (COLUMN_FLOATS / rows.k.max(1)).clamp(28, TASK_ROWS);
    stretches(&outputs, task_rows)
        .into_par_iter()
        .for_each(|at| {
            let source = segments[at.segment];
            let image = image_of(x, source, from[at.segment], at.image, x_channels.pitch);
            let grid = outputs[at.segment];
            with_scratch(at.len * rows.k, |columns| {
                gather(
                    &reading,
                    [grid.w, at.start, at.len],
                    image,
                    source,
                    x_channels,
                    columns,
                );
                let cell = to[at.segment] + at.image * grid.h * grid.w + at.start;
                // SAFETY: the cells of this stretch belong to this task alone.
                unsafe { rows.product(at.len, columns, rows.k, out.at(cell * rows.to.pitch)) };
            });
        });
}

/// [`Start`] holds a pointer to the bias, which outlives the call and is only read.
#[derive(Clone, Copy)]
struct StartOf(Start);
// SAFETY: see above.
unsafe impl Sync for StartOf {}

/// What all tasks of a product share.
struct Grid<'a> {
    level: Level,
    weight: &'a [f32],
    k: usize,
    start: StartOf,
    relu: bool,
    to: Channels,
}

impl Grid<'_> {
    /// `m` rows of `a` to rows at `out` (of the row's first channel).
    ///
    /// # Safety
    /// `out` is valid for `m` rows that no other task writes.
    unsafe fn product(&self, m: usize, a: &[f32], stride: usize, out: *mut f32) {
        assert!(
            m == 0 || (m - 1) * stride + self.k <= a.len(),
            "rows exceed their storage"
        );
        // SAFETY: `a` was checked, the weight is packed for `k` and the channels, `out` is the
        // caller's promise.
        unsafe {
            let product = Product {
                m,
                n: self.to.channels,
                columns: 0..self.to.channels,
                k: self.k,
                a: a.as_ptr(),
                rows: Rows::Strided(stride),
                b: self.weight.as_ptr(),
                out: out.add(self.to.offset),
                out_stride: self.to.pitch,
                start: self.start.0,
                relu: self.relu,
            };
            gemm::product(self.level, &product);
        }
    }

    fn pointwise(&self, cells: usize, x: &[f32], channels: Channels, out: Shared) {
        let parts = cells.div_ceil(TASK_ROWS);
        let len = cells.div_ceil(parts.max(1)).max(1);
        (0..cells.div_ceil(len)).into_par_iter().for_each(|part| {
            let start = part * len;
            let rows = len.min(cells - start);
            let a = &x[start * channels.pitch + channels.offset..];
            // SAFETY: these rows belong to this task alone.
            unsafe { self.product(rows, a, channels.pitch, out.at(start * self.to.pitch)) };
        });
    }
}

/// `dx`: the gradient at the input, for `dy` at the output.
pub(crate) fn input_gradient(
    level: Level,
    window: &Window,
    segments: &[Segment],
    (dy, dy_channels): (&[f32], Channels),
    weight: &[f32],
    (dx, dx_channels): (Shared, Channels),
) {
    let outputs = window.outputs(segments);
    let (c, o, taps) = (dx_channels.channels, dy_channels.channels, window.taps());
    let (from, to) = (offsets(&outputs), offsets(segments));
    assert_eq!(
        dx.len(),
        cells(segments) * dx_channels.pitch,
        "output of another size"
    );
    for phase_y in 0..window.stride[0] {
        for phase_x in 0..window.stride[1] {
            let reading = window.reverse([phase_y, phase_x]);
            let order: Vec<usize> = reading.taps.iter().map(|tap| tap.tap).collect();
            let packed = pack_weight(weight, &order, [o, c], [c * taps, taps]);
            let rows = Grid {
                level,
                weight: &packed,
                k: order.len() * o,
                start: StartOf(Start::Zero),
                relu: false,
                to: dx_channels,
            };
            if window.is_pointwise() {
                return rows.pointwise(cells(segments), dy, dy_channels, dx);
            }
            let grids = window.phase_grids(segments, [phase_y, phase_x]);
            let task_rows = (COLUMN_FLOATS / rows.k.max(1)).clamp(28, TASK_ROWS);
            let dense = window.stride == [1, 1];
            stretches(&grids, task_rows).into_par_iter().for_each(|at| {
                let (segment, grid) = (segments[at.segment], grids[at.segment]);
                let source = outputs[at.segment];
                let image = image_of(dy, source, from[at.segment], at.image, dy_channels.pitch);
                let first = to[at.segment] + at.image * segment.h * segment.w;
                let sums = if dense { 0 } else { at.len * c };
                with_scratch(at.len * rows.k + sums, |scratch| {
                    let (columns, sums) = scratch.split_at_mut(at.len * rows.k);
                    let cells = [grid.w, at.start, at.len];
                    gather(&reading, cells, image, source, dy_channels, columns);
                    if dense {
                        let pitch = rows.to.pitch;
                        // SAFETY: the cells of this stretch belong to this task alone.
                        unsafe {
                            let out = dx.at((first + at.start) * pitch);
                            rows.product(at.len, columns, rows.k, out);
                        }
                        return;
                    }
                    let plain = Grid {
                        to: Channels::all(c),
                        ..rows
                    };
                    // SAFETY: `sums` is this task's own.
                    unsafe { plain.product(at.len, columns, rows.k, sums.as_mut_ptr()) };
                    for (cell, sums) in (at.start..).zip(sums.chunks_exact(c)) {
                        let y = cell / grid.w * window.stride[0] + phase_y;
                        let x = cell % grid.w * window.stride[1] + phase_x;
                        let to = (first + y * segment.w + x) * dx_channels.pitch;
                        // SAFETY: as above; the cell has `pitch` floats.
                        unsafe {
                            let to = dx.at(to + dx_channels.offset);
                            std::ptr::copy_nonoverlapping(sums.as_ptr(), to, c);
                        }
                    }
                });
            });
        }
    }
}
