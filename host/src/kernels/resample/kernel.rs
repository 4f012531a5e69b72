//! Nearest-neighbour enlargement of channels-last maps, added to a finer map: the step of a feature
//! pyramid. Cell `i` of the finer map takes `floor(i * coarse / fine)`, as torch's `nearest`.

use rayon::prelude::*;

use crate::kernels::maps::{Segment, Shared};

/// Source of each cell along one axis.
fn sources(fine: usize, coarse: usize) -> Vec<usize> {
    (0..fine)
        .map(|i| (i * coarse / fine).min(coarse - 1))
        .collect()
}

/// `y = fine + enlarged(coarse)`.
pub(crate) fn upsample_add(
    fine: &[f32],
    coarse: &[f32],
    [to, from]: [Segment; 2],
    channels: usize,
    y: Shared,
) {
    assert!(fine.len() == to.cells() * channels);
    assert!(coarse.len() == from.cells() * channels && y.len() == to.cells() * channels);
    let (rows, columns) = (sources(to.h, from.h), sources(to.w, from.w));
    let width = to.w * channels;
    (0..to.n * to.h).into_par_iter().for_each(|task| {
        let (image, row) = (task / to.h, task % to.h);
        let start = (image * from.h + rows[row]) * from.w * channels;
        let coarse = &coarse[start..start + from.w * channels];
        // SAFETY: the row belongs to this task alone.
        let y = unsafe { y.slice(task * width, width) };
        let fine = &fine[task * width..(task + 1) * width];
        for ((y, fine), &source) in y
            .chunks_exact_mut(channels)
            .zip(fine.chunks_exact(channels))
            .zip(&columns)
        {
            let coarse = &coarse[source * channels..][..channels];
            for ((y, fine), coarse) in y.iter_mut().zip(fine).zip(coarse) {
                *y = fine + coarse;
            }
        }
    });
}

/// Gradient at the coarse map: the sum over the cells that took from each cell.
pub(crate) fn coarse_gradient(
    dy: &[f32],
    [to, from]: [Segment; 2],
    channels: usize,
    d_coarse: Shared,
) {
    assert!(dy.len() == to.cells() * channels && d_coarse.len() == from.cells() * channels);
    // Cells of the finer map that take from each cell: a range, since sources ascend.
    let takers = |sources: &[usize], coarse: usize| -> Vec<std::ops::Range<usize>> {
        (0..coarse)
            .map(|i| sources.partition_point(|&s| s < i)..sources.partition_point(|&s| s <= i))
            .collect()
    };
    let rows = takers(&sources(to.h, from.h), from.h);
    let columns = takers(&sources(to.w, from.w), from.w);
    let width = from.w * channels;
    (0..from.n * from.h).into_par_iter().for_each(|task| {
        let (image, row) = (task / from.h, task % from.h);
        // SAFETY: the row belongs to this task alone.
        let d_coarse = unsafe { d_coarse.slice(task * width, width) };
        d_coarse.fill(0.0);
        for y in rows[row].clone() {
            let dy = &dy[(image * to.h + y) * to.w * channels..][..to.w * channels];
            for (d_coarse, x) in d_coarse.chunks_exact_mut(channels).zip(&columns) {
                for dy in dy[x.start * channels..x.end * channels].chunks_exact(channels) {
                    for (d, dy) in d_coarse.iter_mut().zip(dy) {
                        *d += dy;
                    }
                }
            }
        }
    });
}
