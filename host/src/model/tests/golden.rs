//! Against torchvision: `tests/golden/model/make_model_golden.py` and
//! `tests/golden/fcos/make_fcos_golden.py` wrote the reference.

use std::collections::BTreeMap;

use burn::tensor::Device;

use super::*;
use crate::data::ImageTargets;
use crate::detection::HeadOutput;
use crate::model::weights;

/// f32 convolutions sum in another order than torch's: some 1e-7 a layer, over 20 layers.
const TOLERANCE: f64 = 1e-5;
/// Gradients pass every layer twice, and batch statistics of a few values amplify rounding.
const GRADIENT_TOLERANCE: f64 = 1e-4;

/// Detectors with batch normalisation, then one whose statistics are frozen.
const FILES: [&str; 3] = [
    "model/basic_batch",
    "fcos/basic_batch",
    "model/bottleneck_frozen",
];

struct Golden {
    file: StateDict,
    detector: Box<dyn Detector>,
    weights: Vec<Tensor<1>>,
    device: Device,
}

fn golden(name: &str) -> Golden {
    let file = StateDict::load(&golden_path(&format!("{name}.safetensors"))).unwrap();
    let detector = golden_detector(name);
    let device = Device::flex();
    let mut state = StateDict::default();
    weights::load_into(&mut state, detector.as_ref(), &below(&file, "state"))
        .unwrap()
        .strict()
        .unwrap();
    let weights = weights::tensors(detector.as_ref(), &state, &device).unwrap();
    Golden {
        file,
        detector,
        weights,
        device,
    }
}

impl Golden {
    fn image(&self) -> Tensor<4> {
        map(&self.file.entries["image"], &self.device)
    }

    fn compare(&self, mode: &str, taps: &BTreeMap<String, Tensor<4>>) {
        let reference = below(&self.file, mode);
        // All taps but `image`, which is the input.
        assert_eq!(reference.entries.len(), self.detector.taps().len() - 1);
        for (name, expected) in &reference.entries {
            let tap = &taps[name];
            assert_eq!(tap.dims().as_slice(), expected.shape, "{name}");
            let error = relative_error(&values(tap.clone()), &expected.data);
            assert!(
                error <= TOLERANCE,
                "{mode}/{name}: relative error {error:e}"
            );
        }
    }
}

/// What the generator differentiates: the mean of squares of each output, summed.
fn objective(head: &HeadOutput) -> Tensor<1> {
    outputs(head)
        .into_iter()
        .map(|output| output.square().mean())
        .reduce(|a, b| a + b)
        .unwrap()
}

#[test]
fn evaluation_agrees_with_torchvision() {
    for name in FILES {
        let golden = golden(name);
        let taps = all_taps(golden.detector.as_ref());
        let request = request(false, &taps, false);
        let forward = golden
            .detector
            .forward(&golden.weights, golden.image(), &request);
        golden.compare("eval", &forward.taps);
        assert!(forward.batch_stats.is_empty());
        assert_eq!(forward.pyramid.len(), 5);
        let head = forward.head().unwrap();
        assert_eq!(
            values(head.cls_logits.nchw(4)),
            values(forward.taps["head.cls_logits.p7"].clone())
        );
    }
}

#[test]
fn frozen_statistics_make_training_equal_evaluation() {
    let golden = golden("model/bottleneck_frozen");
    let request = request(true, &all_taps(golden.detector.as_ref()), false);
    let forward = golden
        .detector
        .forward(&golden.weights, golden.image(), &request);
    golden.compare("eval", &forward.taps);
    assert!(forward.batch_stats.is_empty());
}

#[test]
fn training_agrees_with_torchvision_and_returns_its_statistics() {
    for name in &FILES[..2] {
        let golden = golden(name);
        let request = request(true, &all_taps(golden.detector.as_ref()), false);
        let forward = golden
            .detector
            .forward(&golden.weights, golden.image(), &request);
        golden.compare("train", &forward.taps);

        let specs = golden.detector.specs();
        let buffers = specs.iter().filter(|spec| spec.kind.is_buffer()).count();
        assert_eq!(2 * forward.batch_stats.len(), buffers);
        for stats in forward.batch_stats {
            for (index, new) in [(stats.mean_index, stats.mean), (stats.var_index, stats.var)] {
                // torch's momentum: 0.1 of the new statistics.
                let running = golden.weights[index].clone() * 0.9 + new * 0.1;
                let name = &specs[index].name;
                let expected = &golden.file.entries[&format!("after/{name}")];
                let error = relative_error(&values(running), &expected.data);
                assert!(error <= TOLERANCE, "{name}: relative error {error:e}");
            }
        }
    }
}

#[test]
fn gradients_agree_with_torch_and_reach_trainable_weights_alone() {
    for name in FILES {
        let golden = golden(name);
        let weights = student_weights(golden.detector.as_ref(), golden.weights.clone());
        let forward = golden
            .detector
            .forward(&weights, golden.image(), &request(true, &[], false));
        let gradients = objective(forward.head().unwrap()).backward();
        let mut compared = 0;
        for (spec, weight) in golden.detector.specs().iter().zip(&weights) {
            let expected = golden.file.entries.get(&format!("grad/{}", spec.name));
            assert_eq!(expected.is_some(), spec.trainable, "{}", spec.name);
            let gradient = weight.grad(&gradients);
            assert_eq!(gradient.is_some(), spec.trainable, "{}", spec.name);
            if let (Some(expected), Some(gradient)) = (expected, gradient) {
                let error = relative_error(&values(gradient), &expected.data);
                assert!(
                    error <= GRADIENT_TOLERANCE,
                    "{}: relative error {error:e}",
                    spec.name
                );
                compared += 1;
            }
        }
        assert!(compared > 30, "{compared}");
    }
}

/// Ground truth, losses and detections through the whole detector: anchors, levels and thresholds are
/// those of torchvision's.
#[test]
fn losses_and_detections_agree_with_torchvision() {
    for name in FILES {
        let golden = golden(name);
        let entry = |key: &str| &golden.file.entries[key];
        let labels = |array: &Array| array.data.iter().map(|l| *l as usize).collect::<Vec<_>>();
        let [_, _, height, width] = golden.image().dims();
        let request = request(false, &[], false);
        let forward = golden
            .detector
            .forward(&golden.weights, golden.image(), &request);
        let head = forward.head().unwrap();

        let targets: Vec<ImageTargets> = (0..2)
            .map(|i| ImageTargets {
                boxes_xyxy: boxes(entry(&format!("targets/{i}/boxes"))),
                labels: labels(entry(&format!("targets/{i}/labels"))),
                ..ImageTargets::default()
            })
            .collect();
        let assignment = golden.detector.assign([height, width], &targets);
        let losses = golden.detector.losses(head, &assignment);
        assert_eq!(losses.len(), below(&golden.file, "loss").entries.len());
        for loss in losses {
            let key = &loss.0.replace('_', "/");
            let error = relative_error(&values(loss.1), &entry(key).data);
            assert!(error <= TOLERANCE, "{key}: relative error {error:e}");
        }

        let sizes = [[48, 76], [44, 60]];
        let found = golden.detector.detect(head, [height, width], &sizes);
        assert_eq!(found.len(), 2);
        for (i, found) in found.iter().enumerate() {
            let expected = |what: &str| entry(&format!("detections/{i}/{what}"));
            // The same boxes in the same order.
            assert_eq!(
                found.labels,
                labels(expected("labels")),
                "{name}, image {i}"
            );
            for (what, values) in [
                ("scores", &found.scores),
                ("boxes", &found.boxes_xyxy.concat()),
            ] {
                let error = relative_error(values, &expected(what).data);
                assert!(
                    error <= TOLERANCE,
                    "{name}, {what}: relative error {error:e}"
                );
            }
        }
    }
}

fn boxes(array: &Array) -> Vec<[f32; 4]> {
    let (boxes, rest) = array.data.as_chunks::<4>();
    assert!(rest.is_empty());
    boxes.to_vec()
}

#[test]
fn a_pass_that_stops_gives_the_same_taps_and_nothing_else() {
    for name in &FILES[..2] {
        let golden = golden(name);
        let all = all_taps(golden.detector.as_ref());
        let whole = golden.detector.forward(
            &golden.weights,
            golden.image(),
            &request(false, &all, false),
        );
        for name in all {
            let stopped = golden.detector.forward(
                &golden.weights,
                golden.image(),
                &request(false, &[name], true),
            );
            assert_eq!(stopped.taps.keys().collect::<Vec<_>>(), [name]);
            // The same operations in the same order: equal bits.
            assert_eq!(
                values(stopped.taps[name].clone()),
                values(whole.taps[name].clone()),
                "{name}"
            );
            assert!(stopped.output.is_none() && stopped.pyramid.is_empty());
        }
    }
}

#[test]
fn a_stopped_pass_computes_only_what_its_taps_need() {
    let golden = golden("model/basic_batch");
    // Statistics are recorded by every normalisation that runs: 1 in the stem, then per stage.
    for (tap, expected) in [
        ("image", 0),
        ("stem.conv", 0),
        ("stem", 1),
        ("backbone.c2", 3),
        ("backbone.c3", 8),
        ("backbone.c5", 14),
    ] {
        let request = request(true, &[tap], true);
        let forward = golden
            .detector
            .forward(&golden.weights, golden.image(), &request);
        assert_eq!(forward.batch_stats.len(), expected, "{tap}");
    }
}

#[test]
fn the_head_alone_gives_the_whole_pass_outputs() {
    for (name, kinds) in FILES.into_iter().zip([2, 3, 2]) {
        let golden = golden(name);
        let request = request(false, &[], false);
        let forward = golden
            .detector
            .forward(&golden.weights, golden.image(), &request);
        let whole = outputs(forward.head().unwrap());
        let alone = outputs(&golden.detector.head(&golden.weights, &forward.pyramid));
        assert_eq!((whole.len(), alone.len()), (5 * kinds, 5 * kinds));
        for (whole, alone) in whole.into_iter().zip(alone) {
            assert_eq!(whole.dims(), alone.dims());
            assert_eq!(values(whole), values(alone), "{name}");
        }
    }
}

#[test]
fn taps_have_the_announced_channels_and_sizes() {
    for name in &FILES[..2] {
        let golden = golden(name);
        let request = request(false, &all_taps(golden.detector.as_ref()), false);
        let forward = golden
            .detector
            .forward(&golden.weights, golden.image(), &request);
        let [n, _, height, width] = golden.image().dims();
        for tap in golden.detector.taps() {
            let [rows, columns] = golden.detector.tap_size(tap, [height, width]);
            assert_eq!(
                forward.taps[&tap.name].dims(),
                [n, tap.channels, rows, columns],
                "{}",
                tap.name
            );
        }
    }
}
