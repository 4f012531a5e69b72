//! The losses of FCOS: against torchvision, by finite differences, by hand, and at the extremes.

use super::*;
use crate::detection::assign_locations;

/// One image, one level of 2 × 2 cells, and the logits, distances and centerness of the head.
struct Small {
    logits: Vec<f32>,
    deltas: Vec<f32>,
    centerness: Vec<f32>,
    assignment: Assignment,
}

fn config() -> LossConfig {
    LossConfig {
        box_coder: BoxCoder::EdgeDistances,
        box_loss: BoxLoss::Giou,
        ..super::config()
    }
}

fn golden_assignment(golden: &Golden, targets: &[ImageTargets]) -> Assignment {
    let sizes = golden.sizes("losses.level_sizes");
    let locations = AnchorGenerator::new(8, &[1.0], &[1.0], LEVELS)
        .anchors(golden.sizes("losses.input_size")[0], &sizes);
    let cells: Vec<usize> = sizes.iter().map(|[h, w]| h * w).collect();
    assign_locations(locations, &cells, 1.0, targets, 1.5)
}

fn golden_batch(golden: &Golden) -> (HeadMaps, Assignment) {
    let head = golden.head("losses", LEVELS, &Device::flex().autodiff());
    let targets: Vec<ImageTargets> = (0..3).map(|i| golden.targets("losses", i)).collect();
    assert!(targets[1].boxes_xyxy.is_empty(), "one image has no object");
    (head, golden_assignment(golden, &targets))
}

#[test]
fn losses_equal_torchvision() {
    let golden = Golden::fcos();
    for name in ["default", "other"] {
        let values = golden.values(&format!("losses.{name}.config"));
        let config = LossConfig {
            focal_alpha: values[0],
            focal_gamma: values[1],
            ..config()
        };
        let (head, assignment) = golden_batch(&golden);
        let losses = fcos_losses(&head.output(), &assignment, &config);
        let names: Vec<&str> = losses.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["loss_cls", "loss_bbox", "loss_ctrness"]);
        let maps = [&head.cls_logits, &head.box_deltas, &head.centerness];
        for ((loss, maps), kind) in losses.iter().zip(maps).zip(["cls", "bbox", "ctrness"]) {
            // What does not depend on the focal loss's settings stands once.
            if golden.has(&format!("losses.{name}.{kind}.value")) {
                check_golden(&loss.1, maps, &golden, &format!("{name}.{kind}"));
            }
        }
    }
}

fn small() -> Small {
    let locations = AnchorGenerator::new(8, &[1.0], &[1.0], 1).anchors([16, 16], &[[2, 2]]);
    let targets = [ImageTargets {
        boxes_xyxy: vec![[-5.0, -7.0, 11.0, 6.0]],
        labels: vec![1],
        ..ImageTargets::default()
    }];
    let assignment = assign_locations(locations, &[4], 1.0, &targets, 1.5);
    // Locations (0, 0) and (8, 0) lie inside, (0, 8) and (8, 8) below.
    assert_eq!(assignment.matched[0], vec![0, 0, BACKGROUND, BACKGROUND]);
    let mut rng = KeyedRng::new("fcos loss test", &[0]);
    let mut normal = |count: usize| (0..count).map(|_| rng.normal() as f32).collect::<Vec<_>>();
    Small {
        logits: normal(CLASSES * 4),
        deltas: normal(16).iter().map(|v| 0.6 + 0.2 * v).collect(),
        centerness: normal(4),
        assignment,
    }
}

fn head(logits: &[f32], deltas: &[f32], centerness: &[f32], device: &Device) -> HeadMaps {
    let mut head = small_head(logits, deltas, device);
    let data = TensorData::new(centerness.to_vec(), [1, 1, 2, 2]);
    head.centerness = vec![Tensor::from_data(data, device)];
    head
}

#[test]
fn gradients_equal_finite_differences() {
    let Small {
        logits,
        deltas,
        centerness,
        assignment,
    } = small();
    let config = LossConfig {
        focal_gamma: 1.5,
        box_loss_weight: 2.5,
        ..config()
    };
    let at = |logits: &[f32], deltas: &[f32], centerness: &[f32]| -> Vec<f32> {
        let head = head(logits, deltas, centerness, &Device::flex());
        fcos_losses(&head.output(), &assignment, &config)
            .iter()
            .map(|(_, loss)| scalar(loss))
            .collect()
    };
    let slopes = |values: &[f32], loss: &dyn Fn(&[f32]) -> f32| -> Vec<f32> {
        (0..values.len())
            .map(|i| {
                let mut moved = values.to_vec();
                moved[i] = values[i] + DIFFERENCE_STEP;
                let above = loss(&moved);
                moved[i] = values[i] - DIFFERENCE_STEP;
                (above - loss(&moved)) / (2.0 * DIFFERENCE_STEP)
            })
            .collect()
    };
    let wanted = [
        slopes(&logits, &|x| at(x, &deltas, &centerness)[0]),
        slopes(&deltas, &|x| at(&logits, x, &centerness)[1]),
        slopes(&centerness, &|x| at(&logits, &deltas, x)[2]),
    ];

    let mut head = head(&logits, &deltas, &centerness, &Device::flex().autodiff());
    for maps in [
        &mut head.cls_logits,
        &mut head.box_deltas,
        &mut head.centerness,
    ] {
        maps[0] = maps[0].clone().require_grad();
    }
    let losses = fcos_losses(&head.output(), &assignment, &config);
    // Upstream factors must come through.
    let factors = [3.0, 1.0, 0.5];
    let total = losses
        .iter()
        .zip(factors)
        .map(|((_, loss), factor)| loss.clone() * factor)
        .reduce(|a, b| a + b)
        .unwrap();
    let gradients = total.backward();
    let maps = [&head.cls_logits, &head.box_deltas, &head.centerness];
    for ((maps, factor), wanted) in maps.iter().zip(factors).zip(&wanted) {
        let got = vector(maps[0].grad(&gradients).unwrap());
        let got: Vec<f32> = got.iter().map(|g| g / factor as f32).collect();
        let error = relative_error(&got, wanted);
        assert!(error < DIFFERENCE_TOLERANCE, "{error:e}");
    }
}

#[test]
fn centerness_by_hand() {
    // (8, 0) in [-5, -7, 11, 6]: 13 left, 3 right, 7 up, 6 down.
    let target = centerness::target([-5.0, -7.0, 11.0, 6.0], [4.0, -4.0, 12.0, 4.0]);
    assert!((target - (3.0_f32 / 13.0 * 6.0 / 7.0).sqrt()).abs() < 1e-6);
    let middle = centerness::target([-5.0, -7.0, 11.0, 7.0], [-1.0, -4.0, 7.0, 4.0]);
    assert_eq!(middle, 1.0);

    let Small {
        logits,
        deltas,
        assignment,
        ..
    } = small();
    let zeros = head(&logits, &deltas, &[0.0; 4], &Device::flex());
    let losses = fcos_losses(&zeros.output(), &assignment, &config());
    // Two locations of ln 2 each, whatever the target, over two.
    assert!((scalar(&losses[2].1) - 2.0_f32.ln()).abs() < 1e-6);
}

#[test]
fn images_share_one_count_of_foreground() {
    // The same image twice: sums and count double. An image without objects adds background alone.
    let Small {
        logits,
        deltas,
        centerness,
        assignment,
    } = small();
    let losses = |images: usize, matched: Vec<Vec<i32>>| -> Vec<f32> {
        let repeat = |values: &[f32], channels: usize| {
            let data = TensorData::new(values.repeat(images), [images, channels, 2, 2]);
            vec![Tensor::from_data(data, &Device::flex())]
        };
        let head = HeadMaps {
            cls_logits: repeat(&logits, CLASSES),
            box_deltas: repeat(&deltas, 4),
            centerness: repeat(&centerness, 1),
        };
        let assignment = Assignment {
            matched,
            labels: vec![assignment.labels[0].clone(); images],
            boxes_xyxy: vec![assignment.boxes_xyxy[0].clone(); images],
            anchors_xyxy: assignment.anchors_xyxy.clone(),
        };
        let losses = fcos_losses(&head.output(), &assignment, &config());
        losses.iter().map(|(_, loss)| scalar(loss)).collect()
    };
    let one = assignment.matched[0].clone();
    let none = vec![BACKGROUND; 4];
    let alone = losses(1, vec![one.clone()]);
    let twice = losses(2, vec![one.clone(), one.clone()]);
    let beside = losses(2, vec![one, none]);
    for (alone, twice) in alone.iter().zip(&twice) {
        assert!((alone - twice).abs() < 1e-6);
    }
    assert!(beside[0] > alone[0]);
    assert_eq!(beside[1..], alone[1..]);
}

#[test]
fn without_objects_boxes_and_centerness_are_zero_and_connected() {
    let golden = Golden::fcos();
    let (mut head, _) = golden_batch(&golden);
    for maps in [&mut head.box_deltas, &mut head.centerness] {
        let device = Device::flex().autodiff();
        maps[0] = Tensor::full(maps[0].dims(), f32::INFINITY, &device).require_grad();
    }
    let assignment = golden_assignment(&golden, &vec![ImageTargets::default(); 3]);
    let losses = fcos_losses(&head.output(), &assignment, &config());
    assert!(scalar(&losses[0].1) > 0.0, "background still counts");
    for (loss, maps) in losses[1..].iter().zip([&head.box_deltas, &head.centerness]) {
        assert_eq!(scalar(&loss.1), 0.0);
        let count = maps[0].dims().iter().product();
        assert_eq!(gradients(&loss.1, maps)[0], Some(vec![0.0; count]));
    }
}

#[test]
fn extreme_centerness_stays_finite() {
    let Small {
        logits,
        deltas,
        assignment,
        ..
    } = small();
    for logit in [-1e4_f32, -100.0, 0.0, 100.0, 1e4] {
        let device = Device::flex().autodiff();
        let mut head = head(&logits, &deltas, &[logit; 4], &device);
        head.centerness[0] = head.centerness[0].clone().require_grad();
        let loss = fcos_losses(&head.output(), &assignment, &config())[2]
            .1
            .clone();
        assert!(scalar(&loss).is_finite(), "{logit}");
        let gradient = gradients(&loss, &head.centerness)[0].clone().unwrap();
        assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
        // Background has no centerness.
        assert_eq!(gradient[2..], [0.0, 0.0]);
        assert!(gradient[0] != 0.0);
    }
    let head = head(&logits, &deltas, &[f32::NAN; 4], &Device::flex());
    let losses = fcos_losses(&head.output(), &assignment, &config());
    assert!(scalar(&losses[2].1).is_nan(), "it must show in the loss");
}
