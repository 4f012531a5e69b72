//! Ground truth matched to anchors by overlap, as torchvision's `Matcher` with
//! `allow_low_quality_matches`.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Assignment, BACKGROUND, IGNORED};
use crate::boxes::{self, BoxXyxy};
use crate::data::ImageTargets;

/// Anchors handled together; their corners stay in the first-level cache while all objects pass.
const BLOCK: usize = 256;
/// Anchors of one task.
const CHUNK: usize = 16 * BLOCK;
/// Accumulators of a running maximum, so that it needs no order and can be vectorised.
const LANES: usize = 8;

/// Matches every anchor to at most one object of its image.
///
/// An anchor takes the object it overlaps most (the first of equals) if their IoU is at least
/// `fg_iou_threshold`; below `bg_iou_threshold` it is [`BACKGROUND`], between the two [`IGNORED`].
/// Then every anchor whose IoU with some object is the highest that this object has with any anchor
/// (ties included) becomes foreground too, with the object that the *anchor* overlaps most.
/// An image without objects is all background.
///
/// # Units
/// Boxes in pixels of the network input.
///
/// # Determinism
/// Overlaps are f32 in torchvision's order of operations; the result does not depend on the number
/// of threads. Memory is linear in anchors plus objects.
///
/// # Panics
/// If the background threshold is above the foreground one.
#[must_use]
pub fn assign(
    anchors: Arc<Vec<BoxXyxy>>,
    targets: &[ImageTargets],
    fg_iou_threshold: f32,
    bg_iou_threshold: f32,
) -> Assignment {
    assert!(
        bg_iou_threshold <= fg_iou_threshold,
        "the background threshold {bg_iou_threshold} is not above the foreground threshold \
         {fg_iou_threshold}"
    );
    Assignment::new(anchors, targets, |anchors, objects| {
        match_image(anchors, objects, fg_iou_threshold, bg_iou_threshold)
    })
}

fn match_image(anchors: &[BoxXyxy], objects: &[BoxXyxy], fg: f32, bg: f32) -> Vec<i32> {
    if objects.is_empty() {
        return vec![BACKGROUND; anchors.len()];
    }
    let objects: Vec<(BoxXyxy, f32)> = objects.iter().map(|&b| (b, boxes::area(b))).collect();
    let mut best_iou = vec![-1.0_f32; anchors.len()];
    let mut best_object = vec![0_i32; anchors.len()];
    let highest_of_chunks: Vec<Vec<f32>> = anchors
        .par_chunks(CHUNK)
        .zip(best_iou.par_chunks_mut(CHUNK))
        .zip(best_object.par_chunks_mut(CHUNK))
        .map(|((anchors, best_iou), best_object)| {
            let mut highest = vec![0.0_f32; objects.len()];
            for ((anchors, best_iou), best_object) in anchors
                .chunks(BLOCK)
                .zip(best_iou.chunks_mut(BLOCK))
                .zip(best_object.chunks_mut(BLOCK))
            {
                match_block(anchors, &objects, best_iou, best_object, &mut highest);
            }
            highest
        })
        .collect();
    let highest: Vec<f32> = (0..objects.len())
        .map(|object| {
            highest_of_chunks
                .iter()
                .fold(0.0_f32, |highest, chunk| highest.max(chunk[object]))
        })
        .collect();
    // Objects whose best anchors are foreground anyway need no second look. One that overlaps no
    // anchor (its highest IoU is 0) stays unmatched.
    // Differs from torchvision, whose matcher makes every anchor of IoU 0 foreground for such an
    // object; its RetinaNet refuses the empty boxes that lead there.
    let low_quality: Vec<(BoxXyxy, f32, f32)> = objects
        .iter()
        .zip(&highest)
        .filter(|&(_, &highest)| highest > 0.0 && highest < fg)
        .map(|(&(object, area), &highest)| (object, area, highest))
        .collect();
    let lowest = low_quality
        .iter()
        .fold(f32::INFINITY, |lowest, &(_, _, highest)| {
            lowest.min(highest)
        });
    best_object
        .par_iter()
        .zip(&best_iou)
        .zip(anchors)
        .map(|((&object, &overlap), &anchor)| {
            if overlap >= fg {
                return object;
            }
            let is_best_of_some = overlap >= lowest && {
                let area = boxes::area(anchor);
                low_quality.iter().any(|&(other, other_area, highest)| {
                    iou(other, other_area, anchor, area) == highest
                })
            };
            if is_best_of_some {
                object
            } else if overlap < bg {
                BACKGROUND
            } else {
                IGNORED
            }
        })
        .collect()
}

/// Updates the best object of each anchor of a block and the highest IoU of each object.
fn match_block(
    anchors: &[BoxXyxy],
    objects: &[(BoxXyxy, f32)],
    best_iou: &mut [f32],
    best_object: &mut [i32],
    highest: &mut [f32],
) {
    // Corner-major copies of constant length: the loop below then compiles to vector code. The rest
    // of a short block are empty boxes, whose IoU is 0 with any object and raises no maximum.
    let mut corners = [[0.0_f32; BLOCK]; 4];
    let mut areas = [0.0_f32; BLOCK];
    let mut overlaps = [0.0_f32; BLOCK];
    let mut best = [-1.0_f32; BLOCK];
    let mut index = [0_i32; BLOCK];
    for (i, &anchor) in anchors.iter().enumerate() {
        for (corner, value) in corners.iter_mut().zip(anchor) {
            corner[i] = value;
        }
        areas[i] = boxes::area(anchor);
    }
    let [x1, y1, x2, y2] = &corners;
    for ((number, &(object, object_area)), highest) in (0_i32..).zip(objects).zip(highest) {
        for i in 0..BLOCK {
            let anchor = [x1[i], y1[i], x2[i], y2[i]];
            let overlap = iou(object, object_area, anchor, areas[i]);
            let better = overlap > best[i];
            best[i] = if better { overlap } else { best[i] };
            index[i] = if better { number } else { index[i] };
            overlaps[i] = overlap;
        }
        let mut lanes = [0.0_f32; LANES];
        for group in overlaps.chunks_exact(LANES) {
            for (lane, &overlap) in lanes.iter_mut().zip(group) {
                *lane = if overlap > *lane { overlap } else { *lane };
            }
        }
        *highest = lanes.iter().fold(*highest, |a, &b| a.max(b));
    }
    best_iou.copy_from_slice(&best[..anchors.len()]);
    best_object.copy_from_slice(&index[..anchors.len()]);
}

/// IoU with known areas. Comparisons instead of `f32::max`, which costs more to be right about NaN;
/// NaN (two empty boxes) compares false everywhere above and matches nothing.
#[inline(always)]
fn iou(object: BoxXyxy, object_area: f32, anchor: BoxXyxy, anchor_area: f32) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let smaller = |a: f32, b: f32| if a < b { a } else { b };
    let width = larger(
        smaller(object[2], anchor[2]) - larger(object[0], anchor[0]),
        0.0,
    );
    let height = larger(
        smaller(object[3], anchor[3]) - larger(object[1], anchor[1]),
        0.0,
    );
    let overlap = width * height;
    overlap / (object_area + anchor_area - overlap)
}

#[cfg(test)]
mod tests;
