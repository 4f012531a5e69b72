//! CPU kernels: row-tiled im2col and gemm on NCHW; a 1×1 convolution is a gemm on the input itself.
//!
//! Work is split by the geometry alone, never by the number of threads, and every task writes its
//! own part of the output, so the bits do not depend on the threads. Only the weight gradient adds
//! partial sums, in a fixed order.
#![expect(
    unsafe_code,
    reason = "gemm and disjoint writes from tasks take raw pointers"
)]

use burn::backend::TensorMetadata;
use burn::backend::ops::ConvOptions;
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use rayon::prelude::*;

/// Floats in the column buffer of one task (512 KiB): small enough for the second-level cache.
const COLUMN_FLOATS: usize = 128 * 1024;
/// Rows of the column matrix of one gradient task.
const GRADIENT_ROWS: usize = 128;

/// Extents of one convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    n: usize,
    c: usize,
    h: usize,
    w: usize,
    o: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    out_h: usize,
    out_w: usize,
}

impl Geometry {
    /// `None` where these kernels do not apply.
    pub(super) fn of(
        x: &FlexTensor,
        weight: &FlexTensor,
        options: &ConvOptions<2>,
    ) -> Option<Self> {
        let (xs, ws) = (x.shape(), weight.shape());
        if x.dtype() != DType::F32 || options.groups != 1 || options.is_asymmetric() {
            return None;
        }
        let padding = options.padding_begin();
        let out = |i: usize, axis: usize| {
            let reach = options.dilation[axis] * (ws[axis + 2] - 1) + 1;
            (i + 2 * padding[axis] - reach) / options.stride[axis] + 1
        };
        Some(Geometry {
            n: xs[0],
            c: xs[1],
            h: xs[2],
            w: xs[3],
            o: ws[0],
            kernel: [ws[2], ws[3]],
            stride: options.stride,
            padding,
            dilation: options.dilation,
            out_h: out(xs[2], 0),
            out_w: out(xs[3], 1),
        })
    }

    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    fn in_plane(&self) -> usize {
        self.h * self.w
    }

    fn out_plane(&self) -> usize {
        self.out_h * self.out_w
    }

    /// Output rows of one tile whose columns have `rows` rows.
    fn tile_rows(&self, rows: usize) -> usize {
        // Four tiles at least where there are rows for them: two cores share them evenly.
        (COLUMN_FLOATS / (rows * self.out_w)).clamp(1, self.out_h.div_ceil(4))
    }

    /// Input channels of one gradient task.
    fn channel_block(&self) -> usize {
        GRADIENT_ROWS.div_ceil(self.taps()).min(self.c)
    }

    /// Output columns for which the input column `x * stride + offset` exists.
    fn valid_columns(&self, offset: isize) -> (usize, usize) {
        let stride = self.stride[1];
        let low = if offset >= 0 {
            0
        } else {
            offset.unsigned_abs().div_ceil(stride)
        };
        let room = self.w as isize - offset;
        let high = if room <= 0 {
            0
        } else {
            room.unsigned_abs().div_ceil(stride).min(self.out_w)
        };
        (low.min(high), high)
    }

    /// The input row under output row `y` and kernel row `ky`, if it exists.
    fn input_row(&self, y: usize, ky: usize) -> Option<usize> {
        let row = (y * self.stride[0] + ky * self.dilation[0]).checked_sub(self.padding[0])?;
        (row < self.h).then_some(row)
    }

    fn column_offset(&self, kx: usize) -> isize {
        (kx * self.dilation[1]) as isize - self.padding[1] as isize
    }

    /// Copies the patches of channels `c0..c1`, output rows `y0..y1` of one image into
    /// `columns[(c, ky, kx)][(y, x)]`.
    fn im2col(
        &self,
        image: &[f32],
        c0: usize,
        c1: usize,
        y0: usize,
        y1: usize,
        columns: &mut [f32],
    ) {
        let width = (y1 - y0) * self.out_w;
        let mut rows = columns.chunks_exact_mut(width);
        for plane in image[c0 * self.in_plane()..c1 * self.in_plane()].chunks_exact(self.in_plane())
        {
            for ky in 0..self.kernel[0] {
                for kx in 0..self.kernel[1] {
                    let row = rows.next().expect("one row per channel and kernel cell");
                    let offset = self.column_offset(kx);
                    let (low, high) = self.valid_columns(offset);
                    for (y, out) in (y0..y1).zip(row.chunks_exact_mut(self.out_w)) {
                        let Some(iy) = self.input_row(y, ky) else {
                            out.fill(0.0);
                            continue;
                        };
                        out[..low].fill(0.0);
                        out[high..].fill(0.0);
                        if low == high {
                            continue;
                        }
                        let first = ((low * self.stride[1]) as isize + offset).unsigned_abs();
                        let input = &plane[iy * self.w + first..(iy + 1) * self.w];
                        if self.stride[1] == 1 {
                            out[low..high].copy_from_slice(&input[..high - low]);
                        } else {
                            let strided = input.iter().step_by(self.stride[1]);
                            out[low..high]
                                .iter_mut()
                                .zip(strided)
                                .for_each(|(o, i)| *o = *i);
                        }
                    }
                }
            }
        }
    }

    /// Adds `columns` back onto the planes they were taken from.
    fn col2im(&self, columns: &[f32], y0: usize, y1: usize, planes: &mut [f32]) {
        let width = (y1 - y0) * self.out_w;
        let mut rows = columns.chunks_exact(width);
        for plane in planes.chunks_exact_mut(self.in_plane()) {
            for ky in 0..self.kernel[0] {
                for kx in 0..self.kernel[1] {
                    let row = rows.next().expect("one row per channel and kernel cell");
                    let offset = self.column_offset(kx);
                    let (low, high) = self.valid_columns(offset);
                    if low == high {
                        continue;
                    }
                    let first = ((low * self.stride[1]) as isize + offset).unsigned_abs();
                    for (y, from) in (y0..y1).zip(row.chunks_exact(self.out_w)) {
                        let Some(iy) = self.input_row(y, ky) else {
                            continue;
                        };
                        let input = &mut plane[iy * self.w + first..(iy + 1) * self.w];
                        let from = from[low..high].iter();
                        if self.stride[1] == 1 {
                            input.iter_mut().zip(from).for_each(|(i, f)| *i += f);
                        } else {
                            let strided = input.iter_mut().step_by(self.stride[1]);
                            strided.zip(from).for_each(|(i, f)| *i += f);
                        }
                    }
                }
            }
        }
    }
}

/// A matrix in memory: element `(i, j)` at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    values: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl Matrix<'_> {
    fn check(&self, rows: usize, columns: usize) {
        let last = (rows - 1) * self.row_stride + (columns - 1) * self.column_stride;
        assert!(last < self.values.len(), "matrix exceeds its storage");
    }
}

fn row_major(values: &[f32], columns: usize) -> Matrix<'_> {
    Matrix {
        values,
        row_stride: columns,
        column_stride: 1,
    }
}

fn transposed(values: &[f32], rows: usize) -> Matrix<'_> {
    Matrix {
        values,
        row_stride: 1,
        column_stride: rows,
    }
}

/// Pointer that tasks share; each writes its own part.
#[derive(Clone, Copy)]
struct Shared(*mut f32);
// SAFETY: every use below writes disjoint ranges from different tasks.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// `start` must lie in the allocation.
    unsafe fn at(self, start: usize) -> *mut f32 {
        // SAFETY: the caller promises an offset inside the allocation.
        unsafe { self.0.add(start) }
    }
}

/// `out[m, n] (+)= a[m, k] · b[k, n]`; rows of `out` are `out_stride` apart.
///
/// # Safety
/// `out` must be valid for `(m - 1) * out_stride + n` floats that no other task touches.
unsafe fn gemm(
    [m, n, k]: [usize; 3],
    out: *mut f32,
    out_stride: usize,
    add: bool,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    a.check(m, k);
    b.check(k, n);
    // SAFETY: `a` and `b` were checked against their storage, `out` by the caller.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            out_stride as isize,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

fn tensor(values: Vec<f32>, shape: [usize; 4]) -> FlexTensor {
    let layout = Layout::contiguous(Shape::from(shape.to_vec()));
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}

/// Cells of one tile of a pointwise convolution.
fn pointwise_tile(channels: usize, plane: usize) -> usize {
    (COLUMN_FLOATS / channels).clamp(64, plane.div_ceil(4).max(64))
}

/// Applies `matrix` `[to, from]` to every cell: `out[n][to][s] = matrix · input[n][from][s]`.
fn pointwise(
    n: usize,
    plane: usize,
    from: usize,
    to: usize,
    matrix: Matrix<'_>,
    input: &[f32],
    out: &mut [f32],
) {
    let tile = pointwise_tile(from, plane);
    let tiles = plane.div_ceil(tile);
    let shared = Shared(out.as_mut_ptr());
    (0..n * tiles).into_par_iter().for_each(|task| {
        let (image, tile_index) = (task / tiles, task % tiles);
        let start = tile_index * tile;
        let len = tile.min(plane - start);
        let b = row_major(
            &input[image * from * plane + start..(image + 1) * from * plane],
            plane,
        );
        // SAFETY: the tile's columns of image `image` belong to this task alone.
        unsafe {
            let out = shared.at(image * to * plane + start);
            gemm([to, len, from], out, plane, false, matrix, b);
        }
    });
}

pub(super) fn forward(g: &Geometry, x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let (x, weight) = (x.to_contiguous(), weight.to_contiguous());
    let (xs, ws): (&[f32], &[f32]) = (x.storage(), weight.storage());
    let depth = g.c * g.taps();
    let mut out = vec![0.0f32; g.n * g.o * g.out_plane()];
    if g.is_pointwise() {
        pointwise(
            g.n,
            g.out_plane(),
            g.c,
            g.o,
            row_major(ws, g.c),
            xs,
            &mut out,
        );
    } else {
        let tile = g.tile_rows(depth);
        let tiles = g.out_h.div_ceil(tile);
        let shared = Shared(out.as_mut_ptr());
        (0..g.n * tiles).into_par_iter().for_each_init(
            || vec![0.0f32; depth * tile * g.out_w],
            |columns, task| {
                let (image, tile_index) = (task / tiles, task % tiles);
                let y0 = tile_index * tile;
                let y1 = (y0 + tile).min(g.out_h);
                let width = (y1 - y0) * g.out_w;
                let columns = &mut columns[..depth * width];
                let plane = g.c * g.in_plane();
                g.im2col(
                    &xs[image * plane..(image + 1) * plane],
                    0,
                    g.c,
                    y0,
                    y1,
                    columns,
                );
                let start = image * g.o * g.out_plane() + y0 * g.out_w;
                // SAFETY: rows `y0..y1` of image `image` belong to this task alone.
                unsafe {
                    let out = shared.at(start);
                    gemm(
                        [g.o, width, depth],
                        out,
                        g.out_plane(),
                        false,
                        row_major(ws, depth),
                        row_major(columns, width),
                    );
                }
            },
        );
    }
    tensor(out, [g.n, g.o, g.out_h, g.out_w])
}

pub(super) fn input_gradient(g: &Geometry, weight: FlexTensor, gradient: FlexTensor) -> FlexTensor {
    let (weight, gradient) = (weight.to_contiguous(), gradient.to_contiguous());
    let (ws, gs): (&[f32], &[f32]) = (weight.storage(), gradient.storage());
    let depth = g.c * g.taps();
    let mut out = vec![0.0f32; g.n * g.c * g.in_plane()];
    if g.is_pointwise() {
        pointwise(
            g.n,
            g.out_plane(),
            g.o,
            g.c,
            transposed(ws, g.c),
            gs,
            &mut out,
        );
        return tensor(out, [g.n, g.c, g.h, g.w]);
    }
    let block = g.channel_block();
    let tile = g.tile_rows(block * g.taps());
    let per_image = g.c.div_ceil(block);
    let blocks: Vec<(usize, usize, &mut [f32])> = out
        .chunks_mut(g.c * g.in_plane())
        .enumerate()
        .flat_map(|(image, planes)| {
            planes
                .chunks_mut(block * g.in_plane())
                .enumerate()
                .map(move |(i, p)| (image, i, p))
        })
        .collect();
    debug_assert_eq!(blocks.len(), g.n * per_image);
    blocks.into_par_iter().for_each_init(
        || vec![0.0f32; block * g.taps() * tile * g.out_w],
        |columns, (image, index, planes)| {
            let c0 = index * block;
            let rows = planes.len() / g.in_plane() * g.taps();
            for y0 in (0..g.out_h).step_by(tile) {
                let y1 = (y0 + tile).min(g.out_h);
                let width = (y1 - y0) * g.out_w;
                let columns = &mut columns[..rows * width];
                let a = Matrix {
                    values: &ws[c0 * g.taps()..],
                    row_stride: 1,
                    column_stride: depth,
                };
                let start = image * g.o * g.out_plane() + y0 * g.out_w;
                let b = row_major(&gs[start..(image + 1) * g.o * g.out_plane()], g.out_plane());
                // SAFETY: `columns` is this task's own and holds `rows * width` floats.
                unsafe { gemm([rows, width, g.o], columns.as_mut_ptr(), width, false, a, b) };
                g.col2im(columns, y0, y1, planes);
            }
        },
    );
    tensor(out, [g.n, g.c, g.h, g.w])
}

pub(super) fn weight_gradient(g: &Geometry, x: FlexTensor, gradient: FlexTensor) -> FlexTensor {
    let (x, gradient) = (x.to_contiguous(), gradient.to_contiguous());
    let (xs, gs): (&[f32], &[f32]) = (x.storage(), gradient.storage());
    let depth = g.c * g.taps();
    let block = g.channel_block();
    let blocks = g.c.div_ceil(block);
    // With few channels the images are split too, and their partial sums added in order.
    let parts = if blocks >= 4 { 1 } else { g.n.min(8) };
    let size = g.o * depth;
    let mut partial = vec![0.0f32; parts * size];
    let shared = Shared(partial.as_mut_ptr());
    let tile = g.tile_rows(block * g.taps());
    (0..parts * blocks).into_par_iter().for_each_init(
        || {
            vec![
                0.0f32;
                if g.is_pointwise() {
                    0
                } else {
                    block * g.taps() * tile * g.out_w
                }
            ]
        },
        |columns, task| {
            let (part, index) = (task / blocks, task % blocks);
            let c0 = index * block;
            let c1 = (c0 + block).min(g.c);
            let rows = (c1 - c0) * g.taps();
            // SAFETY: columns `c0..c1` of this part's matrix belong to this task alone.
            let out = unsafe { shared.at(part * size + c0 * g.taps()) };
            for image in (part..g.n).step_by(parts) {
                let input = &xs[image * g.c * g.in_plane()..(image + 1) * g.c * g.in_plane()];
                let upstream = &gs[image * g.o * g.out_plane()..(image + 1) * g.o * g.out_plane()];
                if g.is_pointwise() {
                    let plane = g.out_plane();
                    let b = transposed(&input[c0 * plane..c1 * plane], plane);
                    let a = row_major(upstream, plane);
                    // SAFETY: `out` as above.
                    unsafe { gemm([g.o, rows, plane], out, depth, true, a, b) };
                    continue;
                }
                for y0 in (0..g.out_h).step_by(tile) {
                    let y1 = (y0 + tile).min(g.out_h);
                    let width = (y1 - y0) * g.out_w;
                    let columns = &mut columns[..rows * width];
                    g.im2col(input, c0, c1, y0, y1, columns);
                    let a = row_major(&upstream[y0 * g.out_w..], g.out_plane());
                    let b = transposed(columns, width);
                    // SAFETY: `out` as above.
                    unsafe { gemm([g.o, rows, width], out, depth, true, a, b) };
                }
            }
        },
    );
    if parts > 1 {
        let (sum, rest) = partial.split_at_mut(size);
        for part in rest.chunks_exact(size) {
            sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
        partial.truncate(size);
    }
    tensor(partial, [g.o, g.c, g.kernel[0], g.kernel[1]])
}
