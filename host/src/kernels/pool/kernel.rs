//! Max-pooling of channels-last maps: 3×3, stride 2, padding 1, the stem's.

use rayon::prelude::*;

use crate::kernels::maps::{Segment, Shared};
use crate::kernels::simd::{Level, Simd, simd_entry};

/// Extents of the result.
pub(crate) fn output(input: Segment) -> Segment {
    Segment::new(input.n, input.h.div_ceil(2), input.w.div_ceil(2))
}

/// The largest of each window, and which of its nine cells (row-major) it was: the first of equals,
/// as torch's. NaN is taken as torch takes it: the last one of a window wins.
pub(crate) fn max_pool(
    level: Level,
    x: &[f32],
    input: Segment,
    channels: usize,
    [y, place]: [Shared; 2],
) {
    let out = output(input);
    let row = out.w * channels;
    assert!(x.len() == input.cells() * channels);
    assert!(y.len() == out.cells() * channels && place.len() == y.len());
    (0..out.n * out.h).into_par_iter().for_each(|task| {
        let (image, oy) = (task / out.h, task % out.h);
        let image = &x[image * input.h * input.w * channels..][..input.h * input.w * channels];
        // SAFETY: the row belongs to this task alone.
        unsafe {
            let (y, place) = (y.at(task * row), place.at(task * row));
            pool_row(level, image, [input.h, input.w, oy, channels], y, place);
        }
    });
}

/// Cells of a window along one axis that exist, as offsets from `2 o - 1`.
fn window(o: usize, extent: usize) -> std::ops::Range<usize> {
    usize::from(o == 0)..3.min(extent + 1 - 2 * o)
}

simd_entry! {
    /// # Safety
    /// `y` and `place` are valid for a row of the output.
    unsafe fn pool_row(
        image: &[f32],
        extent: [usize; 4],
        y: *mut f32,
        place: *mut f32,
    ) = pool_row_at
}

/// # Safety
/// As [`Simd`] and [`pool_row`].
#[inline(always)]
unsafe fn pool_row_at<S: Simd>(
    image: &[f32],
    [h, w, oy, channels]: [usize; 4],
    y: *mut f32,
    place: *mut f32,
) {
    for ox in 0..w.div_ceil(2) {
        // SAFETY: cell `ox` of the row.
        let (y, place) = unsafe {
            let at = ox * channels;
            (
                std::slice::from_raw_parts_mut(y.add(at), channels),
                std::slice::from_raw_parts_mut(place.add(at), channels),
            )
        };
        y.fill(f32::NEG_INFINITY);
        let (rows, columns) = (window(oy, h), window(ox, w));
        place.fill((rows.start * 3 + columns.start) as f32);
        for ky in rows {
            for kx in columns.clone() {
                let cell = (2 * oy + ky - 1) * w + 2 * ox + kx - 1;
                let x = &image[cell * channels..][..channels];
                let number = (ky * 3 + kx) as f32;
                for ((y, place), &x) in y.iter_mut().zip(place.iter_mut()).zip(x) {
                    let better = x > *y || x.is_nan();
                    *y = if better { x } else { *y };
                    *place = if better { number } else { *place };
                }
            }
        }
    }
}

/// `dx`: every window's gradient goes to the cell it was taken from.
pub(crate) fn input_gradient(
    level: Level,
    [dy, place]: [&[f32]; 2],
    input: Segment,
    channels: usize,
    dx: Shared,
) {
    let out = output(input);
    assert!(dy.len() == out.cells() * channels && place.len() == dy.len());
    assert!(dx.len() == input.cells() * channels);
    let row = input.w * channels;
    let plane = out.h * out.w * channels;
    (0..input.n * input.h).into_par_iter().for_each(|task| {
        let (image, iy) = (task / input.h, task % input.h);
        let part = image * plane..(image + 1) * plane;
        // SAFETY: the row belongs to this task alone.
        unsafe {
            let dx = dx.at(task * row);
            let maps = [&dy[part.clone()], &place[part]];
            gradient_row(level, maps, [out.h, out.w], [iy, input.w, channels], dx);
        }
    });
}

/// Windows along one axis that see cell `i`, each with the place of the cell in it.
fn windows_of(i: usize, outputs: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    (i / 2..=i.div_ceil(2))
        .filter(move |&o| o < outputs)
        .map(move |o| (o, i + 1 - 2 * o))
}

simd_entry! {
    /// # Safety
    /// `dx` is valid for a row of the input.
    unsafe fn gradient_row(
        maps: [&[f32]; 2],
        out: [usize; 2],
        extent: [usize; 3],
        dx: *mut f32,
    ) = gradient_row_at
}

/// # Safety
/// As [`Simd`] and [`gradient_row`].
#[inline(always)]
unsafe fn gradient_row_at<S: Simd>(
    [dy, place]: [&[f32]; 2],
    [out_h, out_w]: [usize; 2],
    [iy, w, channels]: [usize; 3],
    dx: *mut f32,
) {
    for ix in 0..w {
        // SAFETY: cell `ix` of the row.
        let dx = unsafe { std::slice::from_raw_parts_mut(dx.add(ix * channels), channels) };
        dx.fill(0.0);
        for (oy, ky) in windows_of(iy, out_h) {
            for (ox, kx) in windows_of(ix, out_w) {
                let at = (oy * out_w + ox) * channels;
                let number = (ky * 3 + kx) as f32;
                let (dy, place) = (&dy[at..at + channels], &place[at..at + channels]);
                for ((dx, &dy), &place) in dx.iter_mut().zip(dy).zip(place) {
                    *dx += if place == number { dy } else { 0.0 };
                }
            }
        }
    }
}
