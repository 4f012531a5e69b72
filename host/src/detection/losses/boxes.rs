//! The foreground anchors of a batch, and the losses on their boxes: L1 on deltas, or generalised IoU.

use burn::tensor::{Int, Tensor, TensorData};

use super::LossConfig;
use crate::boxes::BoxXyxy;
use crate::config::BoxLoss;
use crate::detection::levels::Level;
use crate::detection::{Assignment, HeadOutput};

/// Keeps a division finite for boxes that shrank to nothing, as torchvision's.
const GIOU_EPSILON: f32 = 1e-7;

/// The foreground anchors of a batch, in the order of the packed maps.
#[derive(Default)]
pub(super) struct Foreground {
    /// Numbers of the anchors over all rows of the maps.
    numbers: Vec<i32>,
    anchors: Vec<BoxXyxy>,
    objects: Vec<BoxXyxy>,
    /// Weight of each anchor's image.
    weights: Vec<f32>,
}

impl Foreground {
    /// With the weight of each image.
    pub(super) fn new(assignment: &Assignment, levels: &[Level], weights: &[f32]) -> Self {
        let mut foreground = Foreground::default();
        for level in levels {
            for (image, matched) in assignment.matched.iter().enumerate() {
                for (anchor, row) in level.anchors().zip(level.anchor_rows(image)) {
                    let Ok(object) = usize::try_from(matched[anchor]) else {
                        continue;
                    };
                    foreground.numbers.push(row as i32);
                    foreground.anchors.push(assignment.anchors_xyxy[anchor]);
                    foreground
                        .objects
                        .push(assignment.boxes_xyxy[image][object]);
                    foreground.weights.push(weights[image]);
                }
            }
        }
        foreground
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Object and anchor of each.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (BoxXyxy, BoxXyxy)> {
        let anchors = self.anchors.iter().copied();
        self.objects.iter().copied().zip(anchors)
    }

    pub(super) fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// What `cells` `[rows, A * D]` hold of each anchor of the foreground, `[F, D]`. Differentiable.
    pub(super) fn select<const D: usize>(&self, cells: &Tensor<2>) -> Tensor<2> {
        let device = cells.device().inner();
        let indices = TensorData::from(self.numbers.as_slice());
        let indices = Tensor::<1, Int>::from_data(indices, &device);
        let anchors = cells.dims()[0] * cells.dims()[1] / D;
        cells.clone().reshape([anchors, D]).select(0, indices)
    }
}

/// Loss on boxes; see [`super::retinanet_losses`].
pub(super) fn box_loss(
    head: &HeadOutput,
    foreground: &Foreground,
    config: &LossConfig,
) -> Tensor<1> {
    let all = head.box_deltas.cells();
    if foreground.is_empty() {
        return connected_zero(all);
    }
    let device = all.device().inner();
    let deltas = foreground.select::<4>(all); // [F, 4]
    let rows = |boxes: &[[f32; 4]]| {
        Tensor::<2>::from_data(
            TensorData::new(boxes.as_flattened().to_vec(), [boxes.len(), 4]),
            &device,
        )
    };
    let loss = match config.box_loss {
        BoxLoss::L1 => {
            let targets: Vec<[f32; 4]> = foreground
                .pairs()
                .map(|(object, anchor)| config.box_coder.encode(object, anchor))
                .collect();
            (deltas - rows(&targets)).abs().sum_dim(1) // [F, 1]
        }
        BoxLoss::Giou => {
            let anchors = rows(&foreground.anchors);
            let predicted = config.box_coder.decode_tensor(deltas, anchors);
            giou_loss(predicted, rows(&foreground.objects)) // [F, 1]
        }
    };
    let weights: Vec<f32> = foreground
        .weights
        .iter()
        .map(|weight| weight * config.box_loss_weight)
        .collect();
    let shape = [weights.len(), 1];
    (loss * Tensor::<2>::from_data(TensorData::new(weights, shape), &device)).sum()
}

/// `1 − GIoU` of each pair of rows, `[F, 1]`; gradient to `predicted`.
fn giou_loss(predicted: Tensor<2>, target: Tensor<2>) -> Tensor<2> {
    let near = |boxes: &Tensor<2>| boxes.clone().narrow(1, 0, 2); // [F, 2]
    let far = |boxes: &Tensor<2>| boxes.clone().narrow(1, 2, 2);
    let area = |size: Tensor<2>| size.clone().narrow(1, 0, 1) * size.narrow(1, 1, 1); // [F, 1]
    let extent = far(&predicted).min_pair(far(&target)) - near(&predicted).max_pair(near(&target));
    // Boxes that only touch get no gradient of the overlap, as torchvision's.
    let apart = extent.clone().lower_equal_elem(0.0);
    let overlap = area(extent.mask_fill(apart, 0.0));
    let union = area(far(&predicted) - near(&predicted)) + area(far(&target) - near(&target))
        - overlap.clone();
    let hull =
        area(far(&predicted).max_pair(far(&target)) - near(&predicted).min_pair(near(&target)));
    let iou = overlap / (union.clone() + GIOU_EPSILON);
    let waste = (hull.clone() - union) / (hull + GIOU_EPSILON);
    waste - iou + 1.0
}

/// Exactly 0, also for infinite outputs, and on the tape: every parameter of the box tower then has
/// a gradient (of zeros) whatever the batch.
pub(super) fn connected_zero(cells: &Tensor<2>) -> Tensor<1> {
    let one: Tensor<1> = cells.clone().slice([0..1, 0..1]).flatten(0, 1);
    let everywhere = Tensor::<1, Int>::zeros([1], &cells.device().inner()).equal_elem(0);
    one.mask_fill(everywhere, 0.0)
}
