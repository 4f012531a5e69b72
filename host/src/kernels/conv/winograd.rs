//! 3×3 convolutions of stride 1 and padding 1 by Winograd's F(4×4, 3×3) (arXiv 1509.09308).
//!
//! A tile of 4×4 outputs costs 36 products a channel pair instead of 144:
//! ```text
//! y  = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ x B) ] A        x: 6×6 inputs, w: 3×3, y: 4×4
//! dx = the same on dy, with w turned by 180° and its channels swapped
//! dw = Gᵀ [ Σ_tiles (A dy Aᵀ) ⊙ (Bᵀ x B) ] G
//! ```
//! The sum over channels (tiles for `dw`) is a matrix product for each of the 36 places.
//!
//! Interpolation points are 0, ±5/8, ±11/8 and ∞: exact in binary and spread evenly, so that the
//! error is about 1.5e-6 of the norm, five times that of a plain sum (0, ±1, ±2, ∞: ten times).

use std::ops::Range;

use rayon::prelude::*;

use super::direct::Epilogue;
use super::geometry::Window;
use super::winograd_tiles::{
    PLACES, gradient_tile, input_tile, input_tile_at, output_tile, weight_from_places,
    weight_places,
};
use crate::kernels::gemm::{
    self, PANEL, Product, Rows, Start, pack_panels, pack_strips, packed_len, strips_len,
};
use crate::kernels::maps::{Segment, Shared, cells, filled};
use crate::kernels::scratch::with_scratch;
use crate::kernels::simd::Level;

/// Rows and columns of outputs of a tile.
pub(crate) const TILE: usize = 4;
/// Fewer tiles do not pay for the transformed weights.
const FEWEST_TILES: usize = 6;
/// Fewer tiles do not pay for the transformed weight gradient, which is four times the weight.
const FEWEST_GRADIENT_TILES: usize = 32;
/// Narrower products do not pay for the transformed maps.
const FEWEST_CHANNELS: usize = 16;
/// Up to so many tiles the weights are the larger part, and every task transforms its own.
const FEW_TILES: usize = 256;
/// Floats of the transformed inputs of one task (3 MiB).
const TASK_FLOATS: usize = 768 * 1024;
/// Output channels that a task finishes together: their sums stay near the processor.
const TASK_CHANNELS: usize = 2 * PANEL;
/// Floats of the transformed maps of one round of the weight gradient (16 MiB).
const ROUND_FLOATS: usize = 4 * 1024 * 1024;

/// Whether this algorithm is the faster one for a convolution of `c` to `o` channels and for the
/// gradient at its input.
pub(crate) fn applies(window: &Window, segments: &[Segment], c: usize, o: usize) -> bool {
    *window == Window::square(3, 1, 1)
        && c.min(o) >= FEWEST_CHANNELS
        && num_tiles(segments) >= FEWEST_TILES
}

/// Whether it is for the gradient at its weight.
pub(crate) fn applies_to_weight(window: &Window, segments: &[Segment], c: usize, o: usize) -> bool {
    applies(window, segments, c, o) && num_tiles(segments) >= FEWEST_GRADIENT_TILES
}

fn num_tiles(segments: &[Segment]) -> usize {
    segments
        .iter()
        .map(|s| s.n * s.h.div_ceil(TILE) * s.w.div_ceil(TILE))
        .sum()
}

/// A tile: its map and the first of its cells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileAt {
    /// First cell of the image in the packed map.
    pub(crate) image: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) y: usize,
    pub(crate) x: usize,
}

/// All tiles, in the order of their maps.
fn tiles(segments: &[Segment]) -> Vec<TileAt> {
    let mut tiles = Vec::with_capacity(num_tiles(segments));
    let mut image = 0;
    for &Segment { n, h, w } in segments {
        for _ in 0..n {
            for y in (0..h).step_by(TILE) {
                tiles.extend((0..w).step_by(TILE).map(|x| TileAt { image, h, w, y, x }));
            }
            image += h * w;
        }
    }
    tiles
}

/// Transformed maps of some tiles: `[place][tile][channel]`.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Floats from one tile to the next; the channels are padded to whole vectors.
    pitch: usize,
    /// Floats from one place to the next; an odd number of cache lines, so that the 36 places of a
    /// tile do not fall into one cache set.
    place: usize,
}

impl Layout {
    fn new(tiles: usize, channels: usize) -> Self {
        let pitch = channels.next_multiple_of(16);
        // Rows that are a multiple of 2 KiB apart would share a cache set.
        let pitch = if pitch.is_multiple_of(512) {
            pitch + 16
        } else {
            pitch
        };
        let lines = tiles * pitch / 16;
        Layout {
            pitch,
            place: (lines | 1) * 16,
        }
    }

    fn len(&self) -> usize {
        PLACES * self.place
    }
}

/// Tiles of a task such that the work splits evenly among few cores.
fn tiles_of_task(tiles: usize, floats_of_tile: usize, most: usize) -> usize {
    let largest = (most / (PLACES * floats_of_tile)).max(14);
    let tasks = tiles.div_ceil(largest);
    let tasks = if tiles >= 4 * 14 {
        tasks.next_multiple_of(4)
    } else {
        tasks
    };
    tiles.div_ceil(tasks.max(1)).max(1)
}

/// `out = x ⋆ weight` (or, with `transposed`, the gradient at the input for `x` at the output).
/// `weight` is `[o, c, 3, 3]`, of which `c` (or `o`) belongs to `x`.
pub(crate) fn convolve(
    level: Level,
    segments: &[Segment],
    x: &[f32],
    weight: &[f32],
    [o, c]: [usize; 2],
    transposed: bool,
    epilogue: Epilogue<'_>,
    out: Shared,
) {
    let (k, n) = if transposed { (o, c) } else { (c, o) };
    let tiles = tiles(segments);
    assert_eq!(out.len(), cells(segments) * n, "output of another size");
    let weights = Weights {
        level,
        values: weight,
        c,
        transposed,
        k,
    };
    let zeros = vec![0.0f32; k];
    if tiles.len() <= FEW_TILES && n >= 4 * PANEL {
        return by_channels(&tiles, x, &zeros, &weights, n, epilogue, out);
    }
    let transformed = weights.all(n);
    let step = tiles_of_task(tiles.len(), k, TASK_FLOATS);
    tiles.par_chunks(step).for_each(|tiles| {
        let from = Layout::new(tiles.len(), k);
        let to = Layout::new(tiles.len(), n.min(TASK_CHANNELS));
        with_scratch(from.len() + to.len(), |scratch| {
            let (inputs, sums) = scratch.split_at_mut(from.len());
            for (number, at) in tiles.iter().enumerate() {
                let places = &mut inputs[number * from.pitch..];
                input_tile(level, at, x, k, &zeros, places, from.place);
            }
            for n0 in (0..n).step_by(TASK_CHANNELS) {
                let part = n0..(n0 + TASK_CHANNELS).min(n);
                let weights = (&transformed[..], n, part.clone());
                products(level, tiles.len(), k, (inputs, from), weights, (sums, to));
                for (number, at) in tiles.iter().enumerate() {
                    let places = &sums[number * to.pitch..];
                    let part = (n, part.clone());
                    // SAFETY: the cells of a tile belong to it alone.
                    unsafe { output_tile(level, at, places, to.place, part, epilogue, out) };
                }
            }
        });
    });
}

/// All tiles are transformed first; then a task takes some output channels of all tiles, with
/// weights that it transforms itself and that never leave its cache for long.
fn by_channels(
    tiles: &[TileAt],
    x: &[f32],
    zeros: &[f32],
    weights: &Weights<'_>,
    n: usize,
    epilogue: Epilogue<'_>,
    out: Shared,
) {
    let (level, k) = (weights.level, weights.k);
    let from = Layout::new(tiles.len(), k);
    let width = if n >= 4 * TASK_CHANNELS {
        TASK_CHANNELS
    } else {
        PANEL
    };
    let to = Layout::new(tiles.len(), width);
    let mut inputs = vec![0.0f32; from.len()];
    let shared = Shared::new(&mut inputs);
    tiles.par_chunks(8).enumerate().for_each(|(group, tiles)| {
        for (i, at) in tiles.iter().enumerate() {
            // SAFETY: the row of this tile, in every place, belongs to this task alone.
            unsafe {
                let places = shared.at((group * 8 + i) * from.pitch);
                input_tile_at(level, at, x, k, zeros, places, from.place);
            }
        }
    });
    (0..n.div_ceil(width)).into_par_iter().for_each(|task| {
        let part = task * width..((task + 1) * width).min(n);
        let len = PLACES * packed_len(k, part.len());
        with_scratch(len + to.len(), |scratch| {
            let (transformed, sums) = scratch.split_at_mut(len);
            let own = Shared::new(transformed);
            for n0 in part.clone().step_by(PANEL) {
                let column = n0 - part.start;
                // SAFETY: the scratch is this task's own.
                unsafe {
                    weights.panel(n0..part.end.min(n0 + PANEL), 0..k, own, column, part.len())
                };
            }
            let own = (&transformed[..], part.len(), 0..part.len());
            products(level, tiles.len(), k, (&inputs, from), own, (sums, to));
            for (number, at) in tiles.iter().enumerate() {
                let places = &sums[number * to.pitch..];
                let part = (n, part.clone());
                // SAFETY: these channels of a tile's cells belong to this task alone.
                unsafe { output_tile(level, at, places, to.place, part, epilogue, out) };
            }
        });
    });
}

/// The product of every place: `sums = inputs · weights[.., part]`. `weights` are `[k, n]` packed,
/// one after another.
fn products(
    level: Level,
    tiles: usize,
    k: usize,
    (inputs, from): (&[f32], Layout),
    (weights, n, part): (&[f32], usize, Range<usize>),
    (sums, to): (&mut [f32], Layout),
) {
    assert!(inputs.len() >= from.len() && sums.len() >= to.len());
    assert!(weights.len() >= PLACES * packed_len(k, n));
    for place in 0..PLACES {
        // SAFETY: checked: the places of these tiles and weights.
        unsafe {
            let product = Product {
                m: tiles,
                n,
                columns: part.clone(),
                k,
                a: inputs.as_ptr().add(place * from.place),
                rows: Rows::Strided(from.pitch),
                b: weights.as_ptr().add(place * packed_len(k, n)),
                out: sums.as_mut_ptr().add(place * to.place),
                out_stride: to.pitch,
                start: Start::Zero,
                relu: false,
            };
            gemm::product(level, &product);
        }
    }
}

/// A weight `[o, c, 3, 3]` on its way to `G w Gᵀ`.
struct Weights<'a> {
    level: Level,
    values: &'a [f32],
    c: usize,
    /// Turned by 180°, with the roles of `o` and `c` swapped.
    transposed: bool,
    /// Channels that are summed over.
    k: usize,
}

impl Weights<'_> {
    /// Every place, packed as the right side of a product: `[place][packed k, n]`.
    fn all(&self, n: usize) -> Vec<f32> {
        // A task is some rows of one panel: rows share cache lines of the weight.
        const ROWS: usize = 32;
        let blocks = self.k.div_ceil(ROWS);
        let write = |places: Shared| {
            (0..n.div_ceil(PANEL) * blocks)
                .into_par_iter()
                .for_each(|task| {
                    let (n0, row) = (task / blocks * PANEL, task % blocks * ROWS);
                    let rows = row..(row + ROWS).min(self.k);
                    // SAFETY: these rows of this panel belong to this task alone, in every place.
                    unsafe { self.panel(n0..n.min(n0 + PANEL), rows, places, n0, n) };
                });
        };
        // SAFETY: the tasks cover all rows and panels of every place.
        unsafe { filled(PLACES * packed_len(self.k, n), write) }
    }

    /// Some rows of the panel of `columns`, to the panel of column `at` of packed matrices of `n`.
    ///
    /// # Safety
    /// Nobody else touches these rows of that panel; `to` holds every place.
    unsafe fn panel(
        &self,
        columns: Range<usize>,
        rows: Range<usize>,
        to: Shared,
        at: usize,
        n: usize,
    ) {
        for row in rows {
            let mut taps = [[0.0f32; PANEL]; 9];
            for (lane, column) in columns.clone().enumerate() {
                let (o, i) = if self.transposed {
                    (row, column)
                } else {
                    (column, row)
                };
                let kernel = &self.values[(o * self.c + i) * 9..][..9];
                for (tap, &value) in kernel.iter().enumerate() {
                    taps[if self.transposed { 8 - tap } else { tap }][lane] = value;
                }
            }
            // SAFETY: the caller's promise.
            unsafe {
                let place = to.at(gemm::packed_at(self.k, n, row, at));
                weight_places(self.level, &taps, place, packed_len(self.k, n));
            }
        }
    }
}

/// `dw` `[o, c, 3, 3]`.
pub(crate) fn weight_gradient(
    level: Level,
    segments: &[Segment],
    x: &[f32],
    dy: &[f32],
    [o, c]: [usize; 2],
    dw: &mut [f32],
) {
    let tiles = tiles(segments);
    let pitch = c.next_multiple_of(16);
    let mut sums = vec![0.0f32; PLACES * o * pitch];
    let zeros = vec![0.0f32; c.max(o)];
    let round = tiles_of_task(tiles.len(), c + o, ROUND_FLOATS).min(gemm::DEPTH);
    let largest = round.min(tiles.len());
    let (of_x, of_dy) = (Layout::new(largest, c), Layout::new(largest, o));
    let mut maps = vec![0.0f32; of_x.len() + of_dy.len()];
    let (inputs, upstream) = maps.split_at_mut(of_x.len());
    for (number, tiles) in tiles.chunks(round).enumerate() {
        let (to_x, to_dy) = (Shared::new(inputs), Shared::new(upstream));
        tiles.par_chunks(8).enumerate().for_each(|(group, tiles)| {
            for (i, at) in tiles.iter().enumerate() {
                let tile = group * 8 + i;
                // SAFETY: row `tile` of every place belongs to this task alone.
                unsafe {
                    let places = (to_x.at(tile * of_x.pitch), to_dy.at(tile * of_dy.pitch));
                    input_tile_at(level, at, x, c, &zeros, places.0, of_x.place);
                    gradient_tile(level, at, dy, o, &zeros, places.1, of_dy.place);
                }
            }
        });
        sums.par_chunks_mut(o * pitch)
            .enumerate()
            .for_each(|(place, sums)| {
                let (x, dy) = (
                    &inputs[place * of_x.place..],
                    &upstream[place * of_dy.place..],
                );
                let sizes = [
                    strips_len(level, o, tiles.len()),
                    packed_len(tiles.len(), c),
                ];
                with_scratch(sizes[0] + sizes[1], |scratch| {
                    let (strips, panels) = scratch.split_at_mut(sizes[0]);
                    pack_strips(level, dy, [o, tiles.len()], of_dy.pitch, strips);
                    pack_panels(x, [tiles.len(), c], of_x.pitch, panels);
                    // SAFETY: the operands were packed for these extents, `sums` is `[o][pitch]`.
                    unsafe {
                        let product = Product {
                            m: o,
                            n: c,
                            columns: 0..c,
                            k: tiles.len(),
                            a: strips.as_ptr(),
                            rows: Rows::Strips,
                            b: panels.as_ptr(),
                            out: sums.as_mut_ptr(),
                            out_stride: pitch,
                            start: if number == 0 { Start::Zero } else { Start::Out },
                            relu: false,
                        };
                        gemm::product(level, &product);
                    }
                });
            });
    }
    dw.par_chunks_mut(c * 9).enumerate().for_each(|(row, dw)| {
        weight_from_places(level, &sums[row * pitch..], o * pitch, c, dw);
    });
}
