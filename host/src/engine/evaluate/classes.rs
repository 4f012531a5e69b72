//! Classes of the images of the evaluation set.

use burn::tensor::Tensor;

use super::{Evaluation, EvaluationSet, FULL_PASS, images_of};
use crate::engine::EngineError;
use crate::eval::classification::Accuracy;
use crate::eval::{ByImage, ImageClass, Metrics, image_list_hash};
use crate::host_values::HostValues;
use crate::model::Model;

/// Evaluates a classifier with `weights` (plain tensors, in the order of the specs), on their device.
pub(super) fn score(
    model: &dyn Model,
    weights: &[Tensor<1>],
    set: EvaluationSet<'_>,
) -> Result<Evaluation, EngineError> {
    let device = weights[0].device();
    let classes = set.dataset.classes();
    let mut accuracy = Accuracy::new(classes.len());
    let (mut images, mut by_image) = (Vec::new(), Vec::new());
    for batch in set.loader(model.size_divisor())?.epoch(0, 0) {
        let batch = batch?;
        let forward = model.forward(weights, images_of(&batch, &device), &FULL_PASS);
        let logits = forward.class_logits().expect("a full pass of a classifier");
        let values = HostValues::of(logits);
        let rows = values.as_slice().chunks_exact(classes.len());
        for ((row, &label), meta) in rows.zip(&batch.labels).zip(&batch.metas) {
            images.push((meta.image_id, meta.original_size));
            by_image.push(ImageClass {
                image_id: meta.image_id,
                label,
                predicted: highest(row),
                rank: accuracy.add(row, label),
            });
        }
    }
    Ok(Evaluation {
        metrics: Metrics::Classification(
            accuracy.metrics(classes, image_list_hash(images.into_iter())),
        ),
        by_image: ByImage::Classification(by_image),
    })
}

/// The first of the highest logits.
fn highest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = class;
        }
    }
    best
}
