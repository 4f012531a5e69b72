//! The matcher by hand, against torchvision, and against a naive form on many random boxes.

use super::*;
use crate::detection::AnchorGenerator;
use crate::detection::golden::Golden;
use crate::rng::KeyedRng;

fn image(boxes_xyxy: Vec<BoxXyxy>) -> ImageTargets {
    ImageTargets {
        labels: vec![0; boxes_xyxy.len()],
        boxes_xyxy,
        ..ImageTargets::default()
    }
}

fn grid(input_size: [usize; 2], level_sizes: &[[usize; 2]]) -> Arc<Vec<BoxXyxy>> {
    let scales = [1.0, 1.259_921, 1.587_401];
    AnchorGenerator::new(16, &scales, &[0.5, 1.0, 2.0], level_sizes.len())
        .anchors(input_size, level_sizes)
}

/// The rule as it reads, with the whole matrix of overlaps.
fn naive(anchors: &[BoxXyxy], objects: &[BoxXyxy], fg: f32, bg: f32) -> Vec<i32> {
    let overlap = |object: BoxXyxy, anchor: BoxXyxy| {
        iou(object, boxes::area(object), anchor, boxes::area(anchor))
    };
    let highest: Vec<f32> = objects
        .iter()
        .map(|&o| anchors.iter().map(|&a| overlap(o, a)).fold(0.0, f32::max))
        .collect();
    anchors
        .iter()
        .map(|&anchor| {
            let overlaps: Vec<f32> = objects.iter().map(|&o| overlap(o, anchor)).collect();
            let mut best = 0;
            for (object, &value) in overlaps.iter().enumerate() {
                if value > overlaps[best] {
                    best = object;
                }
            }
            let is_best_of_some = overlaps
                .iter()
                .zip(&highest)
                .any(|(&value, &highest)| highest > 0.0 && value == highest);
            if overlaps[best] >= fg || is_best_of_some {
                best as i32
            } else if overlaps[best] < bg {
                BACKGROUND
            } else {
                IGNORED
            }
        })
        .collect()
}

#[test]
fn thresholds_by_hand() {
    // One object 10 × 10; anchors of its height, all starting at its corner: IoU = width / 10
    // while narrower. 1.0, 0.5 foreground; 0.45 between; 0.3 and no overlap background.
    let anchors: Vec<BoxXyxy> = [10.0, 5.0, 4.5, 3.0]
        .iter()
        .map(|&width| [0.0, 0.0, width, 10.0])
        .chain([[50.0, 50.0, 60.0, 60.0]])
        .collect();
    let targets = [image(vec![[0.0, 0.0, 10.0, 10.0]])];
    let assignment = assign(Arc::new(anchors), &targets, 0.5, 0.4);
    assert_eq!(
        assignment.matched[0],
        vec![0, 0, IGNORED, BACKGROUND, BACKGROUND]
    );
}

#[test]
fn every_best_anchor_of_a_weak_object_matches_its_own_best_object() {
    // Object 1 overlaps no anchor by more than 2·10 / (100 + 100 - 20) = 1/9: both anchors tie.
    // The first of them overlaps object 0 more (IoU 1), so it goes to object 0.
    let anchors = vec![[0.0, 0.0, 10.0, 10.0], [16.0, 0.0, 26.0, 10.0]];
    let objects = vec![[0.0, 0.0, 10.0, 10.0], [8.0, 0.0, 18.0, 10.0]];
    let assignment = assign(Arc::new(anchors), &[image(objects)], 0.5, 0.4);
    assert_eq!(assignment.matched[0], vec![0, 1]);
}

#[test]
fn no_objects_is_all_background() {
    let anchors = Arc::new(vec![[0.0, 0.0, 10.0, 10.0]; 7]);
    let assignment = assign(anchors, &[image(vec![])], 0.5, 0.4);
    assert_eq!(assignment.matched[0], vec![BACKGROUND; 7]);
}

#[test]
fn an_object_that_overlaps_nothing_changes_nothing() {
    let anchors = Arc::new(vec![[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]]);
    // One within the first anchor, one outside of all, one empty within the second.
    let objects = vec![
        [0.0, 0.0, 10.0, 9.0],
        [90.0, 90.0, 99.0, 99.0],
        [25.0, 5.0, 25.0, 5.0],
    ];
    let assignment = assign(anchors, &[image(objects)], 0.5, 0.4);
    assert_eq!(assignment.matched[0], vec![0, BACKGROUND]);
}

#[test]
fn equal_to_torchvision() {
    let golden = Golden::load();
    let input_size = golden.sizes("matches.input_size")[0];
    let anchors = grid(input_size, &golden.sizes("matches.level_sizes"));
    for case in ["random", "many", "ties", "tiny"] {
        let targets = [image(golden.boxes(&format!("matches.{case}.boxes")))];
        for (fg, bg) in [(0.5, 0.4), (0.7, 0.3)] {
            let assignment = assign(Arc::clone(&anchors), &targets, fg, bg);
            assert_eq!(
                assignment.matched[0],
                golden.integers(&format!("matches.{case}.{fg}")),
                "{case} at {fg}"
            );
        }
    }
}

#[test]
fn equal_to_the_naive_form_on_any_number_of_anchors() {
    let mut rng = KeyedRng::new("assigner test", &[0]);
    // Whole coordinates, so that ties abound; more anchors than one chunk, and not a multiple of it.
    let mut draw = |count: usize| -> Vec<BoxXyxy> {
        (0..count)
            .map(|_| {
                let mut value = |bound: usize| rng.below(bound) as f32;
                let [x, y] = [value(60), value(60)];
                [x, y, x + 1.0 + value(30), y + 1.0 + value(30)]
            })
            .collect()
    };
    for (num_anchors, num_objects) in [(1, 1), (BLOCK + 1, 40), (2 * CHUNK + 17, 9)] {
        let (anchors, objects) = (draw(num_anchors), draw(num_objects));
        assert_eq!(
            match_image(&anchors, &objects, 0.5, 0.4),
            naive(&anchors, &objects, 0.5, 0.4),
            "{num_anchors} anchors, {num_objects} objects"
        );
    }
}
