//! Gradient at the weight of a convolution: a matrix product over the cells of all images.

use rayon::prelude::*;

use super::columns::{gather, image_of, offsets};
use super::geometry::{Gather, Window};
use crate::kernels::gemm::{
    self, DEPTH, PANEL, Product, Rows, Start, pack_panels, pack_strips, packed_len, strips_len,
};
use crate::kernels::maps::{Channels, Segment, Shared, filled, stretches};
use crate::kernels::scratch::with_scratch;
use crate::kernels::simd::Level;

/// Columns `(tap, channel)` of one task of the weight gradient.
const GRADIENT_COLUMNS: usize = 256;
/// Fewer rows of one task would be packed more often than used.
const GRADIENT_ROWS: usize = 112;
/// Tasks that share evenly on few cores; fixed, so that no sum depends on the number of threads.
const TASKS: usize = 8;

/// `dw` `[o, c, kh, kw]`: the gradient at the weight.
pub(crate) fn weight_gradient(
    level: Level,
    window: &Window,
    segments: &[Segment],
    (x, x_channels): (&[f32], Channels),
    (dy, dy_channels): (&[f32], Channels),
    dw: &mut [f32],
) {
    let outputs = window.outputs(segments);
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
        if !view.taps.len().is_multiple_of(view.run) || !first.is_multiple_of(view.run) {
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
