//! Detections of the evaluation set, scored by COCO's protocol.

use burn::tensor::{Device, Tensor};

use super::{Evaluation, EvaluationSet, images_of};
use crate::data::{Batch, ViewSpec};
use crate::detection::HeadOutput;
use crate::engine::EngineError;
use crate::eval::coco::{self, GroundTruth};
use crate::eval::detector::to_predictions;
use crate::eval::{ByImage, Metrics};
use crate::model::Detector;

/// Scores what `head` gives for each batch of normalised images `[N, 3, H, W]` on `device`, made with
/// further `views`.
pub(super) fn score(
    detector: &dyn Detector,
    device: &Device,
    set: EvaluationSet<'_>,
    views: Vec<ViewSpec>,
    mut head: impl FnMut(Tensor<4>, &Batch) -> Result<HeadOutput, EngineError>,
) -> Result<Evaluation, EngineError> {
    let truth = GroundTruth::from_dataset(set.dataset.as_ref(), set.eval.max_images);
    let category_ids = truth.category_ids();
    let mut predictions = Vec::new();
    let loader = set.loader_with(detector.size_divisor(), views)?;
    for batch in loader.epoch(0, 0) {
        let batch = batch?;
        let [_, _, height, width] = batch.shape;
        let head = head(images_of(&batch, device), &batch)?;
        let sizes: Vec<[usize; 2]> = batch.metas.iter().map(|m| m.size).collect();
        let detections = detector.detect(&head, [height, width], &sizes);
        for (found, meta) in detections.iter().zip(&batch.metas) {
            predictions.extend(to_predictions(found, meta, &category_ids));
        }
    }
    let metrics = coco::evaluate(&truth, &predictions)?;
    Ok(Evaluation {
        metrics: Metrics::Detection(metrics),
        by_image: ByImage::Detection(predictions),
    })
}
