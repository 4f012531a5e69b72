//! From a head's outputs to final detections, as torchvision's RetinaNet and FCOS.

use rayon::prelude::*;

use super::levels::{Level, levels};
use super::{BoxCoder, Detections, HeadOutput, nms};
use crate::boxes::{self, BoxXyxy};
use crate::host_values::HostValues;

/// Thresholds and limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PostprocessConfig {
    /// Classes, background excluded.
    pub num_classes: usize,
    /// How box deltas are read.
    pub box_coder: BoxCoder,
    /// Scores not above it are dropped.
    pub score_threshold: f32,
    /// A box whose IoU with a better one of its class is above it is dropped.
    pub nms_threshold: f32,
    /// Candidates kept per level before suppression.
    pub topk_candidates: usize,
    /// Detections kept per image.
    pub detections_per_image: usize,
}

/// A score above the threshold.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    score: f32,
    /// Number within level and image: cell by cell.
    anchor: usize,
    class: usize,
}

/// Final detections of each image. A score is the sigmoid of a logit; with centerness the geometric
/// mean of it and the sigmoid of that, `√(σ(logit) σ(centerness))`. Per level the best `topk_candidates` scores above the threshold,
/// decoded and clipped, then suppression within each class, then the best `detections_per_image`.
///
/// Order: by descending score; equal scores by level (finest first), cell (row-major), anchor of the
/// cell, class. The same rule decides which of equal scores the limits keep. (torchvision leaves
/// that open; elsewhere the order is its own.)
///
/// # Units
/// Boxes in pixels of the network input, clipped to `sizes` (`[height, width]` without padding);
/// scores lie in 0..1.
///
/// # Panics
/// If head, anchors, sizes and `num_classes` do not belong together.
#[must_use]
pub fn detect(
    head: &HeadOutput,
    anchors: &[BoxXyxy],
    sizes: &[[usize; 2]],
    config: &PostprocessConfig,
) -> Vec<Detections> {
    let levels = levels(head, config.num_classes, sizes.len(), anchors.len());
    let logits = HostValues::of(head.cls_logits.cells());
    let deltas = HostValues::of(head.box_deltas.cells());
    let centerness = head.centerness.as_ref();
    let centerness = centerness.map(|maps| HostValues::of(maps.cells()));
    let values = Outputs {
        logits: logits.as_slice(),
        deltas: deltas.as_slice(),
        centerness: centerness.as_ref().map(HostValues::as_slice),
    };
    sizes
        .par_iter()
        .enumerate()
        .map(|(image, &size)| detect_image(image, size, &levels, values, anchors, config))
        .collect()
}

/// Values of the packed maps of a head.
#[derive(Clone, Copy)]
struct Outputs<'a> {
    logits: &'a [f32],
    deltas: &'a [f32],
    centerness: Option<&'a [f32]>,
}

fn detect_image(
    image: usize,
    size: [usize; 2],
    levels: &[Level],
    outputs: Outputs<'_>,
    anchors: &[BoxXyxy],
    config: &PostprocessConfig,
) -> Detections {
    let mut all = Detections::default();
    for level in levels {
        let rows = level.rows(image);
        let part = |width: usize| rows.start * width..rows.end * width;
        let logits = &outputs.logits[part(level.per_cell * config.num_classes)];
        let (deltas, rest) = outputs.deltas[part(level.per_cell * 4)].as_chunks::<4>();
        let centerness = outputs.centerness.map(|c| &c[part(level.per_cell)]);
        debug_assert!(rest.is_empty());
        for Candidate {
            score,
            anchor,
            class,
        } in best_candidates(logits, centerness, config)
        {
            let anchor_xyxy = anchors[level.first_anchor + anchor];
            let decoded = config.box_coder.decode(deltas[anchor], anchor_xyxy);
            all.boxes_xyxy.push(boxes::clip(decoded, size));
            all.scores.push(score);
            all.labels.push(class);
        }
    }
    let kept = nms::batched_nms(
        &all.boxes_xyxy,
        &all.scores,
        &all.labels,
        config.nms_threshold,
        config.detections_per_image,
    );
    Detections {
        boxes_xyxy: kept.iter().map(|&i| all.boxes_xyxy[i]).collect(),
        scores: kept.iter().map(|&i| all.scores[i]).collect(),
        labels: kept.iter().map(|&i| all.labels[i]).collect(),
    }
}

/// The best scores of one level of one image, in order. `logits` is `[H*W*A, K]`, `centerness`
/// `[H*W*A]`.
fn best_candidates(
    logits: &[f32],
    centerness: Option<&[f32]>,
    config: &PostprocessConfig,
) -> Vec<Candidate> {
    let threshold = config.score_threshold;
    // Nearly all logits are far below the threshold: comparing saves their exponentials. One unit
    // of slack, and an end to the bound where it grows without limit, leave the decision to the score
    // itself, whatever the rounding.
    let bound = |probability: f32| {
        let probability = probability.clamp(0.0, 1.0 - 1e-6);
        (probability / (1.0 - probability)).ln() - 1.0
    };
    let plain = bound(threshold);
    let mut candidates = Vec::new();
    for (anchor, logits) in logits.chunks(config.num_classes).enumerate() {
        let central = centerness.map(|centerness| sigmoid(centerness[anchor]));
        let bound = central.map_or(plain, |central| bound(threshold * threshold / central));
        for (class, &logit) in logits.iter().enumerate() {
            if logit <= bound {
                continue;
            }
            let score = match central {
                None => sigmoid(logit),
                Some(central) => (sigmoid(logit) * central).sqrt(),
            };
            if score > threshold {
                candidates.push(Candidate {
                    score,
                    anchor,
                    class,
                });
            }
        }
    }
    let order = |x: &Candidate, y: &Candidate| {
        y.score
            .total_cmp(&x.score)
            .then_with(|| (x.anchor, x.class).cmp(&(y.anchor, y.class)))
    };
    if candidates.len() > config.topk_candidates {
        candidates.select_nth_unstable_by(config.topk_candidates, order);
        candidates.truncate(config.topk_candidates);
    }
    candidates.sort_unstable_by(order);
    candidates
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests;
