//! The transforms of one tile, channels across the vector.

use std::ops::Range;

use super::direct::Epilogue;
use super::winograd::{TILE, TileAt};
use super::winograd_transforms::{of_gradient, of_input, of_output, of_weight, to_weight};
use crate::kernels::gemm::PANEL;
use crate::kernels::maps::Shared;
use crate::kernels::simd::{Level, Simd, simd_entry};

/// Products of a tile and channel pair.
pub(crate) const PLACES: usize = 36;

/// One column of a small matrix of vectors.
#[inline(always)]
fn column_of<V: Copy, const W: usize, const H: usize>(rows: &[[V; W]; H], column: usize) -> [V; H] {
    let mut out = [rows[0][column]; H];
    for (out, row) in out.iter_mut().zip(rows) {
        *out = row[column];
    }
    out
}

/// Pointers to the cells `(y0.., x0..)` of a map, `zeros` where there is none.
#[inline(always)]
fn cells_of<const N: usize>(
    at: &TileAt,
    [y0, x0]: [isize; 2],
    map: &[f32],
    channels: usize,
    zeros: &[f32],
) -> [[*const f32; N]; N] {
    assert!(zeros.len() >= channels && (at.image + at.h * at.w) * channels <= map.len());
    let mut cells = [[zeros.as_ptr(); N]; N];
    for (i, row) in cells.iter_mut().enumerate() {
        let y = y0 + i.cast_signed();
        if y < 0 || y >= at.h.cast_signed() {
            continue;
        }
        for (j, cell) in row.iter_mut().enumerate() {
            let x = x0 + j.cast_signed();
            if x >= 0 && x < at.w.cast_signed() {
                let index = at.image + y.unsigned_abs() * at.w + x.unsigned_abs();
                *cell = map[index * channels..].as_ptr();
            }
        }
    }
    cells
}

/// Writes `Bᵀ x B` of the 6×6 inputs of a tile: place `p` at `places[p * stride..]`.
pub(crate) fn input_tile(
    level: Level,
    at: &TileAt,
    x: &[f32],
    channels: usize,
    zeros: &[f32],
    places: &mut [f32],
    stride: usize,
) {
    assert!((PLACES - 1) * stride + channels.next_multiple_of(16) <= places.len());
    // SAFETY: checked.
    unsafe { input_tile_at(level, at, x, channels, zeros, places.as_mut_ptr(), stride) };
}

/// As [`input_tile`].
///
/// # Safety
/// `places` is valid for the padded channels of 36 places that nobody else touches.
pub(crate) unsafe fn input_tile_at(
    level: Level,
    at: &TileAt,
    x: &[f32],
    channels: usize,
    zeros: &[f32],
    places: *mut f32,
    stride: usize,
) {
    let first = [at.y.cast_signed() - 1, at.x.cast_signed() - 1];
    let cells = cells_of::<6>(at, first, x, channels, zeros);
    // SAFETY: the cells have `channels` floats each; `places` is the caller's promise.
    unsafe { input_places(level, &cells, channels, places, stride) };
}

simd_entry! {
    /// # Safety
    /// Cells are valid for `channels` floats, 36 places for them padded to 16.
    unsafe fn input_places(
        cells: &[[*const f32; 6]; 6],
        channels: usize,
        places: *mut f32,
        stride: usize,
    ) = input_places_at
}

/// # Safety
/// As [`Simd`] and [`input_places`].
#[inline(always)]
unsafe fn input_places_at<S: Simd>(
    cells: &[[*const f32; 6]; 6],
    channels: usize,
    places: *mut f32,
    stride: usize,
) {
    // SAFETY: passed on.
    unsafe {
        for c in (0..channels).step_by(S::LANES) {
            let n = channels - c;
            let mut rows = [[S::splat(0.0); 6]; 6];
            for (row, cells) in rows.iter_mut().zip(cells) {
                let [x0, x1, x2, x3, x4, x5] = *cells;
                *row = of_input::<S>([
                    S::load_upto(x0.add(c), n),
                    S::load_upto(x1.add(c), n),
                    S::load_upto(x2.add(c), n),
                    S::load_upto(x3.add(c), n),
                    S::load_upto(x4.add(c), n),
                    S::load_upto(x5.add(c), n),
                ]);
            }
            for column in 0..6 {
                let out = of_input::<S>(column_of(&rows, column));
                for (row, value) in out.into_iter().enumerate() {
                    S::store(places.add((row * 6 + column) * stride + c), value);
                }
            }
        }
    }
}

/// Writes `A dy Aᵀ` of the 4×4 outputs of a tile.
///
/// # Safety
/// As [`input_tile_at`].
pub(crate) unsafe fn gradient_tile(
    level: Level,
    at: &TileAt,
    dy: &[f32],
    channels: usize,
    zeros: &[f32],
    places: *mut f32,
    stride: usize,
) {
    let first = [at.y.cast_signed(), at.x.cast_signed()];
    let cells = cells_of::<4>(at, first, dy, channels, zeros);
    // SAFETY: the cells have `channels` floats each; `places` is the caller's promise.
    unsafe { gradient_places(level, &cells, channels, places, stride) };
}

simd_entry! {
    /// # Safety
    /// As [`input_places`].
    unsafe fn gradient_places(
        cells: &[[*const f32; 4]; 4],
        channels: usize,
        places: *mut f32,
        stride: usize,
    ) = gradient_places_at
}

/// # Safety
/// As [`Simd`] and [`input_places`].
#[inline(always)]
unsafe fn gradient_places_at<S: Simd>(
    cells: &[[*const f32; 4]; 4],
    channels: usize,
    places: *mut f32,
    stride: usize,
) {
    // SAFETY: passed on.
    unsafe {
        for c in (0..channels).step_by(S::LANES) {
            let n = channels - c;
            let mut rows = [[S::splat(0.0); 6]; 4];
            for (row, cells) in rows.iter_mut().zip(cells) {
                let [x0, x1, x2, x3] = *cells;
                *row = of_gradient::<S>([
                    S::load_upto(x0.add(c), n),
                    S::load_upto(x1.add(c), n),
                    S::load_upto(x2.add(c), n),
                    S::load_upto(x3.add(c), n),
                ]);
            }
            for column in 0..6 {
                let out = of_gradient::<S>(column_of(&rows, column));
                for (row, value) in out.into_iter().enumerate() {
                    S::store(places.add((row * 6 + column) * stride + c), value);
                }
            }
        }
    }
}

/// Writes `Aᵀ m A` to `part` of the channels of the cells of a tile that exist.
///
/// # Safety
/// `out` is a map of `channels`; the cells of the tile belong to the caller alone.
pub(crate) unsafe fn output_tile(
    level: Level,
    at: &TileAt,
    places: &[f32],
    stride: usize,
    (channels, part): (usize, Range<usize>),
    epilogue: Epilogue<'_>,
    out: Shared,
) {
    assert!((PLACES - 1) * stride + part.len().next_multiple_of(16) <= places.len());
    assert!(part.end <= channels);
    if let Some(bias) = epilogue.bias {
        assert_eq!(bias.len(), channels, "one bias an output channel");
    }
    let to = Cells {
        // SAFETY: the caller's promise.
        first: unsafe { out.at((at.image + at.y * at.w + at.x) * channels + part.start) },
        pitch: channels,
        row: at.w * channels,
        h: TILE.min(at.h - at.y),
        w: TILE.min(at.w - at.x),
        channels: part.len(),
    };
    let bias = epilogue
        .bias
        .map_or(std::ptr::null(), |bias| bias[part].as_ptr());
    // SAFETY: `places` was checked, `to` are the tile's own cells.
    unsafe { output_cells(level, places.as_ptr(), stride, bias, epilogue.relu, &to) };
}

/// Cells `h` by `w` of a map.
struct Cells {
    first: *mut f32,
    /// Floats from one cell to the next.
    pitch: usize,
    /// Floats from one row to the next.
    row: usize,
    h: usize,
    w: usize,
    channels: usize,
}

simd_entry! {
    /// # Safety
    /// 36 places are valid for the channels padded to 16, `bias` (null for none) for the channels.
    unsafe fn output_cells(
        places: *const f32,
        stride: usize,
        bias: *const f32,
        relu: bool,
        to: &Cells,
    ) = output_cells_at
}

/// # Safety
/// As [`Simd`] and [`output_cells`].
#[inline(always)]
unsafe fn output_cells_at<S: Simd>(
    places: *const f32,
    stride: usize,
    bias: *const f32,
    relu: bool,
    to: &Cells,
) {
    // SAFETY: passed on.
    unsafe {
        for c in (0..to.channels).step_by(S::LANES) {
            let n = to.channels - c;
            let start = if bias.is_null() {
                S::splat(0.0)
            } else {
                S::load_upto(bias.add(c), n)
            };
            let mut rows = [[S::splat(0.0); 4]; 6];
            for (i, row) in rows.iter_mut().enumerate() {
                let from = places.add(i * 6 * stride + c);
                *row = of_output::<S>([
                    S::load(from),
                    S::load(from.add(stride)),
                    S::load(from.add(2 * stride)),
                    S::load(from.add(3 * stride)),
                    S::load(from.add(4 * stride)),
                    S::load(from.add(5 * stride)),
                ]);
            }
            for column in 0..to.w {
                let out = of_output::<S>(column_of(&rows, column));
                for (row, value) in out.into_iter().enumerate().take(to.h) {
                    let value = S::add(value, start);
                    let value = if relu { S::relu(value) } else { value };
                    let cell = to.first.add(row * to.row + column * to.pitch + c);
                    S::store_upto(cell, value, n);
                }
            }
        }
    }
}

simd_entry! {
    /// Writes `G w Gᵀ` of a panel's columns: place `p` at `to + p * stride`.
    ///
    /// # Safety
    /// 36 places are valid for a panel's row.
    pub(crate) unsafe fn weight_places(
        taps: &[[f32; PANEL]; 9],
        to: *mut f32,
        stride: usize,
    ) = weight_places_at
}

/// # Safety
/// As [`Simd`] and [`weight_places`].
#[inline(always)]
unsafe fn weight_places_at<S: Simd>(taps: &[[f32; PANEL]; 9], to: *mut f32, stride: usize) {
    // SAFETY: passed on; a panel is a whole number of vectors.
    unsafe {
        for c in (0..PANEL).step_by(S::LANES) {
            let mut rows = [[S::splat(0.0); 6]; 3];
            for (i, row) in rows.iter_mut().enumerate() {
                let [a, b, d] = [0, 1, 2].map(|j| taps[i * 3 + j].as_ptr());
                *row = of_weight::<S>([S::load(a.add(c)), S::load(b.add(c)), S::load(d.add(c))]);
            }
            for column in 0..6 {
                let out = of_weight::<S>(column_of(&rows, column));
                for (row, value) in out.into_iter().enumerate() {
                    S::store(to.add((row * 6 + column) * stride + c), value);
                }
            }
        }
    }
}

/// Writes `Gᵀ s G` for the `channels` of one output channel: `dw` is `[channels, 3, 3]`.
pub(crate) fn weight_from_places(
    level: Level,
    sums: &[f32],
    stride: usize,
    channels: usize,
    dw: &mut [f32],
) {
    assert!((PLACES - 1) * stride + channels.next_multiple_of(16) <= sums.len());
    assert_eq!(dw.len(), channels * 9, "one kernel a channel");
    // SAFETY: checked.
    unsafe { weight_sums(level, sums.as_ptr(), stride, channels, dw.as_mut_ptr()) };
}

simd_entry! {
    /// # Safety
    /// 36 places are valid for the channels padded to 16, `dw` for `channels` kernels.
    unsafe fn weight_sums(
        sums: *const f32,
        stride: usize,
        channels: usize,
        dw: *mut f32,
    ) = weight_sums_at
}

/// # Safety
/// As [`Simd`] and [`weight_sums`].
#[inline(always)]
unsafe fn weight_sums_at<S: Simd>(sums: *const f32, stride: usize, channels: usize, dw: *mut f32) {
    // SAFETY: passed on.
    unsafe {
        for c in (0..channels).step_by(S::LANES) {
            let mut rows = [[S::splat(0.0); 3]; 6];
            for (i, row) in rows.iter_mut().enumerate() {
                let from = sums.add(i * 6 * stride + c);
                *row = to_weight::<S>([
                    S::load(from),
                    S::load(from.add(stride)),
                    S::load(from.add(2 * stride)),
                    S::load(from.add(3 * stride)),
                    S::load(from.add(4 * stride)),
                    S::load(from.add(5 * stride)),
                ]);
            }
            let mut taps = [[0.0f32; 16]; 9];
            for column in 0..3 {
                let out = to_weight::<S>(column_of(&rows, column));
                for (row, value) in out.into_iter().enumerate() {
                    S::store(taps[row * 3 + column].as_mut_ptr(), value);
                }
            }
            for channel in 0..S::LANES.min(channels - c) {
                for (tap, values) in taps.iter().enumerate() {
                    *dw.add((c + channel) * 9 + tap) = values[channel];
                }
            }
        }
    }
}
