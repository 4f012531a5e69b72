//! The cells that a stretch of a grid reads, gathered into the rows of a column matrix.

use super::geometry::Gather;
use crate::kernels::maps::{Channels, Segment};

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
pub(crate) fn image_of(
    values: &[f32],
    segment: Segment,
    start: usize,
    image: usize,
    pitch: usize,
) -> &[f32] {
    let plane = segment.h * segment.w;
    &values[(start + image * plane) * pitch..(start + (image + 1) * plane) * pitch]
}

/// Writes the column matrix of a stretch of grid cells: row = cell, `[taps][channels]`.
pub(crate) fn gather(
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
