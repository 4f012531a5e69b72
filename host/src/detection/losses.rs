//! Task losses of RetinaNet and FCOS, as torchvision computes them.

mod boxes;
mod centerness;
mod focal;

use burn::tensor::Tensor;

use self::boxes::Foreground;
pub(super) use self::centerness::{centerness_of_location, softplus};
use super::levels::levels;
use super::{Assignment, BoxCoder, HeadOutput};
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
    /// How box deltas are read.
    pub box_coder: BoxCoder,
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

/// `loss_cls` and `loss_bbox` of RetinaNet.
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
    let weights: Vec<f32> = assignment
        .matched
        .iter()
        .map(|matched| 1.0 / (num_foreground(matched).max(1) * num_images) as f32)
        .collect();
    let (losses, _) = class_and_box_losses(head, assignment, &weights, config);
    losses.into()
}

/// `loss_cls`, `loss_bbox` and `loss_ctrness` of FCOS (arXiv 2006.09214).
///
/// ```text
/// loss_cls     = 1/max(1, F) Σ_{locations, classes} focal(logit, target)
/// loss_bbox    = box_loss_weight/max(1, F) Σ_foreground 1 − GIoU(decode(δ), box)
/// loss_ctrness = 1/max(1, F) Σ_foreground bce(centerness, √(min(l, r)/max(l, r) · min(t, b)/max(t, b)))
/// ```
/// with `F` the number of foreground locations of the batch, and `l, t, r, b` the distances from a
/// location to the sides of its box. `bce` takes the sigmoid of the logit; the other terms are those of
/// [`retinanet_losses`], with [`LossConfig::box_loss`] and [`LossConfig::box_coder`]. torchvision calls
/// the three `classification`, `bbox_regression` and `bbox_ctrness`.
///
/// # Shapes
/// Results are `[1]`.
///
/// # Reduction
/// Sum over locations of all images, divided by the foreground locations of the batch (at least 1).
/// Without any foreground `loss_bbox` and `loss_ctrness` are exactly 0 and still depend on the head.
///
/// # Gradients
/// With respect to the head's outputs, through Burn's autodiff; first order; `loss_bbox` and
/// `loss_ctrness` reach the foreground alone. Finite for logits of any size.
///
/// # Panics
/// If head, assignment and `num_classes` do not belong together, or the head has no centerness.
#[must_use]
pub fn fcos_losses(
    head: &HeadOutput,
    assignment: &Assignment,
    config: &LossConfig,
) -> Vec<(&'static str, Tensor<1>)> {
    let centerness = head.centerness.as_ref();
    let centerness = centerness.expect("FCOS's head predicts centerness");
    let matched = assignment.matched.iter();
    let foreground: usize = matched.map(|matched| num_foreground(matched)).sum();
    let weights = vec![1.0 / foreground.max(1) as f32; assignment.matched.len()];
    let (losses, foreground) = class_and_box_losses(head, assignment, &weights, config);
    let centerness = centerness::centerness_loss(centerness, &foreground);
    let mut losses: Vec<_> = losses.into();
    losses.push(("loss_ctrness", centerness));
    losses
}

fn num_foreground(matched: &[i32]) -> usize {
    matched.iter().filter(|&&object| object >= 0).count()
}

/// `loss_cls` and `loss_bbox` with the weight of each image's sum over anchors; and the foreground.
fn class_and_box_losses(
    head: &HeadOutput,
    assignment: &Assignment,
    weights: &[f32],
    config: &LossConfig,
) -> ([(&'static str, Tensor<1>); 2], Foreground) {
    let anchors = assignment.anchors_xyxy.len();
    let levels = levels(head, config.num_classes, weights.len(), anchors);
    let foreground = Foreground::new(assignment, &levels, weights);
    let classes = focal::focal_loss(head, assignment, &levels, weights, config);
    let boxes = boxes::box_loss(head, &foreground, config);
    ([("loss_cls", classes), ("loss_bbox", boxes)], foreground)
}

#[cfg(test)]
mod tests;
