//! Label maps of the evaluation set, scored on one confusion matrix at the size of the ground truth.

use burn::tensor::Tensor;

use super::{Evaluation, EvaluationSet, FULL_PASS, images_of};
use crate::engine::EngineError;
use crate::eval::segmentation::ConfusionMatrix;
use crate::eval::{ByImage, ImageConfusion, Metrics, image_list_hash};
use crate::model::Model;
use crate::segmentation::{View, label_map};

/// Evaluates a segmenter with `weights` (plain tensors, in the order of the specs), on their device.
pub(super) fn score(
    model: &dyn Model,
    weights: &[Tensor<1>],
    set: EvaluationSet<'_>,
) -> Result<Evaluation, EngineError> {
    let device = weights[0].device();
    let classes = set.dataset.classes();
    let mut confusion = ConfusionMatrix::new(classes.len());
    let (mut images, mut by_image) = (Vec::new(), Vec::new());
    for batch in set.loader(model.size_divisor())?.epoch(0, 0) {
        let batch = batch?;
        let [_, _, height, width] = batch.shape;
        let forward = model.forward(weights, images_of(&batch, &device), &FULL_PASS);
        let logits = forward.logits().expect("a full pass of a segmenter");
        for (index, (meta, truth)) in batch
            .metas
            .iter()
            .zip(&batch.original_label_maps)
            .enumerate()
        {
            let view = View {
                input_size: [height, width],
                size: meta.size,
                original_size: truth.size,
                flipped: meta.flipped,
            };
            images.push((meta.image_id, truth.size));
            let mut of_image = ConfusionMatrix::new(classes.len());
            of_image.add(&label_map(logits, index, &view), truth);
            confusion.merge(&of_image);
            by_image.push(ImageConfusion {
                image_id: meta.image_id,
                pixels: of_image.cells(),
            });
        }
    }
    Ok(Evaluation {
        metrics: Metrics::Segmentation(
            confusion.metrics(classes, image_list_hash(images.into_iter())),
        ),
        by_image: ByImage::Segmentation(by_image),
    })
}
