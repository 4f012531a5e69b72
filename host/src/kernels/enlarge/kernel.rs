//! Rows first, then columns: each task makes one row of the result in working memory of its own.

use rayon::prelude::*;

use super::Enlargement;
use crate::kernels::bilinear::{Axis, Tap};
use crate::kernels::maps::Shared;
use crate::kernels::scratch::with_scratch;

/// `y = enlarged(x)`.
pub(crate) fn enlarge(x: &[f32], shape: Enlargement, channels: usize, y: Shared) {
    let Enlargement { from, to, .. } = shape;
    assert!(from.n == to.n, "as many images");
    assert!(x.len() == from.cells() * channels && y.len() == to.cells() * channels);
    let [rows, columns] = shape.axes();
    let (coarse, fine) = (from.w * channels, to.w * channels);
    (0..to.n * to.h).into_par_iter().for_each(|task| {
        let (image, row) = (task / to.h, task % to.h);
        let of_image = |row: usize| &x[(image * from.h + row) * coarse..][..coarse];
        // SAFETY: the row belongs to this task alone.
        let y = unsafe { y.slice(task * fine, fine) };
        let Tap { low, high, weight } = rows.taps[row];
        if weight == 0.0 {
            spread(of_image(low), &columns, channels, y);
            return;
        }
        with_scratch(coarse, |between| {
            blend(of_image(low), of_image(high), weight, between);
            spread(between, &columns, channels, y);
        });
    });
}

/// Cells of a row read at the places of `columns`.
fn spread(row: &[f32], columns: &Axis, channels: usize, y: &mut [f32]) {
    for (y, tap) in y.chunks_exact_mut(channels).zip(&columns.taps) {
        let low = &row[tap.low * channels..][..channels];
        if tap.weight == 0.0 {
            y.copy_from_slice(low);
        } else {
            blend(low, &row[tap.high * channels..][..channels], tap.weight, y);
        }
    }
}

fn blend(low: &[f32], high: &[f32], weight: f32, out: &mut [f32]) {
    let rest = 1.0 - weight;
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = rest * low + weight * high;
    }
}

/// Gradient at the map that was enlarged: each of its cells takes from those that read it.
pub(crate) fn input_gradient(dy: &[f32], shape: Enlargement, channels: usize, dx: Shared) {
    let Enlargement { from, to, .. } = shape;
    assert!(dy.len() == to.cells() * channels && dx.len() == from.cells() * channels);
    let [rows, columns] = shape.axes().map(|axis| readers(&axis));
    let (coarse, fine) = (from.w * channels, to.w * channels);
    (0..from.n * from.h).into_par_iter().for_each(|task| {
        let (image, row) = (task / from.h, task % from.h);
        // SAFETY: the row belongs to this task alone.
        let dx = unsafe { dx.slice(task * coarse, coarse) };
        with_scratch(fine, |between| {
            between.fill(0.0);
            for &(y, weight) in &rows[row] {
                add(&dy[(image * to.h + y) * fine..][..fine], weight, between);
            }
            dx.fill(0.0);
            for (dx, readers) in dx.chunks_exact_mut(channels).zip(&columns) {
                for &(x, weight) in readers {
                    add(&between[x * channels..][..channels], weight, dx);
                }
            }
        });
    });
}

fn add(values: &[f32], weight: f32, sum: &mut [f32]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += weight * value;
    }
}

/// For each coarse cell the fine cells that read it, ascending, and with what weight.
fn readers(axis: &Axis) -> Vec<Vec<(usize, f32)>> {
    let mut readers = vec![Vec::new(); axis.coarse];
    for (i, &Tap { low, high, weight }) in axis.taps.iter().enumerate() {
        readers[low].push((i, 1.0 - weight));
        if weight != 0.0 {
            readers[high].push((i, weight));
        }
    }
    readers
}
