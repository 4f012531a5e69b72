//! Location by location against the losses that are compared with torchvision, and against the
//! tensor form of the decoder.

use burn::tensor::{Device, Tensor, TensorData};

use super::*;
use crate::data::ImageTargets;
use crate::detection::golden::{Golden, relative_error};
use crate::detection::{AnchorGenerator, assign, assign_locations, fcos_losses, retinanet_losses};

/// Sums in another order.
const SUM_TOLERANCE: f64 = 1e-6;
const LEVELS: usize = 3;
const CLASSES: usize = 3;

fn case(box_loss: BoxLoss) -> (HeadOutput, Assignment, LossConfig) {
    let golden = Golden::load();
    let head = golden.head("losses", LEVELS, &Device::flex()).output();
    let targets: Vec<ImageTargets> = (0..3).map(|i| golden.targets("losses", i)).collect();
    let scales = [1.0, 1.259_921, 1.587_401];
    let anchors = AnchorGenerator::new(16, &scales, &[0.5, 1.0, 2.0], LEVELS).anchors(
        golden.sizes("losses.input_size")[0],
        &golden.sizes("losses.level_sizes"),
    );
    let config = LossConfig {
        num_classes: CLASSES,
        focal_alpha: 0.25,
        focal_gamma: 1.5,
        box_coder: BoxCoder::CenterSize,
        box_loss,
        box_loss_weight: 2.0,
    };
    (head, assign(anchors, &targets, 0.5, 0.4), config)
}

#[test]
fn locations_add_up_to_the_task_losses() {
    for box_loss in [BoxLoss::L1, BoxLoss::Giou] {
        let (head, assignment, config) = case(box_loss);
        let each = location_losses(&head, &assignment, &config);
        let total = |values: &[f32]| {
            let images = values.chunks(assignment.anchors_xyxy.len());
            let of_image = |(values, matched): (&[f32], &Vec<i32>)| {
                let foreground = matched.iter().filter(|&&object| object >= 0).count();
                values.iter().map(|&v| f64::from(v)).sum::<f64>() / foreground.max(1) as f64
            };
            let sum: f64 = images.zip(&assignment.matched).map(of_image).sum();
            (sum / assignment.matched.len() as f64) as f32
        };
        let losses = retinanet_losses(&head, &assignment, &config);
        let want: Vec<f32> = losses
            .into_iter()
            .map(|(_, loss)| loss.into_scalar::<f32>())
            .collect();
        let got = [total(&each.cls), total(&each.bbox)];
        let error = relative_error(&got, &want);
        assert!(error <= SUM_TOLERANCE, "{got:?} {want:?}");
        for (i, &task) in each.task.iter().enumerate() {
            assert_eq!(task, each.cls[i] + each.bbox[i]);
            let matched = assignment.matched.iter().flatten().nth(i).copied();
            let foreground = matched.is_some_and(|object| object >= 0);
            assert_eq!(each.bbox[i] > 0.0, foreground, "location {i}");
            assert_eq!(each.cls[i] > 0.0, matched != Some(IGNORED), "location {i}");
        }
    }
}

fn fcos_case() -> (HeadOutput, Assignment, LossConfig) {
    let golden = Golden::fcos();
    let head = golden.head("losses", LEVELS, &Device::flex()).output();
    let targets: Vec<ImageTargets> = (0..3).map(|i| golden.targets("losses", i)).collect();
    let sizes = golden.sizes("losses.level_sizes");
    let squares = AnchorGenerator::new(8, &[1.0], &[1.0], LEVELS)
        .anchors(golden.sizes("losses.input_size")[0], &sizes);
    let cells: Vec<usize> = sizes.iter().map(|[h, w]| h * w).collect();
    let config = LossConfig {
        box_coder: BoxCoder::EdgeDistances,
        ..case(BoxLoss::Giou).2
    };
    (
        head,
        assign_locations(squares, &cells, 1.0, &targets, 1.5),
        config,
    )
}

#[test]
fn locations_of_a_head_with_centerness_add_up_too() {
    let (head, assignment, config) = fcos_case();
    let each = location_losses(&head, &assignment, &config);
    let matched: Vec<i32> = assignment.matched.concat();
    let foreground = matched.iter().filter(|&&object| object >= 0).count();
    let losses = fcos_losses(&head, &assignment, &config);
    let want: Vec<f32> = losses
        .into_iter()
        .map(|(_, loss)| loss.into_scalar::<f32>())
        .collect();
    let rest: Vec<f32> = (each.task.iter().zip(&each.cls).zip(&each.bbox))
        .map(|((task, cls), bbox)| task - cls - bbox)
        .collect();
    let got = [&each.cls, &each.bbox, &rest].map(|values| {
        let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
        (sum / foreground as f64) as f32
    });
    let error = relative_error(&got, &want);
    assert!(error <= SUM_TOLERANCE, "{got:?} {want:?}");
    for (i, &object) in matched.iter().enumerate() {
        assert_eq!(each.bbox[i] > 0.0, object >= 0, "location {i}");
        if object < 0 {
            assert_eq!(each.task[i], each.cls[i], "location {i}");
        }
    }
}

#[test]
fn boxes_are_decoded_in_the_order_of_the_anchors() {
    for case in [case(BoxLoss::L1), fcos_case()] {
        decode_from_maps(case);
    }
}

fn decode_from_maps((head, assignment, config): (HeadOutput, Assignment, LossConfig)) {
    let anchors = &assignment.anchors_xyxy;
    let got = decoded_boxes(&head, anchors, config.box_coder, config.num_classes);
    // By levels of one image, from maps instead of packed rows.
    let image = 2;
    let of_levels = (0..LEVELS).map(|level| {
        let map = head.box_deltas.nchw(level).narrow(0, image, 1);
        let [_, channels, h, w] = map.dims();
        map.permute([0, 2, 3, 1]).reshape([h * w * channels / 4, 4])
    });
    let deltas = Tensor::<2>::cat(of_levels.collect(), 0);
    let data = TensorData::new(anchors.as_flattened().to_vec(), [anchors.len(), 4]);
    let anchors_xyxy = Tensor::from_data(data, &Device::flex());
    let want = config.box_coder.decode_tensor(deltas, anchors_xyxy);
    let want = want.into_data();
    let got = got[image * anchors.len()..].as_flattened();
    assert!(relative_error(got, want.as_slice::<f32>().unwrap()) <= SUM_TOLERANCE);
}
