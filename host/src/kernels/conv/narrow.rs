//! Convolution of a map of few channels, such as an image.
//!
//! Under one row of the kernel an output cell reads `kw · c` floats that lie side by side, and the
//! next output cell those `stride · c` floats further on: a matrix whose rows overlap in memory. One
//! product for each row of the kernel reads the map in place; only its borders are copied, to be
//! followed by zeros. Sums run in the same order as over gathered columns.

use rayon::prelude::*;

use super::columns::{image_of, offsets};
use super::direct::{Epilogue, pack_weight};
use super::geometry::Window;
use crate::kernels::gemm::{self, Product, Rows, Start};
use crate::kernels::maps::{Segment, Shared, cells, stretches};
use crate::kernels::scratch::with_scratch;
use crate::kernels::simd::Level;

/// More floats under a row of the kernel are better gathered whole.
const MOST_FLOATS: usize = 64;
/// Output cells of one task.
const TASK_CELLS: usize = 2048;

/// Whether this is the faster way for a map of all `c` channels.
pub(crate) fn applies(window: &Window, c: usize) -> bool {
    window.dilation[1] == 1 && window.kernel[0] > 1 && c < 16 && window.kernel[1] * c <= MOST_FLOATS
}

/// `out = x ⋆ weight`; `weight` is `[o, c, kh, kw]`.
pub(crate) fn forward(
    level: Level,
    window: &Window,
    segments: &[Segment],
    (x, c): (&[f32], usize),
    weight: &[f32],
    epilogue: Epilogue<'_>,
    (out, o): (Shared, usize),
) {
    let outputs = window.outputs(segments);
    assert_eq!(out.len(), cells(&outputs) * o, "output of another size");
    let ([kh, kw], taps) = (window.kernel, window.taps());
    let weights: Vec<Vec<f32>> = (0..kh)
        .map(|ky| {
            let order: Vec<usize> = (ky * kw..(ky + 1) * kw).collect();
            pack_weight(weight, &order, [c, o], [taps, c * taps])
        })
        .collect();
    let (from, to) = (offsets(segments), offsets(&outputs));
    // Rows of the output stand for cells here: a task is some rows of one image.
    let rows: Vec<Segment> = outputs.iter().map(|s| Segment::new(s.n, s.h, 1)).collect();
    let widest = outputs.iter().map(|s| s.w).max().unwrap_or(1);
    let tasks = stretches(&rows, (TASK_CELLS / widest.max(1)).max(1));
    let bias = epilogue.bias.unwrap_or(&[]);
    assert!(
        bias.is_empty() || bias.len() == o,
        "one bias an output channel"
    );
    tasks.into_par_iter().for_each(|at| {
        let (source, grid) = (segments[at.segment], outputs[at.segment]);
        let image = image_of(x, source, from[at.segment], at.image, c);
        let reach = (kh - 1) * window.dilation[0] + 1;
        let lines = (at.len - 1) * window.stride[0] + reach;
        let pitch = (source.w + 2 * window.padding[1]) * c;
        with_scratch(lines * pitch, |padded| {
            let first =
                (at.start * window.stride[0]).cast_signed() - window.padding[0].cast_signed();
            for (y, line) in (first..).zip(padded.chunks_exact_mut(pitch)) {
                line.fill(0.0);
                if (0..source.h.cast_signed()).contains(&y) {
                    let from = &image[y.unsigned_abs() * source.w * c..][..source.w * c];
                    line[window.padding[1] * c..][..from.len()].copy_from_slice(from);
                }
            }
            for row in 0..at.len {
                let cell = to[at.segment] + (at.image * grid.h + at.start + row) * grid.w;
                for (ky, weight) in weights.iter().enumerate() {
                    let line = row * window.stride[0] + ky * window.dilation[0];
                    let line = &padded[line * pitch..][..pitch];
                    let step = window.stride[1] * c;
                    assert!((grid.w - 1) * step + kw * c <= line.len());
                    // SAFETY: the line was checked, the weight is packed for it, and this row of the
                    // output belongs to this task alone.
                    unsafe {
                        let product = Product {
                            m: grid.w,
                            n: o,
                            columns: 0..o,
                            k: kw * c,
                            a: line.as_ptr(),
                            rows: Rows::Strided(step),
                            b: weight.as_ptr(),
                            out: out.at(cell * o),
                            out_stride: o,
                            start: match ky {
                                0 if bias.is_empty() => Start::Zero,
                                0 => Start::Bias(bias.as_ptr()),
                                _ => Start::Out,
                            },
                            relu: epilogue.relu && ky + 1 == kh,
                        };
                        gemm::product(level, &product);
                    }
                }
            }
        });
    });
}
