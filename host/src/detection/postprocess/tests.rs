//! Final detections against torchvision, ties and limits by hand.

mod fcos;

use burn::tensor::{Device, Tensor, TensorData};

use super::*;
use crate::detection::AnchorGenerator;
use crate::detection::golden::{Golden, HeadMaps, relative_error};

/// Two roundings of the exponential; boxes are sums of numbers of about 100.
const TOLERANCE: f64 = 1e-6;

fn config() -> PostprocessConfig {
    PostprocessConfig {
        num_classes: 2,
        box_coder: BoxCoder::CenterSize,
        score_threshold: 0.05,
        nms_threshold: 0.5,
        topk_candidates: 100,
        detections_per_image: 100,
    }
}

#[test]
fn equal_to_torchvision() {
    let golden = Golden::load();
    let scales = [1.0, 1.259_921, 1.587_401];
    let anchors = AnchorGenerator::new(16, &scales, &[0.5, 1.0, 2.0], 3).anchors(
        golden.sizes("detections.input_size")[0],
        &golden.sizes("detections.level_sizes"),
    );
    compare(&golden, &anchors, BoxCoder::CenterSize);
}

/// All cases of a golden file.
fn compare(golden: &Golden, anchors: &[BoxXyxy], box_coder: BoxCoder) {
    let head = golden.head("detections", 3, &Device::flex()).output();
    let sizes = golden.sizes("detections.sizes");
    for case in 0..4 {
        let values = golden.values(&format!("detections.{case}.config"));
        let config = PostprocessConfig {
            num_classes: 3,
            box_coder,
            score_threshold: values[0],
            nms_threshold: values[1],
            topk_candidates: values[2] as usize,
            detections_per_image: values[3] as usize,
        };
        let detections = detect(&head, anchors, &sizes, &config);
        let counts: Vec<usize> = detections.iter().map(|d| d.scores.len()).collect();
        assert_eq!(counts, golden.indices(&format!("detections.{case}.counts")));
        if counts.iter().sum::<usize>() == 0 {
            continue;
        }
        let labels: Vec<usize> = detections.iter().flat_map(|d| d.labels.clone()).collect();
        assert_eq!(labels, golden.indices(&format!("detections.{case}.labels")));
        let scores: Vec<f32> = detections.iter().flat_map(|d| d.scores.clone()).collect();
        let boxes: Vec<f32> = detections
            .iter()
            .flat_map(|d| d.boxes_xyxy.concat())
            .collect();
        for (got, key) in [(scores, "scores"), (boxes, "boxes")] {
            let want = golden.values(&format!("detections.{case}.{key}"));
            let error = relative_error(&got, want);
            assert!(error < TOLERANCE, "case {case}, {key}: {error:e}");
        }
    }
}

/// One level of 1 × 3 cells, 1 anchor of 8 × 8 a cell 10 apart, 2 classes; zero deltas.
fn row(logits: [[f32; 3]; 2], deltas: [[f32; 3]; 4]) -> (HeadOutput, Vec<BoxXyxy>) {
    let device = Device::flex();
    let head = HeadMaps {
        cls_logits: vec![Tensor::from_data(
            TensorData::new(logits.concat(), [1, 2, 1, 3]),
            &device,
        )],
        box_deltas: vec![Tensor::from_data(
            TensorData::new(deltas.concat(), [1, 4, 1, 3]),
            &device,
        )],
        centerness: Vec::new(),
    };
    let anchors = (0..3)
        .map(|i| [10.0 * i as f32, 0.0, 10.0 * i as f32 + 8.0, 8.0])
        .collect();
    (head.output(), anchors)
}

#[test]
fn equal_scores_go_by_cell_then_class() {
    let (head, anchors) = row([[0.0; 3]; 2], [[0.0; 3]; 4]);
    let all = &detect(&head, &anchors, &[[20, 40]], &config())[0];
    assert_eq!(all.labels, vec![0, 1, 0, 1, 0, 1]);
    assert_eq!(all.boxes_xyxy[2], anchors[1]);
    // The limit before suppression keeps the first of them.
    let four = PostprocessConfig {
        topk_candidates: 4,
        ..config()
    };
    let some = &detect(&head, &anchors, &[[20, 40]], &four)[0];
    assert_eq!(some.labels, vec![0, 1, 0, 1]);
    assert_eq!(some.boxes_xyxy, all.boxes_xyxy[..4]);
}

#[test]
fn a_score_at_the_threshold_is_dropped() {
    // sigmoid(0) = 0.5 exactly.
    let (head, anchors) = row([[0.0, 0.001, -9.0], [-9.0; 3]], [[0.0; 3]; 4]);
    let half = PostprocessConfig {
        score_threshold: 0.5,
        ..config()
    };
    let found = &detect(&head, &anchors, &[[20, 40]], &half)[0];
    assert_eq!(found.boxes_xyxy, vec![anchors[1]]);
}

#[test]
fn boxes_are_clipped_before_suppression() {
    // dx = -1 moves the second box by one width, from 10..18 to 2..10. The image ends at 6, which
    // leaves 0..6 and 2..6: IoU 32 / 48 = 0.67. Unclipped it would be 48 / (64 + 64 - 48) = 0.6.
    let (head, anchors) = row(
        [[2.0, 1.0, -9.0], [-9.0; 3]],
        [[0.0, -1.0, 0.0], [0.0; 3], [0.0; 3], [0.0; 3]],
    );
    let between = PostprocessConfig {
        nms_threshold: 0.63,
        ..config()
    };
    let found = &detect(&head, &anchors, &[[8, 6]], &between)[0];
    assert_eq!(found.boxes_xyxy, vec![[0.0, 0.0, 6.0, 8.0]]);
}

#[test]
fn nothing_above_the_threshold_is_no_detection() {
    let (head, anchors) = row([[-9.0; 3]; 2], [[0.0; 3]; 4]);
    let found = detect(&head, &anchors, &[[20, 40]], &config());
    assert_eq!(found, vec![Detections::default()]);
}
