//! What a detector says at each of its locations, for methods that look at single ones.
//!
//! Locations are numbered as in [`Assignment`]: levels finest first, row-major over cells, anchors of
//! a cell innermost; a batch is image by image.

use rayon::prelude::*;

use super::levels::{Level, levels};
use super::losses::{centerness_of_location, softplus};
use super::{Assignment, BoxCoder, HeadOutput, IGNORED, LossConfig};
use crate::boxes::{self, BoxXyxy};
use crate::config::BoxLoss;
use crate::host_values::HostValues;

/// Task losses of each location, `[N, L]` row-major, before any normalisation over locations or
/// images. No gradient.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocationLosses {
    /// Classification loss, summed over classes; 0 where ignored.
    pub cls: Vec<f32>,
    /// Box loss with its weight; 0 off the foreground.
    pub bbox: Vec<f32>,
    /// Everything that enters the task loss at the location, weights included: both of these and, of a
    /// head that predicts it, centerness.
    pub task: Vec<f32>,
}

/// Boxes that `head` predicts at every location, `[N, L]` row-major, in pixels of the network input
/// and not clipped to it. No gradient.
///
/// # Panics
/// If head and anchors do not belong together.
#[must_use]
pub fn decoded_boxes(
    head: &HeadOutput,
    anchors: &[BoxXyxy],
    box_coder: BoxCoder,
    num_classes: usize,
) -> Vec<BoxXyxy> {
    let num_images = num_images(head);
    let levels = levels(head, num_classes, num_images, anchors.len());
    let deltas = HostValues::of(head.box_deltas.cells());
    let (deltas, _) = deltas.as_slice().as_chunks::<4>();
    let mut decoded = vec![[0.0; 4]; num_images * anchors.len()];
    let images = decoded.par_chunks_mut(anchors.len().max(1)).enumerate();
    images.for_each(|(image, decoded)| {
        for level in &levels {
            let deltas = &deltas[level.anchor_rows(image)];
            let of_level = level.anchors();
            let places = decoded[of_level.clone()].iter_mut();
            for ((place, &delta), &anchor) in places.zip(deltas).zip(&anchors[of_level]) {
                *place = box_coder.decode(delta, anchor);
            }
        }
    });
    decoded
}

/// The terms that [`super::retinanet_losses`] sums, location by location; of a head with centerness
/// those of [`super::fcos_losses`].
///
/// # Panics
/// If head, assignment and `num_classes` do not belong together.
#[must_use]
pub fn location_losses(
    head: &HeadOutput,
    assignment: &Assignment,
    config: &LossConfig,
) -> LocationLosses {
    let anchors = &assignment.anchors_xyxy;
    let num_images = assignment.matched.len();
    let levels = levels(head, config.num_classes, num_images, anchors.len());
    let logits = HostValues::of(head.cls_logits.cells());
    let deltas = HostValues::of(head.box_deltas.cells());
    let logits = logits.as_slice();
    let (deltas, _) = deltas.as_slice().as_chunks::<4>();
    let centerness = head.centerness.as_ref();
    let centerness = centerness.map(|maps| HostValues::of(maps.cells()));
    let centerness = centerness.as_ref().map(HostValues::as_slice);
    let per_image: Vec<[Vec<f32>; 3]> = (0..num_images)
        .into_par_iter()
        .map(|image| {
            let cls = focal_of_image(logits, &levels, assignment, image, config);
            let mut bbox = vec![0.0; anchors.len()];
            let mut central = vec![0.0; anchors.len()];
            for level in &levels {
                let rows = level.anchor_rows(image);
                for (location, row) in level.anchors().zip(rows) {
                    let Ok(object) = usize::try_from(assignment.matched[image][location]) else {
                        continue;
                    };
                    let target = assignment.boxes_xyxy[image][object];
                    let anchor = anchors[location];
                    let loss = box_loss(config, deltas[row], anchor, target);
                    bbox[location] = config.box_loss_weight * loss;
                    if let Some(centerness) = centerness {
                        let loss = centerness_of_location(centerness[row], target, anchor);
                        central[location] = loss;
                    }
                }
            }
            let both = cls.iter().zip(&bbox).map(|(cls, bbox)| cls + bbox);
            let task = both.zip(central).map(|(both, central)| both + central);
            let task = task.collect();
            [cls, bbox, task]
        })
        .collect();
    let mut losses = LocationLosses::default();
    for [cls, bbox, task] in per_image {
        losses.cls.extend(cls);
        losses.bbox.extend(bbox);
        losses.task.extend(task);
    }
    losses
}

/// Focal loss of each location of an image, summed over classes; 0 where ignored.
fn focal_of_image(
    logits: &[f32],
    levels: &[Level],
    assignment: &Assignment,
    image: usize,
    config: &LossConfig,
) -> Vec<f32> {
    let k = config.num_classes;
    let (foreground, background) = config.alphas();
    let mut losses = vec![0.0; assignment.anchors_xyxy.len()];
    for level in levels {
        let rows = level.anchor_rows(image);
        let logits = logits[rows.start * k..rows.end * k].chunks_exact(k);
        for (location, logits) in level.anchors().zip(logits) {
            let matched = assignment.matched[image][location];
            if matched == IGNORED {
                continue;
            }
            let object = usize::try_from(matched).ok();
            let class = object.map(|object| assignment.labels[image][object]);
            losses[location] = (logits.iter().enumerate())
                .map(|(number, &logit)| match class == Some(number) {
                    true => foreground * focal(-logit, config.focal_gamma),
                    false => background * focal(logit, config.focal_gamma),
                })
                .sum();
        }
    }
    losses
}

/// `softplus(z) σ(z)^γ`.
fn focal(z: f32, gamma: f32) -> f32 {
    let tail = (-z.abs()).exp();
    let sigmoid = if z >= 0.0 { 1.0 } else { tail } / (1.0 + tail);
    // Two is nearly everybody's exponent, and `powf` is slow.
    softplus(z)
        * if gamma == 2.0 {
            sigmoid * sigmoid
        } else {
            sigmoid.powf(gamma)
        }
}

fn box_loss(config: &LossConfig, delta: [f32; 4], anchor: BoxXyxy, target: BoxXyxy) -> f32 {
    let coder = config.box_coder;
    match config.box_loss {
        BoxLoss::L1 => {
            let wanted = coder.encode(target, anchor);
            delta.iter().zip(wanted).map(|(d, w)| (d - w).abs()).sum()
        }
        BoxLoss::Giou => 1.0 - boxes::generalized_iou(coder.decode(delta, anchor), target),
    }
}

/// Images whose outputs `head` holds.
fn num_images(head: &HeadOutput) -> usize {
    head.cls_logits.segments().first().map_or(0, |s| s.n)
}

#[cfg(test)]
mod tests;
