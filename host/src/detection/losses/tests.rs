//! Values and gradients against torchvision, against finite differences, and at the extremes.

mod fcos;

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use super::*;
use crate::data::ImageTargets;
use crate::detection::golden::{Golden, HeadMaps, relative_error};
use crate::detection::{AnchorGenerator, BACKGROUND, IGNORED, assign};
use crate::rng::KeyedRng;

/// Against torchvision in f32: other orders of summation leave about 1e-7 here; torchvision itself
/// may lose a little more in its `1 − p_t` for small probabilities.
const GOLDEN_TOLERANCE: f64 = 1e-6;

/// Central differences of f32 losses of about 1 with steps of 1e-2: 6e-8 / 1e-2 of rounding and
/// a truncation of the same order as the step squared.
const DIFFERENCE_STEP: f32 = 1e-2;
const DIFFERENCE_TOLERANCE: f64 = 2e-4;

const LEVELS: usize = 3;
const CLASSES: usize = 3;

fn config() -> LossConfig {
    LossConfig {
        num_classes: CLASSES,
        focal_alpha: 0.25,
        focal_gamma: 2.0,
        box_coder: BoxCoder::CenterSize,
        box_loss: BoxLoss::L1,
        box_loss_weight: 1.0,
    }
}

fn golden_assignment(golden: &Golden, targets: &[ImageTargets]) -> Assignment {
    let scales = [1.0, 1.259_921, 1.587_401];
    let anchors = AnchorGenerator::new(16, &scales, &[0.5, 1.0, 2.0], LEVELS).anchors(
        golden.sizes("losses.input_size")[0],
        &golden.sizes("losses.level_sizes"),
    );
    assign(anchors, targets, 0.5, 0.4)
}

fn golden_batch(golden: &Golden) -> (HeadMaps, Assignment) {
    let head = golden.head("losses", LEVELS, &Device::flex().autodiff());
    let targets: Vec<ImageTargets> = (0..3).map(|i| golden.targets("losses", i)).collect();
    assert!(targets[1].boxes_xyxy.is_empty(), "one image has no object");
    (head, golden_assignment(golden, &targets))
}

fn vector<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .inner()
        .into_data()
        .as_slice::<f32>()
        .unwrap()
        .to_vec()
}

fn scalar(loss: &Tensor<1>) -> f32 {
    loss.clone().inner().into_scalar::<f32>()
}

/// Gradients of `loss` for `maps`, level after level; `None` for a map it does not depend on.
fn gradients(loss: &Tensor<1>, maps: &[Tensor<4>]) -> Vec<Option<Vec<f32>>> {
    let gradients = loss.clone().backward();
    maps.iter()
        .map(|m| m.grad(&gradients).map(vector))
        .collect()
}

fn check_golden(loss: &Tensor<1>, maps: &[Tensor<4>], golden: &Golden, name: &str) {
    let want = golden.values(&format!("losses.{name}.value"));
    let error = relative_error(&[scalar(loss)], want);
    assert!(
        error < GOLDEN_TOLERANCE,
        "{name}: value is off by {error:e}"
    );
    for (level, got) in gradients(loss, maps).into_iter().enumerate() {
        let want = golden.values(&format!("losses.{name}.gradient.{level}"));
        let got = got.unwrap_or_else(|| vec![0.0; want.len()]);
        if want.iter().all(|&w| w == 0.0) {
            assert_eq!(got, want, "{name}: level {level} has no foreground");
            continue;
        }
        let error = relative_error(&got, want);
        assert!(
            error < GOLDEN_TOLERANCE,
            "{name}: gradient of level {level} is off by {error:e}"
        );
    }
}

#[test]
fn classification_equals_torchvision() {
    let golden = Golden::load();
    for name in ["default", "other", "plain"] {
        let (head, assignment) = golden_batch(&golden);
        let values = golden.values(&format!("losses.cls.{name}.config"));
        let config = LossConfig {
            focal_alpha: values[0],
            focal_gamma: values[1],
            ..config()
        };
        let losses = retinanet_losses(&head.output(), &assignment, &config);
        assert_eq!(losses[0].0, "loss_cls");
        check_golden(
            &losses[0].1,
            &head.cls_logits,
            &golden,
            &format!("cls.{name}"),
        );
    }
}

#[test]
fn boxes_equal_torchvision() {
    let golden = Golden::load();
    for (name, box_loss) in [("l1", BoxLoss::L1), ("giou", BoxLoss::Giou)] {
        let (head, assignment) = golden_batch(&golden);
        let config = LossConfig {
            box_loss,
            ..config()
        };
        let losses = retinanet_losses(&head.output(), &assignment, &config);
        assert_eq!(losses[1].0, "loss_bbox");
        check_golden(
            &losses[1].1,
            &head.box_deltas,
            &golden,
            &format!("bbox.{name}"),
        );
    }
}

#[test]
fn both_forms_of_the_focal_loss_agree() {
    let golden = Golden::load();
    let (head, assignment) = golden_batch(&golden);
    let head = head.output();
    let levels = levels(&head, CLASSES, 3, assignment.anchors_xyxy.len());
    let logits = head.cls_logits.cells();
    let classes = focal::target_classes(&assignment, &levels);
    let weights = [0.5, 0.25, 1.0];
    for (alpha, gamma) in [(0.25, 2.0), (0.6, 1.5), (-1.0, 0.0)] {
        let config = LossConfig {
            focal_alpha: alpha,
            focal_gamma: gamma,
            ..config()
        };
        let (fused, fused_gradient) = focal::fused(logits, &levels, &classes, &weights, &config);
        let (composed, composed_gradient) =
            focal::composed(logits, &levels, &classes, &weights, &config);
        let error = relative_error(&vector(composed), &vector(fused));
        assert!(error < GOLDEN_TOLERANCE, "value: {error:e}");
        for level in 0..LEVELS {
            let rows = |gradient: &Tensor<2>| {
                vector(gradient.clone().slice([head.cls_logits.rows(level)]))
            };
            let error = relative_error(&rows(&composed_gradient), &rows(&fused_gradient));
            assert!(error < GOLDEN_TOLERANCE, "gradient: {error:e}");
        }
    }
}

/// One image, one level of 2 × 2 cells with one anchor shape, one object: small enough to perturb
/// every output.
fn small_case() -> (Vec<f32>, Vec<f32>, Assignment) {
    let anchors = AnchorGenerator::new(16, &[1.0], &[1.0], 1).anchors([16, 16], &[[2, 2]]);
    let targets = [ImageTargets {
        boxes_xyxy: vec![[-5.0, -7.0, 9.0, 6.0]],
        labels: vec![1],
        ..ImageTargets::default()
    }];
    let assignment = assign(anchors, &targets, 0.5, 0.2);
    // IoU 0.63, 0.36, 0.22, 0.14.
    assert_eq!(assignment.matched[0], vec![0, IGNORED, IGNORED, BACKGROUND]);
    let mut rng = KeyedRng::new("loss test", &[0]);
    let logits = (0..CLASSES * 4).map(|_| rng.normal() as f32).collect();
    let deltas = (0..16).map(|_| 0.3 * rng.normal() as f32).collect();
    (logits, deltas, assignment)
}

fn small_head(logits: &[f32], deltas: &[f32], device: &Device) -> HeadMaps {
    let map = |values: &[f32]| {
        let data = TensorData::new(values.to_vec(), [1, values.len() / 4, 2, 2]);
        Tensor::from_data(data, device)
    };
    HeadMaps {
        cls_logits: vec![map(logits)],
        box_deltas: vec![map(deltas)],
        centerness: Vec::new(),
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let (logits, deltas, assignment) = small_case();
    for box_loss in [BoxLoss::L1, BoxLoss::Giou] {
        let config = LossConfig {
            box_loss,
            focal_gamma: 1.5,
            box_loss_weight: 2.5,
            ..config()
        };
        let at = |logits: &[f32], deltas: &[f32]| -> Vec<f32> {
            let head = small_head(logits, deltas, &Device::flex());
            retinanet_losses(&head.output(), &assignment, &config)
                .iter()
                .map(|(_, loss)| scalar(loss))
                .collect()
        };
        let slope = |values: &[f32], i: usize, loss: &dyn Fn(&[f32]) -> f32| {
            let mut moved = values.to_vec();
            moved[i] = values[i] + DIFFERENCE_STEP;
            let above = loss(&moved);
            moved[i] = values[i] - DIFFERENCE_STEP;
            (above - loss(&moved)) / (2.0 * DIFFERENCE_STEP)
        };
        let wanted_logits: Vec<f32> = (0..logits.len())
            .map(|i| slope(&logits, i, &|x| at(x, &deltas)[0]))
            .collect();
        let wanted_deltas: Vec<f32> = (0..deltas.len())
            .map(|i| slope(&deltas, i, &|x| at(&logits, x)[1]))
            .collect();

        let mut head = small_head(&logits, &deltas, &Device::flex().autodiff());
        head.cls_logits[0] = head.cls_logits[0].clone().require_grad();
        head.box_deltas[0] = head.box_deltas[0].clone().require_grad();
        let losses = retinanet_losses(&head.output(), &assignment, &config);
        // An upstream factor must come through.
        let total = losses[0].1.clone() * 3.0 + losses[1].1.clone();
        let got = total.backward();
        let got_logits: Vec<f32> = vector(head.cls_logits[0].grad(&got).unwrap())
            .iter()
            .map(|g| g / 3.0)
            .collect();
        let got_deltas = vector(head.box_deltas[0].grad(&got).unwrap());
        let error = relative_error(&got_logits, &wanted_logits);
        assert!(error < DIFFERENCE_TOLERANCE, "logits: {error:e}");
        let error = relative_error(&got_deltas, &wanted_deltas);
        assert!(error < DIFFERENCE_TOLERANCE, "{box_loss:?}: {error:e}");
    }
}

#[test]
fn without_objects_the_box_loss_is_zero_and_connected() {
    let golden = Golden::load();
    for box_loss in [BoxLoss::L1, BoxLoss::Giou] {
        let (mut head, _) = golden_batch(&golden);
        let dims = head.box_deltas[0].dims();
        head.box_deltas[0] = Tensor::full(dims, f32::INFINITY, &Device::flex().autodiff());
        head.box_deltas[0] = head.box_deltas[0].clone().require_grad();
        let assignment = golden_assignment(&golden, &vec![ImageTargets::default(); 3]);
        let config = LossConfig {
            box_loss,
            ..config()
        };
        let losses = retinanet_losses(&head.output(), &assignment, &config);
        assert!(scalar(&losses[0].1) > 0.0, "background still counts");
        assert_eq!(scalar(&losses[1].1), 0.0);
        let first = gradients(&losses[1].1, &head.box_deltas)[0].clone();
        assert_eq!(first, Some(vec![0.0; dims.iter().product()]));
    }
}

#[test]
fn extreme_logits_stay_finite() {
    let (logits, deltas, assignment) = small_case();
    for logit in [-1e4_f32, -100.0, 100.0, 1e4] {
        let mut logits = logits.clone();
        // [K, cell]: the object's class, at the foreground and at the background anchor.
        logits[4] = logit;
        logits[4 + 3] = logit;
        let mut head = small_head(&logits, &deltas, &Device::flex().autodiff());
        head.cls_logits[0] = head.cls_logits[0].clone().require_grad();
        let losses = retinanet_losses(&head.output(), &assignment, &config());
        // One of the two is wrong and costs at least 0.25 |logit|; one foreground anchor.
        let value = scalar(&losses[0].1);
        assert!(value.is_finite() && value > 0.24 * logit.abs(), "{value}");
        let gradient = gradients(&losses[0].1, &head.cls_logits)[0]
            .clone()
            .unwrap();
        assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
    }
}

#[test]
fn ignored_anchors_count_for_nothing() {
    let (mut logits, deltas, assignment) = small_case();
    let head = small_head(&logits, &deltas, &Device::flex());
    let before = scalar(&retinanet_losses(&head.output(), &assignment, &config())[0].1);
    for class in 0..CLASSES {
        logits[class * 4 + 1] = f32::INFINITY;
        logits[class * 4 + 2] = f32::NEG_INFINITY;
    }
    let head = small_head(&logits, &deltas, &Device::flex());
    let after = scalar(&retinanet_losses(&head.output(), &assignment, &config())[0].1);
    // The same terms in the same order: equal to the bit.
    assert_eq!(before, after);
}

#[test]
fn focal_loss_by_hand() {
    // Two anchors, one class, logits 0, one foreground: p = 1/2, ce = ln 2, (1 - p_t)² = 1/4.
    // (0.25 + 0.75) · ln 2 / 4 / max(1, 1).
    let assignment = Assignment {
        matched: vec![vec![0, -1]],
        labels: vec![vec![0]],
        boxes_xyxy: vec![vec![[0.0, 0.0, 8.0, 8.0]]],
        anchors_xyxy: Arc::new(vec![[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]]),
    };
    let device = Device::flex();
    let head = HeadMaps {
        cls_logits: vec![Tensor::zeros([1, 1, 1, 2], &device)],
        // Decoded: the anchor itself, which is the object. dx = 0.5 on the background is not seen.
        box_deltas: vec![Tensor::from_data(
            TensorData::from([[[[0.0, 0.5]], [[0.0, 0.0]], [[0.5, 0.0]], [[0.0, 0.0]]]]),
            &device,
        )],
        centerness: Vec::new(),
    };
    let one_class = LossConfig {
        num_classes: 1,
        box_loss_weight: 3.0,
        ..config()
    };
    let losses = retinanet_losses(&head.output(), &assignment, &one_class);
    let want = 2.0_f32.ln() / 4.0;
    assert!((scalar(&losses[0].1) - want).abs() < 1e-6);
    // Only dw = 0.5 of the foreground, times the weight.
    assert_eq!(scalar(&losses[1].1), 1.5);
}

#[test]
fn a_logit_that_is_not_a_number_shows_in_the_loss() {
    let (mut logits, deltas, assignment) = small_case();
    logits[0] = f32::NAN;
    let head = small_head(&logits, &deltas, &Device::flex());
    assert!(scalar(&retinanet_losses(&head.output(), &assignment, &config())[0].1).is_nan());
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let golden = Golden::load();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let (head, assignment) = golden_batch(&golden);
            let loss = retinanet_losses(&head.output(), &assignment, &config())[0]
                .1
                .clone();
            let bits = scalar(&loss).to_bits();
            (bits, gradients(&loss, &head.cls_logits))
        })
    };
    assert_eq!(run(1), run(5));
}
