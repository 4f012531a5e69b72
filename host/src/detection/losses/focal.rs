//! Sigmoid focal loss (arXiv 1708.02002) over all anchors and classes.
//!
//! With `z` the logit for background and minus the logit for foreground, `σ` the sigmoid:
//! ```text
//! loss    = α_t · softplus(z) · σ(z)^γ
//! d/dz    = α_t · σ(z)^γ · (σ(z) + γ (1 − σ(z)) softplus(z))
//! ```
//! Value and gradient come from one pass over the logits where they lie: no transposition to
//! `[N, HWA, K]`, no map of targets, and none of a composed formula's dozen intermediate maps.

use burn::tensor::{Int, Tensor, TensorData, activation};
use rayon::prelude::*;

use super::LossConfig;
use super::focal_term::{LANES, focal_terms};
use crate::detection::host_values::{HostValues, is_on_host};
use crate::detection::known_gradient::with_known_gradient;
use crate::detection::levels::Level;
use crate::detection::{Assignment, HeadOutput, IGNORED};

/// Focal loss summed over levels; see [`super::retinanet_losses`].
pub(super) fn focal_loss(
    head: &HeadOutput,
    assignment: &Assignment,
    levels: &[Level],
    weights: &[f32],
    config: &LossConfig,
) -> Tensor<1> {
    head.cls_logits
        .iter()
        .zip(levels)
        .map(|(logits, level)| {
            let classes = target_classes(assignment, level);
            let (value, gradient) = if is_on_host(logits) {
                fused(logits, level, &classes, weights, config)
            } else {
                composed(logits, level, &classes, weights, config)
            };
            with_known_gradient(logits.clone(), value, gradient)
        })
        .reduce(|sum, loss| sum + loss)
        .expect("a pyramid has at least one level")
}

/// The class of each anchor of the level, or one of the negative constants, in the order of the
/// map: `[N, A, H, W]`.
pub(super) fn target_classes(assignment: &Assignment, level: &Level) -> Vec<i32> {
    let mut classes = Vec::with_capacity(assignment.matched.len() * level.num_anchors());
    for (matched, labels) in assignment.matched.iter().zip(&assignment.labels) {
        for a in 0..level.per_cell {
            classes.extend((0..level.cells).map(|cell| {
                let object = matched[level.anchor(cell, a)];
                usize::try_from(object).map_or(object, |object| labels[object] as i32)
            }));
        }
    }
    classes
}

/// Loss `[1]` and its gradient `[N, A*K, H, W]`, both plain, in one pass on the CPU.
pub(super) fn fused(
    logits: &Tensor<4>,
    level: &Level,
    classes: &[i32],
    weights: &[f32],
    config: &LossConfig,
) -> (Tensor<1>, Tensor<4>) {
    let values = HostValues::of(logits);
    let values = values.as_slice();
    let mut gradient = vec![0.0_f32; values.len()];
    let block = config.num_classes * level.cells;
    // One task is one anchor shape of one image: its part of the map is contiguous. Partial sums
    // are added in order, so the result does not depend on the number of threads.
    let sums: Vec<f64> = gradient
        .par_chunks_mut(block)
        .zip(values.par_chunks(block))
        .zip(classes.par_chunks(level.cells))
        .enumerate()
        .map(|(part, ((gradient, logits), classes))| {
            let weight = weights[part / level.per_cell];
            focal_block(logits, classes, weight, config, gradient)
        })
        .collect();
    let value = sums.iter().sum::<f64>() as f32;
    let device = logits.device().inner();
    (
        Tensor::from_data(TensorData::from([value]), &device),
        Tensor::from_data(TensorData::new(gradient, logits.dims()), &device),
    )
}

/// One anchor shape of one image: logits and gradient `[K, H*W]`, classes `[H*W]`.
fn focal_block(
    logits: &[f32],
    classes: &[i32],
    weight: f32,
    config: &LossConfig,
    gradient: &mut [f32],
) -> f64 {
    if config.focal_gamma == 2.0 {
        sum_terms(logits, classes, weight, config, gradient, |s| s * s)
    } else {
        let gamma = config.focal_gamma;
        sum_terms(logits, classes, weight, config, gradient, |s| s.powf(gamma))
    }
}

/// [`focal_block`] with `σ ↦ σ^γ` given.
fn sum_terms(
    logits: &[f32],
    classes: &[i32],
    weight: f32,
    config: &LossConfig,
    gradient: &mut [f32],
    modulate: impl Fn(f32) -> f32 + Copy,
) -> f64 {
    let (foreground, background) = alphas(config);
    let cells = classes.len();
    let mut sums = [0.0_f64; LANES];
    for ((class, logits), gradient) in (0_i32..)
        .zip(logits.chunks(cells))
        .zip(gradient.chunks_mut(cells))
    {
        for ((logits, targets), gradient) in logits
            .chunks(LANES)
            .zip(classes.chunks(LANES))
            .zip(gradient.chunks_mut(LANES))
        {
            // Ignored anchors and the rest of a short group: a finite term of weight 0.
            let mut z = [0.0; LANES];
            let mut alpha = [0.0; LANES];
            let mut slope_weight = [0.0; LANES];
            for (i, (&logit, &target)) in logits.iter().zip(targets).enumerate() {
                let is_foreground = target == class;
                let sign = if is_foreground { -1.0 } else { 1.0 };
                let counted = target != IGNORED;
                z[i] = if counted { sign * logit } else { 0.0 };
                alpha[i] = if is_foreground {
                    foreground
                } else {
                    background
                };
                alpha[i] = if counted { alpha[i] } else { 0.0 };
                slope_weight[i] = sign * alpha[i] * weight;
            }
            let (losses, slopes) = focal_terms(&z, config.focal_gamma, modulate);
            for i in 0..LANES {
                sums[i] += f64::from(alpha[i] * losses[i]);
            }
            for ((gradient, slope), weight) in gradient.iter_mut().zip(slopes).zip(slope_weight) {
                *gradient = weight * slope;
            }
        }
    }
    sums.iter().sum::<f64>() * f64::from(weight)
}

/// Weights of foreground and background.
fn alphas(config: &LossConfig) -> (f32, f32) {
    if config.focal_alpha < 0.0 {
        (1.0, 1.0)
    } else {
        (config.focal_alpha, 1.0 - config.focal_alpha)
    }
}

/// As [`fused`], in tensor operations, for devices whose memory the CPU should not read.
pub(super) fn composed(
    logits: &Tensor<4>,
    level: &Level,
    classes: &[i32],
    weights: &[f32],
    config: &LossConfig,
) -> (Tensor<1>, Tensor<4>) {
    let dims = logits.dims();
    let device = logits.device().inner();
    let [images, shapes, cells] = [dims[0], level.per_cell, level.cells];
    let target = Tensor::<4, Int>::from_data(
        TensorData::new(classes.to_vec(), [images, shapes, 1, cells]),
        &device,
    );
    let weight =
        Tensor::<1>::from_data(TensorData::from(weights), &device).reshape([images, 1, 1, 1]);
    let numbers = Tensor::<1, Int>::arange(0..config.num_classes as i64, &device).reshape([
        1,
        1,
        config.num_classes,
        1,
    ]);
    let full = [images, shapes, config.num_classes, cells];
    let is_foreground = target
        .clone()
        .expand(full)
        .equal(numbers.expand(full))
        .float();
    let (foreground, background) = alphas(config);
    let ignored = target.equal_elem(IGNORED).expand(full);
    let alpha = (is_foreground.clone() * (foreground - background) + background)
        .mul(weight)
        .mask_fill(ignored.clone(), 0.0);
    let sign = is_foreground * -2.0 + 1.0;
    // Ignored logits may be anything, infinite too.
    let z = (logits.clone().inner().reshape(full) * sign.clone()).mask_fill(ignored, 0.0);
    let softplus = z.clone().clamp_min(0.0) + z.clone().abs().neg().exp().log1p();
    let sigmoid = activation::sigmoid(z.clone());
    let complement = activation::sigmoid(z.neg());
    let modulation = sigmoid.clone().powf_scalar(config.focal_gamma) * alpha;
    let value = (softplus.clone() * modulation.clone()).sum();
    let slope = modulation * (sigmoid + complement * softplus * config.focal_gamma) * sign;
    (value, slope.reshape(dims))
}
