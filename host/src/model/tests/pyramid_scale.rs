//! A detector with an enlarged pyramid beside the plain one on large images.

use burn::tensor::Device;

use super::*;
use crate::boxes::BoxXyxy;
use crate::data::ImageTargets;
use crate::kernels::with_operations;
use crate::model::{build_detector, initial_state, tap_table, weights};
use crate::rng::KeyedRng;

const CLASSES: usize = 3;
const SCALES: [f64; 5] = [1.5, 2.0, 2.5, 3.0, 4.0];
/// Network inputs; the third makes levels whose extents are odd.
const INPUTS: [[usize; 2]; 4] = [[64, 96], [32, 32], [96, 160], [224, 32]];

/// Losses are sums over locations of numbers that differ by roundings of coordinates.
const LOSS_TOLERANCE: f32 = 1e-5;

fn detector(name: &str, scale: f64) -> Box<dyn Detector> {
    let config = ModelConfig {
        detector: name.into(),
        pyramid_scale: scale,
        // An untrained head is sure of nothing.
        score_threshold: 0.0,
        ..small_config()
    };
    build_detector(&config, CLASSES).unwrap()
}

fn large(input: [usize; 2], scale: f64) -> [usize; 2] {
    input.map(|extent| (extent as f64 * scale).round() as usize)
}

fn weights_of(detector: &dyn Model) -> Vec<Tensor<1>> {
    weights::tensors(detector, &initial_state(detector, 5), &Device::flex()).unwrap()
}

fn image(size: [usize; 2]) -> Tensor<4> {
    let [height, width] = size;
    let mut rng = KeyedRng::new("image", &[height as u64, width as u64]);
    let pixels: Vec<f32> = (0..3 * height * width)
        .map(|_| rng.normal() as f32)
        .collect();
    Tensor::from_data(
        TensorData::new(pixels, [1, 3, height, width]),
        &Device::flex(),
    )
}

#[test]
fn anchors_are_those_of_the_large_input() {
    for name in DETECTORS {
        let plain = detector(name, 1.0);
        for scale in SCALES {
            let scaled = detector(name, scale);
            for input in INPUTS {
                let want = plain.anchors(large(input, scale));
                let got = scaled.anchors(input);
                let case = format!("{name}, {scale}, {input:?}");
                assert_eq!(got.len(), want.len(), "{case}");
                for (&got, &want) in got.as_flattened().iter().zip(want.as_flattened()) {
                    let back = got * scale as f32;
                    let ulp = f32::from_bits(want.abs().to_bits() + 1) - want.abs();
                    let allowed = if scale.log2().fract() == 0.0 {
                        0.0
                    } else {
                        ulp
                    };
                    assert!(
                        (back - want).abs() <= allowed,
                        "{case}: {back} is not {want}"
                    );
                }
            }
        }
    }
}

/// Objects of the large input, on quarters of a pixel, so that halving and quartering them is exact.
fn objects(size: [usize; 2], count: usize) -> Vec<BoxXyxy> {
    let mut rng = KeyedRng::new("objects", &[size[0] as u64, size[1] as u64]);
    let mut side = |extent: usize| {
        let mut at = || (rng.range(0.0, extent as f64) * 4.0).round() as f32 / 4.0;
        let (a, b) = (at(), at());
        [a.min(b), a.max(b) + 4.0]
    };
    let mut object = || {
        let ([y1, y2], [x1, x2]) = (side(size[0]), side(size[1]));
        [x1, y1, x2, y2]
    };
    (0..count).map(|_| object()).collect()
}

fn targets(boxes_xyxy: Vec<BoxXyxy>) -> ImageTargets {
    ImageTargets {
        labels: (0..boxes_xyxy.len()).map(|i| i % CLASSES).collect(),
        boxes_xyxy,
        ..ImageTargets::default()
    }
}

/// The same head's outputs under both frames: ground truth is matched alike, and losses are equal.
#[test]
fn both_frames_match_and_judge_alike() {
    for name in DETECTORS {
        let plain = detector(name, 1.0);
        let weights = weights_of(plain.as_ref());
        for scale in SCALES {
            let exact = scale.log2().fract() == 0.0;
            let scaled = detector(name, scale);
            let input = [96, 160];
            let size = large(input, scale);
            let boxes = objects(size, 12);
            let smaller = |b: &BoxXyxy| b.map(|side| (f64::from(side) / scale) as f32);
            let small = targets(boxes.iter().map(smaller).collect());
            let want = plain.assign(size, &[targets(boxes)]);
            let got = scaled.assign(input, &[small]);
            let case = format!("{name}, {scale}");
            let fg = want.matched[0]
                .iter()
                .filter(|&&object| object >= 0)
                .count();
            assert!(fg > 20, "{case}: {fg} foreground");
            let differ = |(a, b): (&i32, &i32)| a != b;
            let pairs = got.matched[0].iter().zip(&want.matched[0]);
            let others = pairs.filter(|pair| differ(*pair)).count();
            // With other scales roundings decide where overlaps lie at a threshold, or where an object
            // overlaps several anchors alike.
            let allowed = match exact {
                true => 0,
                false => want.matched[0].len() / 200,
            };
            assert!(others <= allowed, "{case}: {others} matched otherwise");

            let head = plain.forward(&weights, image(size), &request(false, &[], false));
            let head = head.head().unwrap();
            if others == 0 {
                let values_of = |detector: &dyn Detector, assignment| {
                    let losses = detector.losses(head, assignment).into_iter();
                    losses
                        .map(|(name, loss)| (name, loss.into_scalar::<f32>()))
                        .collect::<Vec<_>>()
                };
                let want = values_of(plain.as_ref(), &want);
                for (got, want) in values_of(scaled.as_ref(), &got).iter().zip(&want) {
                    assert_eq!(got.0, want.0);
                    let error = (got.1 - want.1).abs() / want.1.abs().max(1e-3);
                    let tolerance = LOSS_TOLERANCE;
                    assert!(error < tolerance, "{case}: {got:?} is not {want:?}");
                }
            }
            let want = plain.decoded_boxes(head, size);
            let got = scaled.decoded_boxes(head, input);
            let bound = size[0].max(size[1]) as f32 * 1e-5;
            for (got, want) in got.as_flattened().iter().zip(want.as_flattened()) {
                let back = got * scale as f32;
                let error = (back - want).abs();
                assert!(
                    error <= bound.max(1e-5 * want.abs()),
                    "{case}: {back} {want}"
                );
            }
            // Rounding may carry an overlap across the threshold of suppression.
            if exact {
                let want = &plain.detect(head, size, &[size])[0];
                let got = &scaled.detect(head, input, &[input])[0];
                assert_eq!(want.scores.len(), 100, "{case}");
                assert_eq!((&got.scores, &got.labels), (&want.scores, &want.labels));
                let back = got
                    .boxes_xyxy
                    .iter()
                    .map(|b| b.map(|side| side * scale as f32));
                assert_eq!(back.collect::<Vec<_>>(), want.boxes_xyxy, "{case}");
            }
        }
    }
}

#[test]
fn one_builds_the_very_same_detector() {
    // Scale 1 adds no operation; what `small_config` has is what the goldens hold.
    for name in DETECTORS {
        let (a, b) = (detector(name, 1.0), detector(name, 2.0));
        assert_eq!(a.specs(), b.specs(), "{name}: no parameters");
        let weights = weights_of(a.as_ref());
        let [ours, other] = [&a, &b].map(|detector| {
            let taps = ["backbone.c3", "backbone.c5", "neck.p3"];
            detector.forward(&weights, image([64, 96]), &request(false, &taps, false))
        });
        for tap in ["backbone.c3", "backbone.c5"] {
            assert_eq!(
                values(ours.taps[tap].clone()),
                values(other.taps[tap].clone())
            );
        }
        // Every other cell of the enlarged map is one of the map itself.
        let (map, enlarged) = (&ours.taps["neck.p3"], &other.taps["neck.p3"]);
        let [n, c, h, w] = map.dims();
        assert_eq!(enlarged.dims(), [n, c, 2 * h, 2 * w]);
        let cells = enlarged.clone().reshape([n, c, h, 2, w, 2]);
        let cells = cells.slice([0..n, 0..c, 0..h, 0..1, 0..w, 0..1]);
        assert_eq!(values(cells.reshape([n, c, h, w])), values(map.clone()));
    }
}

#[test]
fn taps_have_the_announced_sizes() {
    for name in DETECTORS {
        for scale in SCALES {
            let (scaled, plain) = (detector(name, scale), detector(name, 1.0));
            let weights = weights_of(scaled.as_ref());
            for input in INPUTS {
                for operations in [false, true] {
                    let taps = all_taps(scaled.as_ref());
                    let forward = with_operations(operations, || {
                        scaled.forward(&weights, image(input), &request(false, &taps, false))
                    });
                    let size = large(input, scale);
                    let mut cells = 0;
                    for (tap, same) in scaled.taps().iter().zip(plain.taps()) {
                        assert_eq!(tap.name, same.name);
                        let [h, w] = scaled.tap_size(tap, input);
                        let case = format!("{name}, {scale}, {input:?}, {}", tap.name);
                        let map = &forward.taps[&tap.name];
                        assert_eq!(map.dims(), [1, tap.channels, h, w], "{case}");
                        let seen = match tap.name.contains(".p") {
                            true => size,
                            false => input,
                        };
                        assert_eq!([h, w], plain.tap_size(same, seen), "{case}");
                        cells += if tap.name.starts_with("neck.") {
                            h * w
                        } else {
                            0
                        };
                    }
                    let anchors = scaled.anchors(input).len();
                    assert_eq!(anchors % cells, 0);
                    assert_eq!(anchors, plain.anchors(size).len());
                }
            }
        }
    }
}

/// A pass that stops at its taps and the head on the pyramid give what the whole pass gives.
#[test]
fn parts_of_a_pass_agree_with_the_whole() {
    for name in DETECTORS {
        let detector = detector(name, 1.5);
        let weights = weights_of(detector.as_ref());
        let taps = ["neck.p4", "head.cls_logits.p5", "head.box_feat.p7"];
        let forward =
            |stop| detector.forward(&weights, image([64, 96]), &request(false, &taps, stop));
        let (whole, part) = (forward(false), forward(true));
        for tap in taps {
            let [whole, part] = [&whole, &part].map(|f| values(f.taps[tap].clone()));
            assert_eq!(whole, part, "{name} {tap}");
        }
        let again = detector.head(&weights, &whole.pyramid);
        for (a, b) in outputs(&again)
            .into_iter()
            .zip(outputs(whole.head().unwrap()))
        {
            assert_eq!(values(a), values(b), "{name}");
        }
    }
}

#[test]
fn the_tap_table_has_the_enlarged_sizes() {
    let (assistant, teacher) = (detector("retinanet", 2.0), detector("retinanet", 1.0));
    let rows = tap_table(assistant.as_ref(), Some(teacher.as_ref()), [64, 96]);
    let row = |name: &str| {
        let row = rows.iter().find(|row| row.name == name).unwrap();
        [&row.student, &row.teacher].map(|shape| {
            let shape = shape.as_ref().unwrap();
            (shape.size, shape.stride)
        })
    };
    assert_eq!(row("backbone.c3"), [([8, 12], 8), ([8, 12], 8)]);
    assert_eq!(row("neck.p3"), [([16, 24], 4), ([8, 12], 8)]);
    assert_eq!(row("head.cls_logits.p6"), [([2, 3], 32), ([1, 2], 64)]);
}

#[test]
fn a_scale_without_a_pyramid_or_below_zero_is_refused() {
    for (scale, task, needle) in [
        (2.0, Task::Segmentation, "only a detector has a pyramid"),
        (0.0, Task::Detection, "expected more than 0"),
        (f64::NAN, Task::Detection, "expected more than 0"),
        (f64::INFINITY, Task::Detection, "expected more than 0"),
    ] {
        let config = ModelConfig {
            pyramid_scale: scale,
            ..small_config()
        };
        let refused = crate::model::build(&config, task, CLASSES).err().unwrap();
        let message = refused.to_string();
        assert!(message.contains("pyramid_scale"), "{message}");
        assert!(message.contains(needle), "{message}");
    }
}
