//! Matrix products of one task, on operands that the caller laid out: no allocation, no threads.
//!
//! `out[m, n] = start + Σ_k a[m, k] · b[k, n]`. `b` comes in panels of [`PANEL`] columns (see
//! [`packed_len`]), which a weight needs once a step; `a` is read where it lies, or from strips.
//! Each sum runs over `k` in ascending order with one accumulator, so a result does not depend on
//! how rows are split among tasks.

#[cfg(test)]
mod tests;

use std::ops::Range;

use super::simd::{Level, Simd, simd_entry};

/// Columns of a panel of `b`; two AVX-512 registers.
pub(crate) const PANEL: usize = 32;
/// Floats of the widest register.
const MOST_LANES: usize = 16;
/// Depth of a block: a panel of it (32 KiB) stays in the first-level cache.
pub(crate) const DEPTH: usize = 256;

/// What the sums start from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// Nothing.
    Zero,
    /// What `out` holds.
    Out,
    /// `n` floats, the same for every row.
    Bias(*const f32),
}

/// How `a` lies in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rows {
    /// Element `(m, k)` at `m * stride + k`.
    Strided(usize),
    /// Strips of `Level::tile_rows` rows, each `[k][row]`; as [`pack_strips`] writes them.
    Strips,
}

/// A product.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub(crate) m: usize,
    /// Columns of `b`.
    pub(crate) n: usize,
    /// Those that are wanted, from the start of a panel; the first is column 0 of `out`.
    pub(crate) columns: Range<usize>,
    pub(crate) k: usize,
    pub(crate) a: *const f32,
    pub(crate) rows: Rows,
    /// Panels; see [`packed_len`].
    pub(crate) b: *const f32,
    pub(crate) out: *mut f32,
    /// Floats from one row of `out` to the next.
    pub(crate) out_stride: usize,
    pub(crate) start: Start,
    /// Negative results become 0.
    pub(crate) relu: bool,
}

/// Floats of a packed `[k, n]` matrix: for each depth block, for each panel, `[depth][PANEL]`;
/// columns beyond `n` are 0.
pub(crate) fn packed_len(k: usize, n: usize) -> usize {
    k * n.next_multiple_of(PANEL)
}

/// Where row `k` of the panel of column `n` (its first) of a packed `[depth, columns]` matrix lies.
pub(crate) fn packed_at(depth: usize, columns: usize, k: usize, n: usize) -> usize {
    let (block, row) = (k / DEPTH * DEPTH, k % DEPTH);
    let rows = DEPTH.min(depth - block);
    block * columns.next_multiple_of(PANEL) + (n / PANEL * rows + row) * PANEL
}

/// Packs `b[k, n]`, whose rows are `stride` floats apart.
pub(crate) fn pack_panels(from: &[f32], [k, n]: [usize; 2], stride: usize, to: &mut [f32]) {
    let mut rest = &mut to[..packed_len(k, n)];
    for k0 in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - k0);
        for n0 in (0..n).step_by(PANEL) {
            let width = PANEL.min(n - n0);
            let (panel, tail) = rest.split_at_mut(depth * PANEL);
            rest = tail;
            let (rows, _) = panel.as_chunks_mut::<PANEL>();
            for (i, row) in rows.iter_mut().enumerate() {
                let from = &from[(k0 + i) * stride + n0..];
                // A copy of constant length is a few instructions, any other a call.
                if let (PANEL, Some(whole)) = (width, from.first_chunk::<PANEL>()) {
                    *row = *whole;
                } else {
                    row[..width].copy_from_slice(&from[..width]);
                    row[width..].fill(0.0);
                }
            }
        }
    }
}

/// Floats of the strips of an `[m, k]` matrix, and what writing the last one may touch.
pub(crate) fn strips_len(level: Level, m: usize, k: usize) -> usize {
    m.next_multiple_of(level.tile_rows()) * k + MOST_LANES
}

/// Packs `a[m, k]` whose element lies at `k * k_stride + m` (columns one after another) into strips
/// `[k][row]`; rows beyond `m` are 0.
pub(crate) fn pack_strips(
    level: Level,
    from: &[f32],
    [m, k]: [usize; 2],
    k_stride: usize,
    to: &mut [f32],
) {
    assert!(
        strips_len(level, m, k) <= to.len(),
        "strips for a smaller matrix"
    );
    assert!(
        m == 0 || k == 0 || (k - 1) * k_stride + m <= from.len(),
        "matrix exceeds its storage"
    );
    // SAFETY: checked.
    unsafe { write_strips(level, from.as_ptr(), [m, k], k_stride, to.as_mut_ptr()) };
}

simd_entry! {
    /// # Safety
    /// As [`pack_strips`], whose checks hold.
    unsafe fn write_strips(
        from: *const f32,
        extent: [usize; 2],
        k_stride: usize,
        to: *mut f32,
    ) = write_strips_at
}

/// # Safety
/// As [`Simd`] and [`write_strips`].
#[inline(always)]
unsafe fn write_strips_at<S: Simd>(
    from: *const f32,
    [m, k]: [usize; 2],
    k_stride: usize,
    to: *mut f32,
) {
    // SAFETY: passed on. A store may reach into what follows the row, which is written later.
    unsafe {
        let mut to = to;
        for m0 in (0..m).step_by(S::TILE_ROWS) {
            let width = S::TILE_ROWS.min(m - m0);
            for i in 0..k {
                let row = from.add(i * k_stride + m0);
                S::store(to, S::load_first(row, width.min(S::LANES)));
                to = to.add(S::TILE_ROWS);
            }
        }
    }
}

simd_entry! {
    /// Computes a product.
    ///
    /// # Safety
    /// The processor has `level`; the pointers of `product` are valid for what they describe, `out`
    /// for rows of `n` floats that nobody else touches.
    pub(crate) unsafe fn product(product: &Product) = product_at
}

/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn product_at<S: Simd>(p: &Product) {
    let panels = p.n.div_ceil(PANEL);
    // An empty sum still writes its start.
    let blocks = p.k.div_ceil(DEPTH).max(1);
    for block in 0..blocks {
        let k0 = block * DEPTH;
        let depth = DEPTH.min(p.k - k0);
        for n0 in p.columns.clone().step_by(2 * S::LANES) {
            let column = n0 - p.columns.start;
            let tile = Tile {
                depth,
                // SAFETY: column `n0 % PANEL` of panel `n0 / PANEL`, inside the packed matrix.
                b: unsafe {
                    let panel = (k0 * panels + n0 / PANEL * depth) * PANEL;
                    p.b.add(panel + n0 % PANEL)
                },
                out_stride: p.out_stride,
                width: (p.columns.end - n0).min(2 * S::LANES),
                start: match p.start {
                    _ if block > 0 => Start::Out,
                    // SAFETY: the bias has `n` floats.
                    Start::Bias(bias) => Start::Bias(unsafe { bias.add(column) }),
                    other => other,
                },
                relu: p.relu && block + 1 == blocks,
            };
            for m0 in (0..p.m).step_by(S::TILE_ROWS) {
                let rows = S::TILE_ROWS.min(p.m - m0);
                // SAFETY: rows `m0..m0 + rows` exist in `a` and `out`.
                unsafe {
                    let out = p.out.add(m0 * p.out_stride + column);
                    match p.rows {
                        Rows::Strided(stride) => {
                            rows_of::<S, false>(
                                rows,
                                &tile,
                                p.a.add(m0 * stride + k0),
                                stride,
                                out,
                            );
                        }
                        Rows::Strips => {
                            let strip = p.a.add(m0 * p.k + k0 * S::TILE_ROWS);
                            rows_of::<S, true>(rows, &tile, strip, 1, out);
                        }
                    }
                }
            }
        }
    }
}

/// What the register tiles of one panel have in common.
struct Tile {
    depth: usize,
    b: *const f32,
    out_stride: usize,
    width: usize,
    start: Start,
    relu: bool,
}

/// Rows that make no whole tile are done in powers of two.
///
/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn rows_of<S: Simd, const STRIPS: bool>(
    rows: usize,
    t: &Tile,
    a: *const f32,
    stride: usize,
    out: *mut f32,
) {
    // SAFETY: the rows exist; passed on.
    unsafe {
        if rows == 14 {
            return panel_of::<S, 14, STRIPS>(t, a, stride, out);
        }
        if rows == 6 && S::TILE_ROWS == 6 {
            return panel_of::<S, 6, STRIPS>(t, a, stride, out);
        }
        let mut row = 0;
        if rows & 8 != 0 {
            panel_of::<S, 8, STRIPS>(t, a, stride, out);
            row += 8;
        }
        if rows & 4 != 0 {
            let (a, out) = (a.add(row * stride), out.add(row * t.out_stride));
            panel_of::<S, 4, STRIPS>(t, a, stride, out);
            row += 4;
        }
        if rows & 2 != 0 {
            let (a, out) = (a.add(row * stride), out.add(row * t.out_stride));
            panel_of::<S, 2, STRIPS>(t, a, stride, out);
            row += 2;
        }
        if rows & 1 != 0 {
            let (a, out) = (a.add(row * stride), out.add(row * t.out_stride));
            panel_of::<S, 1, STRIPS>(t, a, stride, out);
        }
    }
}

/// # Safety
/// As [`product`].
#[inline(always)]
unsafe fn panel_of<S: Simd, const ROWS: usize, const STRIPS: bool>(
    t: &Tile,
    a: *const f32,
    stride: usize,
    out: *mut f32,
) {
    // SAFETY: passed on.
    unsafe {
        if t.width > S::LANES {
            tile::<S, ROWS, 2, STRIPS>(t, a, stride, out);
        } else {
            tile::<S, ROWS, 1, STRIPS>(t, a, stride, out);
        }
    }
}

/// Runs `$body` for `$i` in `0..$rows`, at most 14, and `$v` in `0..$vectors`, at most 2, with
/// constant indices: an array indexed by a loop variable would not stay in registers.
macro_rules! unrolled {
    ($i:ident < $rows:ident, $v:ident < $vectors:ident, $body:block) => {
        unrolled!(@rows $i $rows $v $vectors $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    ($i:ident < $rows:ident, $body:block) => {
        unrolled!(@row $i $rows $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    (@rows $i:ident $rows:ident $v:ident $vectors:ident $body:block $($row:literal)*) => {
        {$(if $row < $rows {
            const $i: usize = $row;
            {
                const $v: usize = 0;
                $body
            }
            if 1 < $vectors {
                const $v: usize = 1;
                $body
            }
        })*}
    };
    (@row $i:ident $rows:ident $body:block $($row:literal)*) => {
        {$(if $row < $rows {
            const $i: usize = $row;
            $body
        })*}
    };
}

/// # Safety
/// As [`product`]; `t.width` is at most `VECTORS` registers and more than `VECTORS - 1`.
#[inline(always)]
unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize, const STRIPS: bool>(
    t: &Tile,
    a: *const f32,
    stride: usize,
    out: *mut f32,
) {
    let last = t.width - (VECTORS - 1) * S::LANES;
    let whole = last == S::LANES;
    // SAFETY: loads stay in the panel, whose columns are padded, and in the rows of `a`; loads and
    // stores of `out` and bias are masked to `width`.
    unsafe {
        // Two columns at most; index 1 is unused with one.
        let mut sums = [[S::splat(0.0); 2]; 14];
        match t.start {
            Start::Zero => {}
            Start::Out => unrolled!(I < ROWS, V < VECTORS, {
                let from = out.add(I * t.out_stride + V * S::LANES);
                sums[I][V] = if V + 1 < VECTORS || whole {
                    S::load(from)
                } else {
                    S::load_first(from, last)
                };
            }),
            Start::Bias(bias) => unrolled!(I < ROWS, V < VECTORS, {
                let from = bias.add(V * S::LANES);
                sums[I][V] = if V + 1 < VECTORS || whole {
                    S::load(from)
                } else {
                    S::load_first(from, last)
                };
            }),
        }
        let (mut b, mut a) = (t.b, a);
        for _ in 0..t.depth {
            let left = S::load(b);
            let right = if VECTORS > 1 {
                S::load(b.add(S::LANES))
            } else {
                left
            };
            unrolled!(I < ROWS, {
                let x = S::splat(*a.add(if STRIPS { I } else { I * stride }));
                sums[I][0] = S::mul_add(x, left, sums[I][0]);
                if VECTORS > 1 {
                    sums[I][1] = S::mul_add(x, right, sums[I][1]);
                }
            });
            b = b.add(PANEL);
            a = a.add(if STRIPS { S::TILE_ROWS } else { 1 });
        }
        unrolled!(I < ROWS, V < VECTORS, {
            let sum = if t.relu {
                S::relu(sums[I][V])
            } else {
                sums[I][V]
            };
            let to = out.add(I * t.out_stride + V * S::LANES);
            if V + 1 < VECTORS || whole {
                S::store(to, sum);
            } else {
                S::store_first(to, sum, last);
            }
        });
    }
}
