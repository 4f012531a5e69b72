//! Softmax cross-entropy of every pixel against logits on a coarser grid, enlarged bilinearly: value
//! and gradient in one pass that never holds the logits of all pixels.
//!
//! ```text
//! z    = Σ w logits                                       up to four cells of the grid
//! loss = mean over labelled pixels of ln Σ exp(z) − z[label]
//! d/dz = (softmax(z) − onehot(label)) / labelled          which goes back to the cells by the same w
//! ```
//! Rows of pixels are tasks in bands; each band has its own part of the gradient, and the parts are
//! added in order.

use rayon::prelude::*;

use super::bilinear::{Axis, Tap};
use super::focal::exp_of_negative;
use super::maps::Segment;
use super::simd::{Level, Simd, simd_entry};
use crate::data::IGNORE_LABEL;

/// Pixels of a band, at least a row.
const BAND_PIXELS: usize = 8 * 1024;
/// Classes that are worked on together.
const LANES: usize = 8;
/// The logit of a class that fills the last lanes: it leaves no trace beside real ones, and neither its
/// sums nor its differences overflow.
const NO_CLASS: f32 = f32::MIN / 4.0;

/// Mean loss over the labelled pixels, and its gradient; both 0 where none is labelled.
///
/// # Shapes
/// - `logits`: `[n, h, w, K]` of `grid`; the gradient is as large
/// - `labels`: `[n, height, width]`, below `K` or [`IGNORE_LABEL`]
///
/// # Panics
/// If `logits`, `labels` and extents do not belong together, or a label is another.
pub(crate) fn cross_entropy(
    grid: Segment,
    logits: &[f32],
    labels: &[u8],
    [height, width]: [usize; 2],
) -> (f32, Vec<f32>) {
    let cells = grid.cells();
    assert!(cells > 0 && logits.len().is_multiple_of(cells));
    assert_eq!(labels.len(), grid.n * height * width, "a label a pixel");
    let classes = logits.len() / cells;
    let labelled = labels.iter().filter(|&&l| l != IGNORE_LABEL).count();
    let mut gradient = vec![0.0; logits.len()];
    if labelled == 0 {
        return (0.0, gradient);
    }
    let (rows, columns) = (Axis::new(height, grid.h), Axis::new(width, grid.w));
    let band = (BAND_PIXELS / width).max(1);
    let bands: Vec<(usize, usize)> = (0..grid.n)
        .flat_map(|image| (0..height).step_by(band).map(move |row| (image, row)))
        .collect();
    let image_floats = grid.h * grid.w * classes;
    let parts: Vec<Part> = bands
        .par_iter()
        .map(|&(image, first)| {
            let end = (first + band).min(height);
            let labels = &labels[(image * height + first) * width..(image * height + end) * width];
            let logits = &logits[image * image_floats..][..image_floats];
            let job = Job {
                logits,
                classes,
                rows: &rows.taps[first..end],
                columns: &columns.taps,
                width: grid.w,
                share: 1.0 / labelled as f32,
            };
            job.run(labels)
        })
        .collect();
    let mut sum = 0.0;
    for ((image, _), part) in bands.iter().zip(parts) {
        sum += part.sum;
        let start = image * image_floats + part.first_row * grid.w * classes;
        for (total, &part) in gradient[start..].iter_mut().zip(&part.gradient) {
            *total += part;
        }
    }
    ((sum / labelled as f64) as f32, gradient)
}

/// What one band gives.
struct Part {
    sum: f64,
    /// Row of the grid at which `gradient` starts.
    first_row: usize,
    gradient: Vec<f32>,
}

/// One band of one image.
struct Job<'a> {
    /// `[h, w, K]` of the image.
    logits: &'a [f32],
    classes: usize,
    /// Of the band alone.
    rows: &'a [Tap],
    columns: &'a [Tap],
    /// Of the grid.
    width: usize,
    /// One pixel's weight in the mean.
    share: f32,
}

impl Job<'_> {
    fn run(&self, labels: &[u8]) -> Part {
        let (k, padded) = (self.classes, self.classes.next_multiple_of(LANES));
        let (first, last) = (self.rows[0].low, self.rows[self.rows.len() - 1].high);
        let floats = self.width * k;
        let mut gradient = vec![0.0; (last - first + 1) * floats];
        // A row of the grid's columns at the height of a row of pixels, and its gradient.
        let mut row = vec![NO_CLASS; self.width * padded];
        let mut d_row = vec![0.0; self.width * padded];
        let mut z = vec![0.0; padded];
        let mut sum = 0.0;
        let level = Level::best();
        for (tap, labels) in self
            .rows
            .iter()
            .zip(labels.chunks_exact(self.columns.len()))
        {
            let [low, high] = [tap.low, tap.high].map(|at| &self.logits[at * floats..][..floats]);
            let cells = low.chunks_exact(k).zip(high.chunks_exact(k));
            for (row, (low, high)) in row.chunks_exact_mut(padded).zip(cells) {
                for ((row, low), high) in row.iter_mut().zip(low).zip(high) {
                    *row = between(*low, *high, tap.weight);
                }
            }
            d_row.fill(0.0);
            // SAFETY: safe code, compiled for the level that the processor has.
            unsafe { pixels(level, self, labels, &row, &mut d_row, &mut z, &mut sum) };
            for (at, weight) in [(tap.low, 1.0 - tap.weight), (tap.high, tap.weight)] {
                let gradient = &mut gradient[(at - first) * floats..][..floats];
                let cells = gradient.chunks_exact_mut(k).zip(d_row.chunks_exact(padded));
                for (gradient, d_row) in cells {
                    for (gradient, d_row) in gradient.iter_mut().zip(d_row) {
                        *gradient += weight * d_row;
                    }
                }
            }
        }
        Part {
            sum,
            first_row: first,
            gradient,
        }
    }
}

#[inline(always)]
fn between(low: f32, high: f32, weight: f32) -> f32 {
    (1.0 - weight) * low + weight * high
}

simd_entry! {
    /// A row of pixels: adds to the loss and to the gradient at the row of the grid's columns.
    ///
    /// # Safety
    /// The processor has `level`.
    unsafe fn pixels(
        job: &Job<'_>,
        labels: &[u8],
        row: &[f32],
        d_row: &mut [f32],
        z: &mut [f32],
        sum: &mut f64,
    ) = pixels_at
}

/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn pixels_at<S: Simd>(
    job: &Job<'_>,
    labels: &[u8],
    row: &[f32],
    d_row: &mut [f32],
    z: &mut [f32],
    sum: &mut f64,
) {
    let padded = z.len();
    for (&label, tap) in labels.iter().zip(job.columns) {
        if label == IGNORE_LABEL {
            continue;
        }
        let label = usize::from(label);
        assert!(
            label < job.classes,
            "label {label} of {} classes",
            job.classes
        );
        let weight = tap.weight;
        let low = &row[tap.low * padded..][..padded];
        let high = &row[tap.high * padded..][..padded];
        let mut tops = [NO_CLASS; LANES];
        let cells = low
            .as_chunks::<LANES>()
            .0
            .iter()
            .zip(high.as_chunks::<LANES>().0);
        for (z, (low, high)) in z.as_chunks_mut::<LANES>().0.iter_mut().zip(cells) {
            for i in 0..LANES {
                z[i] = between(low[i], high[i], weight);
                tops[i] = if z[i] > tops[i] { z[i] } else { tops[i] };
            }
        }
        let top = tops.into_iter().fold(NO_CLASS, f32::max);
        let off = top - z[label];
        let mut totals = [0.0; LANES];
        for z in z.as_chunks_mut::<LANES>().0 {
            for i in 0..LANES {
                z[i] = exp_of_negative(z[i] - top);
                totals[i] += z[i];
            }
        }
        let total: f32 = totals.iter().sum();
        *sum += f64::from(total.ln() + off);
        let scale = job.share / total;
        for (at, weight) in [(tap.low, 1.0 - weight), (tap.high, weight)] {
            let d_row = &mut d_row[at * padded..][..padded];
            let (share, label_share) = (scale * weight, job.share * weight);
            let cells = d_row.as_chunks_mut::<LANES>().0.iter_mut();
            for (d_row, z) in cells.zip(z.as_chunks::<LANES>().0) {
                for i in 0..LANES {
                    d_row[i] += share * z[i];
                }
            }
            d_row[label] -= label_share;
        }
    }
}
