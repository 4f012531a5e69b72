//! Antialiased bilinear resize of 8-bit RGB, equal to Pillow's `BILINEAR` to the bit.
//!
//! Two passes, mostly columns then rows, with weights in fixed point and bytes between the passes: what
//! Pillow does, so that an image prepared there and one prepared here are the same.

use super::RgbPixels;

/// Fraction bits of a weight: a sum of weights times bytes, and a sign, fit 32 bits.
const PRECISION_BITS: u32 = 32 - 8 - 2;
/// Rows that the first pass takes side by side.
const ROWS: usize = 8;
/// Bytes of a pixel between the passes' loads and stores: moved as one word.
const WORD: usize = 4;
/// Bytes weighed at once.
const LANES: usize = ROWS * WORD;

/// Resizes to `[height, width]`, both positive.
///
/// # Panics
/// If `pixels.data` does not have the size that is stated.
#[must_use]
pub fn resize(pixels: &RgbPixels, size: [usize; 2]) -> RgbPixels {
    let [height, width] = pixels.size;
    let bytes = height * width * 3;
    assert_eq!(pixels.data.len(), bytes, "pixels fill their size");
    let data = match (size[0] == height, size[1] == width) {
        (true, true) => pixels.data.clone(),
        (true, false) => resize_columns(&pixels.data, width, size[1]),
        (false, true) => resize_rows(&pixels.data, height, size[0]),
        (false, false) if rows_first(pixels.size, size) => {
            let rows = resize_rows(&pixels.data, height, size[0]);
            resize_columns(&rows, width, size[1])
        }
        (false, false) => {
            let columns = resize_columns(&pixels.data, width, size[1]);
            resize_rows(&columns, height, size[0])
        }
    };
    RgbPixels { size, data }
}

/// Whether Pillow 13 resizes along columns before along rows, as it does where rows get fewer and
/// columns do not, or not by half as many. It matters to the last bit alone. Found by experiment: 1259
/// sizes without a miss.
fn rows_first(from: [usize; 2], to: [usize; 2]) -> bool {
    let saved = |axis: usize| from[axis].saturating_sub(to[axis]);
    saved(0) > 2 * saved(1)
}

fn resize_columns(source: &[u8], width: usize, to: usize) -> Vec<u8> {
    let mut out = vec![0; source.len() / width * to];
    run(Columns {
        source,
        width,
        weights: &Weights::new(width, to),
        out: &mut out,
    });
    out
}

fn resize_rows(source: &[u8], height: usize, to: usize) -> Vec<u8> {
    let mut out = vec![0; source.len() / height * to];
    run(Rows {
        source,
        weights: &Weights::new(height, to),
        out: &mut out,
    });
    out
}

/// Runs a pass with AVX2 where the processor has it; the loops are plain, the result is the same.
fn run(pass: impl pulp::NullaryFnOnce<Output = ()>) {
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = pulp::x86::V3::try_new() {
        return v3.vectorize(pass);
    }
    pass.call();
}

/// For each position of the output, where its inputs begin and their weights.
struct Weights {
    /// First input, and how many.
    spans: Vec<(usize, usize)>,
    /// `stride` for each output, of which the span's are used.
    fixed: Vec<i32>,
    stride: usize,
}

impl Weights {
    /// A triangle of one pixel to each side, of one output pixel where that is more.
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let support = scale.max(1.0);
        let stride = support.ceil() as usize * 2 + 1;
        let mut spans = Vec::with_capacity(to);
        let mut fixed = vec![0; to * stride];
        let mut exact = vec![0.0; stride];
        for (position, fixed) in fixed.chunks_exact_mut(stride).enumerate() {
            let center = (position as f64 + 0.5) * scale;
            // Conversion truncates, and clamps below 0.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let exact = &mut exact[..end - first];
            let mut sum = 0.0;
            for (input, weight) in (first..end).zip(&mut *exact) {
                // Multiplied by the reciprocal and not divided, for Pillow's rounding.
                let distance = (input as f64 - center + 0.5) * (1.0 / support);
                *weight = (1.0 - distance.abs()).max(0.0);
                sum += *weight;
            }
            for (fixed, weight) in fixed.iter_mut().zip(&*exact) {
                *fixed = (0.5 + weight / sum * f64::from(1 << PRECISION_BITS)) as i32;
            }
            spans.push((first, end - first));
        }
        Weights {
            spans,
            fixed,
            stride,
        }
    }

    /// First input and weights of each output.
    #[inline(always)]
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let weights = self.fixed.chunks_exact(self.stride);
        let spans = self.spans.iter().zip(weights);
        spans.map(|(&(first, count), weights)| (first, &weights[..count]))
    }
}

/// `N` weighted sums: of the bytes at `start`, those `step` further on, and so forth.
#[inline(always)]
fn weigh<const N: usize>(source: &[u8], start: usize, step: usize, weights: &[i32]) -> [u8; N] {
    let mut sums = [1_i32 << (PRECISION_BITS - 1); N];
    for (tap, &weight) in weights.iter().enumerate() {
        let start = start + tap * step;
        let bytes = &source[start..start + N];
        for (sum, &byte) in sums.iter_mut().zip(bytes) {
            *sum += weight * i32::from(byte);
        }
    }
    let mut out = [0; N];
    for (out, sum) in out.iter_mut().zip(sums) {
        // No weight is negative, so that no sum is.
        *out = (sum >> PRECISION_BITS).min(255) as u8;
    }
    out
}

/// The pass along rows: [`ROWS`] of them become columns of words, which are weighed as one.
struct Columns<'a> {
    source: &'a [u8],
    width: usize,
    weights: &'a Weights,
    out: &'a mut [u8],
}

impl pulp::NullaryFnOnce for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Columns {
            source,
            width,
            weights,
            out,
        } = self;
        let out_stride = weights.spans.len() * 3;
        let mut block = vec![0; width * LANES];
        for (source, out) in source
            .chunks(width * 3 * ROWS)
            .zip(out.chunks_mut(out_stride * ROWS))
        {
            for (number, row) in source.chunks_exact(width * 3).enumerate() {
                let words = block.as_chunks_mut::<LANES>().0;
                for (column, words) in words.iter_mut().enumerate() {
                    let words = &mut words.as_chunks_mut::<WORD>().0[number];
                    // Words of a fixed length are moved at once; a call would copy any other.
                    match row[column * 3..].first_chunk() {
                        Some(word) => *words = *word,
                        None => words[..3].copy_from_slice(&row[column * 3..][..3]),
                    }
                }
            }
            for (column, (first, weights)) in weights.iter().enumerate() {
                let words: [u8; LANES] = weigh(&block, first * LANES, LANES, weights);
                let words = words.as_chunks::<WORD>().0;
                for (out, word) in out.chunks_exact_mut(out_stride).zip(words) {
                    let out = &mut out[column * 3..];
                    match out.first_chunk_mut() {
                        // The fourth byte is overwritten by the next column.
                        Some(out) => *out = *word,
                        None => out[..3].copy_from_slice(&word[..3]),
                    }
                }
            }
        }
    }
}

/// The pass along columns: whole rows are weighed.
struct Rows<'a> {
    source: &'a [u8],
    weights: &'a Weights,
    out: &'a mut [u8],
}

impl pulp::NullaryFnOnce for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Rows {
            source,
            weights,
            out,
        } = self;
        let stride = out.len() / weights.spans.len();
        for (out, (first, weights)) in out.chunks_exact_mut(stride).zip(weights.iter()) {
            let start = first * stride;
            if stride < LANES {
                for (column, out) in out.iter_mut().enumerate() {
                    [*out] = weigh(source, start + column, stride, weights);
                }
                continue;
            }
            for column in (0..stride).step_by(LANES) {
                // The last ones overlap those before: the same bytes twice.
                let column = column.min(stride - LANES);
                let bytes: [u8; LANES] = weigh(source, start + column, stride, weights);
                out[column..column + LANES].copy_from_slice(&bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Made by `tests/golden/data/make_resize.py`.
    const GOLDEN: &str = include_str!("../../../tests/golden/data/resize.json");

    #[derive(Deserialize)]
    struct Golden {
        exact: Vec<Case>,
    }

    /// Pixels are [`generated`]; of the result the sum, a hash of all and the first few.
    #[derive(Deserialize)]
    struct Case {
        size: [usize; 2],
        out_size: [usize; 2],
        sum: u64,
        hash: u32,
        head: Vec<u8>,
    }

    /// The upper bits of a linear congruence, as the generator of the reference makes them.
    fn generated(size: [usize; 2]) -> RgbPixels {
        let mut state = (size[0] * 65536 + size[1]) as u32;
        let data = (0..size[0] * size[1] * 3)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        RgbPixels { size, data }
    }

    #[test]
    fn resize_equals_pillow() {
        let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
        assert!(golden.exact.len() > 10);
        for case in golden.exact {
            let out = resize(&generated(case.size), case.out_size);
            assert_eq!(out.size, case.out_size);
            let name = format!("{:?} to {:?}", case.size, case.out_size);
            assert_eq!(out.data.len(), case.out_size.iter().product::<usize>() * 3);
            assert_eq!(out.data[..case.head.len()], case.head, "{name}");
            let sum: u64 = out.data.iter().map(|&byte| u64::from(byte)).sum();
            assert_eq!(sum, case.sum, "{name}");
            let hash = out.data.iter().fold(2_166_136_261_u32, |hash, &byte| {
                (hash ^ u32::from(byte)).wrapping_mul(16_777_619)
            });
            assert_eq!(hash, case.hash, "{name}");
        }
    }

    #[test]
    fn every_processor_gives_the_same() {
        let pixels = generated([21, 34]);
        let weights = Weights::new(34, 23);
        let [mut plain, mut fast] = [vec![0; 21 * 23 * 3], vec![0; 21 * 23 * 3]];
        let columns = |out| Columns {
            source: &pixels.data,
            width: 34,
            weights: &weights,
            out,
        };
        pulp::NullaryFnOnce::call(columns(&mut plain));
        run(columns(&mut fast));
        assert_eq!(plain, fast);
    }
}
