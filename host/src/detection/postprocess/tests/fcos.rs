//! Detections with centerness.

use super::*;

fn config() -> PostprocessConfig {
    PostprocessConfig {
        box_coder: BoxCoder::EdgeDistances,
        ..super::config()
    }
}

#[test]
fn equal_to_torchvision() {
    let golden = Golden::fcos();
    let anchors = AnchorGenerator::new(8, &[1.0], &[1.0], 3).anchors(
        golden.sizes("detections.input_size")[0],
        &golden.sizes("detections.level_sizes"),
    );
    compare(&golden, &anchors, BoxCoder::EdgeDistances);
}

/// As `row`, with distances and centerness.
fn central(logits: [[f32; 3]; 2], centerness: [f32; 3]) -> (HeadOutput, Vec<BoxXyxy>) {
    let (mut head, anchors) = row(logits, [[0.5; 3]; 4]);
    let data = TensorData::new(centerness.to_vec(), [1, 1, 1, 3]);
    let map = Tensor::from_data(data, &Device::flex());
    head.centerness = Some(crate::maps::Maps::from_nchw(map));
    (head, anchors)
}

#[test]
fn a_score_is_the_geometric_mean() {
    // Probabilities 1/2, 1/5, 1/2 and centerness 1/2, 4/5, 1/10.
    let odds = |p: f32| (p / (1.0 - p)).ln();
    let (head, anchors) = central(
        [[0.0, odds(0.2), 0.0], [-20.0; 3]],
        [0.0, odds(0.8), odds(0.1)],
    );
    let found = &detect(&head, &anchors, &[[20, 40]], &config())[0];
    let expected = [0.25_f32, 0.16, 0.05].map(f32::sqrt);
    assert_eq!(found.scores.len(), 3);
    for (got, want) in found.scores.iter().zip(expected) {
        assert!((got - want).abs() < 1e-6, "{:?}", found.scores);
    }
    // Half a side each way: the square itself.
    assert_eq!(found.boxes_xyxy[0], anchors[0]);
}

#[test]
fn the_threshold_is_on_the_score() {
    // √(1/2 · 1/2) = 1/2 exactly is dropped; a shade more is kept. A certain class at a location that
    // is nowhere near central stays below.
    let (head, anchors) = central([[0.0, 0.0, 30.0], [-20.0; 3]], [0.0, 0.001, -30.0]);
    let half = PostprocessConfig {
        score_threshold: 0.5,
        ..config()
    };
    let found = &detect(&head, &anchors, &[[20, 40]], &half)[0];
    assert_eq!(found.boxes_xyxy, vec![anchors[1]]);
    let all = PostprocessConfig {
        score_threshold: 0.0,
        ..config()
    };
    let found = &detect(&head, &anchors, &[[20, 40]], &all)[0];
    assert_eq!(found.scores.len(), 6);
}
