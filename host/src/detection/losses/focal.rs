//! Sigmoid focal loss (arXiv 1708.02002) over all anchors and classes.

use burn::tensor::{Int, Tensor, TensorData, activation};

use super::LossConfig;
use crate::detection::levels::Level;
use crate::detection::{Assignment, HeadOutput, IGNORED};
use crate::host_values::HostValues;
use crate::kernels::focal::{Anchors, Focal, focal_loss as focal_kernel};
use crate::kernels::is_for_kernels;
use crate::known_gradient::with_known_gradient;

/// Focal loss summed over levels; see [`super::retinanet_losses`].
pub(super) fn focal_loss(
    head: &HeadOutput,
    assignment: &Assignment,
    levels: &[Level],
    weights: &[f32],
    config: &LossConfig,
) -> Tensor<1> {
    let logits = head.cls_logits.cells();
    let classes = target_classes(assignment, levels);
    let (value, gradient) = if is_for_kernels(logits) {
        fused(logits, levels, &classes, weights, config)
    } else {
        composed(logits, levels, &classes, weights, config)
    };
    with_known_gradient(logits.clone(), value, gradient)
}

/// The class of each anchor, or one of the negative constants, in the order of the packed maps:
/// level, image, cell, anchor of the cell.
pub(super) fn target_classes(assignment: &Assignment, levels: &[Level]) -> Vec<i32> {
    let mut classes = Vec::new();
    for level in levels {
        for (matched, labels) in assignment.matched.iter().zip(&assignment.labels) {
            classes.extend(matched[level.anchors()].iter().map(|&object| {
                usize::try_from(object).map_or(object, |object| labels[object] as i32)
            }));
        }
    }
    classes
}

/// Loss `[1]` and its gradient, as the logits; both plain, in one pass on the CPU.
pub(super) fn fused(
    logits: &Tensor<2>,
    levels: &[Level],
    classes: &[i32],
    weights: &[f32],
    config: &LossConfig,
) -> (Tensor<1>, Tensor<2>) {
    let (foreground, background) = config.alphas();
    let focal = Focal {
        num_classes: config.num_classes,
        foreground,
        background,
        gamma: config.focal_gamma,
    };
    let mut rest = classes;
    let mut parts = Vec::with_capacity(levels.len() * weights.len());
    for level in levels {
        for &weight in weights {
            let (classes, tail) = rest.split_at(level.num_anchors());
            parts.push(Anchors { classes, weight });
            rest = tail;
        }
    }
    let values = HostValues::of(logits);
    let (value, gradient) = focal_kernel(&focal, values.as_slice(), &parts);
    let device = logits.device().inner();
    (
        Tensor::from_data(TensorData::from([value]), &device),
        Tensor::from_data(TensorData::new(gradient, logits.dims()), &device),
    )
}

/// As [`fused`], in tensor operations, for devices whose memory the CPU should not read.
pub(super) fn composed(
    logits: &Tensor<2>,
    levels: &[Level],
    classes: &[i32],
    weights: &[f32],
    config: &LossConfig,
) -> (Tensor<1>, Tensor<2>) {
    let dims = logits.dims();
    let device = logits.device().inner();
    let (anchors, k) = (classes.len(), config.num_classes);
    let full = [anchors, k];
    let target =
        Tensor::<2, Int>::from_data(TensorData::new(classes.to_vec(), [anchors, 1]), &device);
    let weight: Vec<f32> = levels
        .iter()
        .flat_map(|level| weights.iter().flat_map(|&w| vec![w; level.num_anchors()]))
        .collect();
    let weight = Tensor::<2>::from_data(TensorData::new(weight, [anchors, 1]), &device);
    let numbers = Tensor::<1, Int>::arange(0..k as i64, &device).reshape([1, k]);
    let is_foreground = target
        .clone()
        .expand(full)
        .equal(numbers.expand(full))
        .float();
    let (foreground, background) = config.alphas();
    let ignored = target.equal_elem(IGNORED).expand(full);
    let alpha = (is_foreground.clone() * (foreground - background) + background)
        .mul(weight)
        .mask_fill(ignored.clone(), 0.0);
    let sign = is_foreground * -2.0 + 1.0;
    // Ignored logits may be anything, infinite too.
    let z = (logits.clone().inner().reshape(full) * sign.clone()).mask_fill(ignored, 0.0);
    let softplus = z.clone().clamp_min(0.0) + z.clone().abs().neg().exp().log1p();
    let sigmoid = activation::sigmoid(z.clone());
    let complement = activation::sigmoid(z.neg());
    let modulation = sigmoid.clone().powf_scalar(config.focal_gamma) * alpha;
    let value = (softplus.clone() * modulation.clone()).sum();
    let slope = modulation * (sigmoid + complement * softplus * config.focal_gamma) * sign;
    (value, slope.reshape(dims))
}
