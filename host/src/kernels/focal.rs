//! Sigmoid focal loss (arXiv 1708.02002): value and gradient in one pass over the logits.
//!
//! With `z` the logit for background and minus the logit for foreground, `σ` the sigmoid:
//! ```text
//! loss    = α_t · softplus(z) · σ(z)^γ
//! d/dz    = α_t · σ(z)^γ · (σ(z) + γ (1 − σ(z)) softplus(z))
//! ```
//! No map of targets and none of a composed formula's dozen intermediate maps.

mod term;

#[cfg(test)]
mod tests;

use rayon::prelude::*;

pub(super) use self::term::exp_of_negative;
use self::term::{LANES, focal_terms};
use super::maps::{Shared, filled};
use super::simd::{Level, Simd, simd_entry};

/// Matched to nothing: background.
pub const BACKGROUND: i32 = -1;
/// Between the thresholds: not counted.
pub const IGNORED: i32 = -2;

/// Logits of one task.
const TASK_LOGITS: usize = 16 * 1024;

/// Weights and exponent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Focal {
    /// Classes, background excluded.
    pub num_classes: usize,
    /// Weight of foreground terms.
    pub foreground: f32,
    /// Weight of background terms.
    pub background: f32,
    /// Exponent.
    pub gamma: f32,
}

/// Anchors that lie side by side and weigh the same.
#[derive(Clone, Copy, Debug)]
pub struct Anchors<'a> {
    /// Class index, [`BACKGROUND`] or [`IGNORED`] of each.
    pub classes: &'a [i32],
    /// Weight of their loss.
    pub weight: f32,
}

/// Sum of the weighted loss over all anchors and classes, and its gradient.
///
/// # Shapes
/// - `logits`: `[anchors, num_classes]`, the anchors of all `parts` one after another; the gradient
///   is as large.
///
/// # Panics
/// If `parts` and `logits` do not belong together.
#[must_use]
pub fn focal_loss(focal: &Focal, logits: &[f32], parts: &[Anchors<'_>]) -> (f32, Vec<f32>) {
    let anchors: usize = parts.iter().map(|part| part.classes.len()).sum();
    assert_eq!(
        logits.len(),
        anchors * focal.num_classes,
        "logits of other anchors"
    );
    let each = (TASK_LOGITS / focal.num_classes).max(1);
    let mut start = 0;
    let mut tasks = Vec::new();
    for part in parts {
        for classes in part.classes.chunks(each) {
            tasks.push((start, classes, part.weight));
            start += classes.len() * focal.num_classes;
        }
    }
    let level = Level::best();
    let mut sum = 0.0;
    let write = |gradient: Shared| {
        let sums: Vec<f64> = tasks
            .par_iter()
            .map(|&(start, classes, weight)| {
                let len = classes.len() * focal.num_classes;
                // SAFETY: these anchors belong to this task alone; all of it is written.
                let gradient = unsafe { gradient.slice(start, len) };
                let mut sum = 0.0;
                // SAFETY: safe code, compiled for the level that the processor has.
                unsafe {
                    let logits = &logits[start..start + len];
                    anchors_loss(level, focal, logits, classes, weight, gradient, &mut sum);
                }
                sum
            })
            .collect();
        // In order, so that the result does not depend on the number of threads.
        sum = sums.iter().sum();
    };
    // SAFETY: the tasks cover all anchors.
    let gradient = unsafe { filled(logits.len(), write) };
    (sum as f32, gradient)
}

simd_entry! {
    /// # Safety
    /// The processor has `level`.
    unsafe fn anchors_loss(
        focal: &Focal,
        logits: &[f32],
        classes: &[i32],
        weight: f32,
        gradient: &mut [f32],
        sum: &mut f64,
    ) = anchors_loss_at
}

/// # Safety
/// As [`Simd`].
#[inline(always)]
unsafe fn anchors_loss_at<S: Simd>(
    focal: &Focal,
    logits: &[f32],
    classes: &[i32],
    weight: f32,
    gradient: &mut [f32],
    sum: &mut f64,
) {
    if focal.gamma == 2.0 {
        sum_terms(focal, logits, classes, weight, gradient, sum, |s| s * s);
    } else {
        let gamma = focal.gamma;
        sum_terms(focal, logits, classes, weight, gradient, sum, |s| {
            s.powf(gamma)
        });
    }
}

/// The loss of some anchors, with `σ ↦ σ^γ` given.
#[inline(always)]
fn sum_terms(
    focal: &Focal,
    logits: &[f32],
    classes: &[i32],
    weight: f32,
    gradient: &mut [f32],
    sum: &mut f64,
    modulate: impl Fn(f32) -> f32 + Copy,
) {
    let k = focal.num_classes;
    // The gradient's memory holds the terms' weights first: positive for foreground, negative for
    // background, 0 for what is not counted.
    for (weights, &class) in gradient.chunks_exact_mut(k).zip(classes) {
        weights.fill(if class == IGNORED { 0.0 } else { -1.0 });
        if let Ok(class) = usize::try_from(class) {
            weights[class] = 1.0;
        }
    }
    let mut sums = [0.0_f64; LANES];
    for (gradient, logits) in gradient.chunks_mut(LANES).zip(logits.chunks(LANES)) {
        // Ignored anchors and the rest of a short group: a finite term of weight 0.
        let (mut z, mut kind) = ([0.0; LANES], [0.0; LANES]);
        kind[..gradient.len()].copy_from_slice(gradient);
        z[..logits.len()].copy_from_slice(logits);
        let mut alpha = [0.0; LANES];
        for i in 0..LANES {
            z[i] = if kind[i] == 0.0 { 0.0 } else { -kind[i] * z[i] };
            alpha[i] = if kind[i] > 0.0 {
                focal.foreground
            } else {
                focal.background
            };
            alpha[i] *= kind[i].abs();
        }
        let (losses, mut slopes) = focal_terms(&z, focal.gamma, modulate);
        for i in 0..LANES {
            sums[i] += f64::from(alpha[i] * losses[i]);
            slopes[i] *= -kind[i] * alpha[i] * weight;
        }
        gradient.copy_from_slice(&slopes[..gradient.len()]);
    }
    *sum = sums.iter().sum::<f64>() * f64::from(weight);
}
