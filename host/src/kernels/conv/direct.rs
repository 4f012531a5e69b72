//! Convolution as a matrix product over gathered cells.
//!
//! The cells that an output cell reads stand side by side in a row of the column matrix (taps outer,
//! channels inner), so gathering copies whole cells. A 1×1 convolution reads the map as it lies.

use rayon::prelude::*;

use super::geometry::{Gather, Window};
use crate::kernels::gemm::{
    self, DEPTH, PANEL, Product, Rows, Start, pack_panels, pack_strips, packed_len, strips_len,
};
use crate::kernels::maps::{Channels, Segment, Shared, cells, filled, stretches};
use crate::kernels::scratch::with_scratch;
use crate::kernels::simd::Level;

/// Floats of the column matrix of one task (512 KiB).
const COLUMN_FLOATS: usize = 128 * 1024;
/// Rows of one task: enough to use a panel of weights many times, few enough for several tasks.
const TASK_ROWS: usize = 224;
/// Columns `(tap, channel)` of one task of the weight gradient.
const GRADIENT_COLUMNS: usize = 256;
/// Fewer rows of one task would be packed more often than used.
const GRADIENT_ROWS: usize = 112;
/// Tasks that share evenly on few cores; fixed, so that no sum depends on the number of threads.
const TASKS: usize = 8;

/// Writes the column matrix of a stretch of grid cells: row = cell, `[taps][channels]`.
fn gather(
    gather: &Gather,
    [grid_w, first, len]: [usize; 3],
    image: &[f32],
    source: Segment,
    channels: Channels,
    columns: &mut [f32],
) {
    let Channels {
        pitch,
        offset,
        channels: c,
    } = channels;
    let row_len = gather.taps.len() * c;
    if row_len == 0 {
        return;
    }
    // With all channels of a row taken, a run of taps is one copy.
    let run = if pitch == c { gather.run } else { 1 };
    let end = first + len;
    let mut cell = first;
    while cell < end {
        let (y, x) = (cell / grid_w, cell % grid_w);
        let count = (grid_w - x).min(end - cell);
        let rows = &mut columns[(cell - first) * row_len..][..count * row_len];
        for (number, taps) in gather.taps.chunks(run).enumerate() {
            let reading = Run {
                step: gather.step[1],
                taps: taps.len().cast_signed(),
                x: taps[0].x,
                floats: taps.len() * c,
                at: number * run * c,
                row_len,
            };
            let source_y = (y * gather.step[0]).cast_signed() + taps[0].y;
            if source_y < 0 || source_y >= source.h.cast_signed() {
                reading.clear(rows);
                continue;
            }
            let line = source_y.unsigned_abs() * source.w * pitch;
            let line = &image[line..line + source.w * pitch];
            reading.gather(line, [source.w, pitch, offset], x, c, rows);
        }
        cell += count;
    }
}

/// A run of taps side by side, for the cells of one row of a grid.
struct Run {
    /// Source cells from one grid cell to the next.
    step: usize,
    taps: isize,
    /// Source column of the first tap under grid column 0.
    x: isize,
    /// Floats of the run, and where they lie in a row of the column matrix.
    floats: usize,
    at: usize,
    row_len: usize,
}

impl Run {
    fn clear(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.row_len) {
            row[self.at..self.at + self.floats].fill(0.0);
        }
    }

    /// From the source's `line` of `[width, pitch, offset]` to `rows`, the grid cells from `x` on.
    fn gather(
        &self,
        line: &[f32],
        [width, pitch, offset]: [usize; 3],
        x: usize,
        c: usize,
        rows: &mut [f32],
    ) {
        let count = rows.len() / self.row_len;
        let source_x = |i: usize| ((x + i) * self.step).cast_signed() + self.x;
        let last = width.cast_signed() - self.taps;
        let low = (0..count).position(|i| source_x(i) >= 0).unwrap_or(count);
        let inside = (low..count).rev().find(|&i| source_x(i) <= last);
        let high = inside.map_or(low, |i| i + 1);
        for (i, row) in rows.chunks_exact_mut(self.row_len).enumerate() {
            let out = &mut row[self.at..self.at + self.floats];
            if (low..high).contains(&i) {
                let start = source_x(i).unsigned_abs() * pitch + offset;
                copy(&line[start..start + self.floats], out);
                continue;
            }
            // At the borders, the taps that exist.
            out.fill(0.0);
            let first = (-source_x(i)).clamp(0, self.taps);
            let end = (width.cast_signed() - source_x(i)).clamp(first, self.taps);
            if first < end {
                let start = (source_x(i) + first).unsigned_abs() * pitch + offset;
                let (first, end) = (first.unsigned_abs() * c, end.unsigned_abs() * c);
                out[first..end].copy_from_slice(&line[start..start + end - first]);
            }
        }
    }
}

/// Copies of a few vectors without a call: the stem's runs are 21 floats.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    const FEW: usize = 16;
    if let (Some(first), Some(last)) = (from.first_chunk::<FEW>(), from.last_chunk::<FEW>())
        && from.len() <= 2 * FEW
    {
        // Two pieces that may overlap.
        let end = to.len() - FEW;
        to[..FEW].copy_from_slice(first);
        to[end..].copy_from_slice(last);
    } else {
        to.copy_from_slice(from);
    }
}

/// Packs the matrix `[(tap, k), n]` of some taps of a weight `[.., .., kernel]`.
///
/// Element `(tap, k, n)` lies at `k * strides[0] + n * strides[1] + tap`.
fn pack_weight(
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

/// Where each segment's first cell lies.
pub(crate) fn offsets(segments: &[Segment]) -> Vec<usize> {
    segments
        .iter()
        .scan(0, |sum, segment| {
            let start = *sum;
            *sum += segment.cells();
            Some(start)
        })
        .collect()
}

/// One image of a packed map, all channels.
pub(crate) fn image_of<'a>(
    values: &'a [f32],
    segment: Segment,
    start: usize,
    image: usize,
    pitch: usize,
) -> &'a [f32] {
    let plane = segment.h * segment.w;
    &values[(start + image * plane) * pitch..(start + (image + 1) * plane) * pitch]
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
    let outputs: Vec<Segment> = segments.iter().map(|s| window.output(*s)).collect();
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
    let outputs: Vec<Segment> = segments.iter().map(|s| window.output(*s)).collect();
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
            // The cells of this phase, and where they lie.
            let phase = |extent: usize, at: usize, stride: usize| {
                extent.saturating_sub(at).div_ceil(stride)
            };
            let grids: Vec<Segment> = segments
                .iter()
                .map(|s| {
                    let h = phase(s.h, phase_y, window.stride[0]);
                    Segment::new(s.n, h, phase(s.w, phase_x, window.stride[1]))
                })
                .collect();
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

/// `dw` `[o, c, kh, kw]`: the gradient at the weight.
pub(crate) fn weight_gradient(
    level: Level,
    window: &Window,
    segments: &[Segment],
    (x, x_channels): (&[f32], Channels),
    (dy, dy_channels): (&[f32], Channels),
    dw: &mut [f32],
) {
    let outputs: Vec<Segment> = segments.iter().map(|s| window.output(*s)).collect();
    let (c, o, taps) = (x_channels.channels, dy_channels.channels, window.taps());
    let depth = taps * c;
    let (from, to) = (offsets(segments), offsets(&outputs));
    let reading = window.reading();
    let columns = blocks_of(depth, c, window.is_pointwise());
    let chunks = stretches(&outputs, DEPTH);
    // Where columns make too few tasks, rows are split too; then the cells, whose partial sums are
    // added in order.
    let row_parts = TASKS.div_ceil(columns.len()).min(o.div_ceil(GRADIENT_ROWS));
    let rows = o.div_ceil(row_parts).next_multiple_of(GRADIENT_ROWS / 4);
    let row_parts = o.div_ceil(rows);
    let tasks = columns.len() * row_parts;
    let parts = TASKS.div_ceil(tasks).min(chunks.len().div_ceil(4)).max(1);
    let chunks_of_part = chunks.len().div_ceil(parts);
    let parts = chunks.len().div_ceil(chunks_of_part.max(1)).max(1);
    let write = |sums: Shared| {
        (0..parts * tasks).into_par_iter().for_each(|task| {
            let (part, task) = (task / tasks, task % tasks);
            let (block, row) = (&columns[task / row_parts], task % row_parts * rows);
            let (width, height) = (block.len(), rows.min(o - row));
            let first = part * chunks_of_part;
            let chunks = &chunks[first..(first + chunks_of_part).min(chunks.len())];
            let sizes = [
                strips_len(level, height, DEPTH),
                packed_len(DEPTH, width),
                if window.is_pointwise() {
                    0
                } else {
                    DEPTH * width
                },
            ];
            with_scratch(sizes.iter().sum(), |scratch| {
                let (strips, rest) = scratch.split_at_mut(sizes[0]);
                let (panels, gathered) = rest.split_at_mut(sizes[1]);
                let mut view = reading.clone();
                let mut channels = x_channels;
                if !window.is_pointwise() {
                    block.restrict(&mut view, &mut channels, c);
                }
                for (number, at) in chunks.iter().enumerate() {
                    let (source, grid) = (segments[at.segment], outputs[at.segment]);
                    let image = image_of(x, source, from[at.segment], at.image, x_channels.pitch);
                    let upstream = image_of(dy, grid, to[at.segment], at.image, dy_channels.pitch);
                    let upstream =
                        &upstream[at.start * dy_channels.pitch + dy_channels.offset + row..];
                    pack_strips(level, upstream, [height, at.len], dy_channels.pitch, strips);
                    let extent = [at.len, width];
                    if window.is_pointwise() {
                        let start = at.start * x_channels.pitch + x_channels.offset + block.start;
                        pack_panels(&image[start..], extent, x_channels.pitch, panels);
                    } else {
                        let cells = [grid.w, at.start, at.len];
                        gather(&view, cells, image, source, channels, gathered);
                        pack_panels(gathered, extent, width, panels);
                    }
                    // SAFETY: these rows and columns of this part belong to this task alone.
                    unsafe {
                        let product = Product {
                            m: height,
                            n: width,
                            columns: 0..width,
                            k: at.len,
                            a: strips.as_ptr(),
                            rows: Rows::Strips,
                            b: panels.as_ptr(),
                            out: sums.at((part * o + row) * depth + block.start),
                            out_stride: depth,
                            start: if number == 0 { Start::Zero } else { Start::Out },
                            relu: false,
                        };
                        gemm::product(level, &product);
                    }
                }
            });
        });
    };
    if parts == 1 && taps == 1 && !chunks.is_empty() {
        // The sums lie as the weight does.
        return write(Shared::new(dw));
    }
    let sums = if chunks.is_empty() {
        vec![0.0; o * depth]
    } else {
        // SAFETY: every part has chunks, whose first product writes all rows and columns.
        unsafe { filled(parts * o * depth, write) }
    };
    dw.par_chunks_mut(depth).enumerate().for_each(|(row, dw)| {
        for part in 0..parts {
            let sums = &sums[(part * o + row) * depth..][..depth];
            for (tap, sums) in sums.chunks_exact(c).enumerate() {
                for (dw, sum) in dw[tap..].iter_mut().step_by(taps).zip(sums) {
                    *dw = if part == 0 { *sum } else { *dw + sum };
                }
            }
        }
    });
}

/// Columns `start..end` of `[taps][c]`: whole taps, or some channels of one tap.
#[derive(Clone, Copy, Debug)]
struct Block {
    start: usize,
    end: usize,
}

impl Block {
    fn len(&self) -> usize {
        self.end - self.start
    }

    /// Narrows a gather to these columns.
    fn restrict(&self, view: &mut Gather, channels: &mut Channels, c: usize) {
        let (first, last) = (self.start / c, self.end.div_ceil(c));
        view.taps = view.taps[first..last].to_vec();
        if !(self.start.is_multiple_of(c) && self.end.is_multiple_of(c)) {
            channels.offset += self.start - first * c;
            channels.channels = self.len();
        }
        if view.taps.len() % view.run != 0 || first % view.run != 0 {
            view.run = 1;
        }
    }
}

fn blocks_of(depth: usize, c: usize, pointwise: bool) -> Vec<Block> {
    let cut = |start: usize, end: usize, width: usize| {
        (start..end).step_by(width).map(move |start| Block {
            start,
            end: (start + width).min(end),
        })
    };
    if pointwise || c > GRADIENT_COLUMNS {
        // Within a tap, equal parts.
        let parts = c.div_ceil(GRADIENT_COLUMNS);
        let width = c.div_ceil(parts).next_multiple_of(PANEL);
        (0..depth / c)
            .flat_map(|tap| cut(tap * c, (tap + 1) * c, width))
            .collect()
    } else {
        cut(0, depth, (GRADIENT_COLUMNS / c).max(1) * c).collect()
    }
}
