//! RetinaNet's task losses, as torchvision computes them.

mod boxes;
mod focal;

use burn::tensor::Tensor;

use super::levels::levels;
use super::{Assignment, HeadOutput};
use crate::config::BoxLoss;

/// What the losses depend on beside predictions and ground truth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossConfig {
    /// Classes, background excluded.
    pub num_classes: usize,
    /// Weight of foreground in the focal loss, background gets `1 - alpha`; negative: both weigh 1.
    pub focal_alpha: f32,
    /// Exponent of the focal loss.
    pub focal_gamma: f32,
    /// Loss on boxes.
    pub box_loss: BoxLoss,
    /// Factor of the loss on boxes.
    pub box_loss_weight: f32,
}

impl LossConfig {
    /// Weights of foreground and background in the focal loss.
    pub(super) fn alphas(&self) -> (f32, f32) {
        if self.focal_alpha < 0.0 {
            (1.0, 1.0)
        } else {
            (self.focal_alpha, 1.0 - self.focal_alpha)
        }
    }
}

/// `loss_cls` and `loss_bbox`.
///
/// ```text
/// loss_cls  = 1/N Σ_images 1/max(1, F) Σ_{anchors not ignored, classes} focal(logit, target)
/// loss_bbox = box_loss_weight · 1/N Σ_images 1/max(1, F) Σ_foreground ‖δ − encode(box)‖₁
///                                                             or  1 − GIoU(decode(δ), box)
/// ```
/// with `F` the number of foreground anchors of the image. Focal loss: arXiv 1708.02002, targets one
/// per class (sigmoid); GIoU: arXiv 1902.09630.
///
/// # Shapes
/// Results are `[1]`.
///
/// # Reduction
/// Sum over anchors, divided per image by its foreground anchors (at least 1), mean over images.
/// Without any foreground `loss_bbox` is exactly 0 and still depends on the head.
///
/// # Gradients
/// With respect to the head's outputs, through Burn's autodiff; first order. Ignored anchors get
/// none. Finite for logits of any size.
///
/// # Panics
/// If head, assignment and `num_classes` do not belong together.
#[must_use]
pub fn retinanet_losses(
    head: &HeadOutput,
    assignment: &Assignment,
    config: &LossConfig,
) -> Vec<(&'static str, Tensor<1>)> {
    let num_images = assignment.matched.len();
    let levels = levels(
        head,
        config.num_classes,
        num_images,
        assignment.anchors_xyxy.len(),
    );
    // Weight of each image's sum over anchors.
    let weights: Vec<f32> = assignment
        .matched
        .iter()
        .map(|matched| {
            let foreground = matched.iter().filter(|&&object| object >= 0).count();
            1.0 / (foreground.max(1) * num_images) as f32
        })
        .collect();
    vec![
        (
            "loss_cls",
            focal::focal_loss(head, assignment, &levels, &weights, config),
        ),
        (
            "loss_bbox",
            boxes::box_loss(head, assignment, &levels, &weights, config),
        ),
    ]
}

#[cfg(test)]
mod tests;
