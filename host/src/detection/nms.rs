//! Greedy non-maximum suppression, as torchvision's `nms` and `batched_nms`.

use crate::boxes::{self, BoxXyxy};

/// Boxes that survive, by descending score (of equal scores the first).
///
/// A box is dropped if its IoU with a better survivor is *above* `iou_threshold`.
///
/// # Panics
/// If `boxes` and `scores` differ in length.
#[must_use]
pub fn nms(boxes_xyxy: &[BoxXyxy], scores: &[f32], iou_threshold: f32) -> Vec<usize> {
    let one_class = vec![0; boxes_xyxy.len()];
    batched_nms(boxes_xyxy, scores, &one_class, iou_threshold, usize::MAX)
}

/// As [`nms`], but boxes of different classes do not suppress each other; at most the best
/// `max_kept` survivors over all classes.
///
/// Overlaps are those of the boxes themselves. torchvision, for up to 1000 boxes, shifts each class
/// far away instead, whose rounding can differ where an IoU lies within about 1e-4 of the threshold.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn batched_nms(
    boxes_xyxy: &[BoxXyxy],
    scores: &[f32],
    labels: &[usize],
    iou_threshold: f32,
    max_kept: usize,
) -> Vec<usize> {
    assert_eq!(boxes_xyxy.len(), scores.len(), "one score for each box");
    assert_eq!(boxes_xyxy.len(), labels.len(), "one label for each box");
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let num_classes = labels.iter().max().map_or(0, |&largest| largest + 1);
    let mut survivors: Vec<Vec<BoxXyxy>> = vec![Vec::new(); num_classes];
    let mut kept = Vec::new();
    for index in order {
        // Candidates come by descending score, so that the first survivors are the best ones.
        if kept.len() == max_kept {
            break;
        }
        let candidate = boxes_xyxy[index];
        let better = &mut survivors[labels[index]];
        if better
            .iter()
            .all(|&survivor| boxes::iou(survivor, candidate) <= iou_threshold)
        {
            better.push(candidate);
            kept.push(index);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::golden::Golden;

    const A: BoxXyxy = [0.0, 0.0, 4.0, 4.0];
    /// IoU with A: 8 / 24 = 1/3.
    const B: BoxXyxy = [2.0, 0.0, 6.0, 4.0];
    /// IoU with B: 1/3, with A: 0.
    const C: BoxXyxy = [4.0, 0.0, 8.0, 4.0];

    #[test]
    fn a_suppressed_box_suppresses_nothing() {
        // A drops B; C would be dropped by B but not by A.
        assert_eq!(nms(&[A, B, C], &[0.9, 0.8, 0.7], 0.3), vec![0, 2]);
    }

    #[test]
    fn iou_at_the_threshold_survives() {
        assert_eq!(nms(&[A, B], &[0.9, 0.8], 8.0 / 24.0), vec![0, 1]);
        assert_eq!(nms(&[A, B], &[0.9, 0.8], 0.333), vec![0]);
    }

    #[test]
    fn equal_scores_keep_their_order() {
        assert_eq!(nms(&[B, A, C], &[0.5, 0.5, 0.5], 0.3), vec![0]);
        assert_eq!(nms(&[A, B, C], &[0.5, 0.5, 0.5], 0.3), vec![0, 2]);
    }

    #[test]
    fn classes_are_apart_and_the_limit_is_over_all() {
        let boxes = [A, A, B, C];
        let scores = [0.5, 0.9, 0.8, 0.7];
        let labels = [1, 0, 0, 0];
        assert_eq!(
            batched_nms(&boxes, &scores, &labels, 0.3, usize::MAX),
            vec![1, 3, 0]
        );
        assert_eq!(batched_nms(&boxes, &scores, &labels, 0.3, 2), vec![1, 3]);
    }

    #[test]
    fn nothing_in_nothing_out() {
        assert_eq!(nms(&[], &[], 0.5), Vec::<usize>::new());
    }

    #[test]
    fn equal_to_torchvision() {
        let golden = Golden::load();
        let boxes = golden.boxes("nms.boxes");
        let scores = golden.values("nms.scores");
        let labels = golden.indices("nms.labels");
        for threshold in [0.25, 0.5, 0.75] {
            let single = nms(&boxes, scores, threshold);
            assert_eq!(single, golden.indices(&format!("nms.single.{threshold}")));
            let batched = batched_nms(&boxes, scores, &labels, threshold, usize::MAX);
            assert_eq!(batched, golden.indices(&format!("nms.batched.{threshold}")));
        }
    }
}
