//! Runs a detector over the evaluation set.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{DataConfig, EvalConfig};
use crate::data::{Dataset, Loader, LoaderOptions};
use crate::eval::coco::{self, CocoMetrics, GroundTruth, Prediction};
use crate::eval::detector::to_predictions;
use crate::model::{Detector, ForwardRequest};

use super::EngineError;

/// Result of an evaluation.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The 12 numbers and AP by class.
    pub metrics: CocoMetrics,
    /// Final detections in pixels of the original images.
    pub predictions: Vec<Prediction>,
}

/// Evaluates `weights` (plain tensors, in the order of the specs) on `dataset`.
///
/// # Errors
/// If an image cannot be read or the protocol refuses the data.
pub fn evaluate(
    detector: &dyn Detector,
    weights: &[Tensor<1>],
    dataset: &Arc<dyn Dataset>,
    data: &DataConfig,
    eval: &EvalConfig,
) -> Result<Evaluation, EngineError> {
    let loader = Loader::new(
        Arc::clone(dataset),
        LoaderOptions::evaluation(
            data,
            eval.batch_size,
            detector.size_divisor(),
            eval.max_images,
        ),
    )?;
    let request = ForwardRequest {
        training: false,
        taps: Vec::new(),
        stop_at_taps: false,
    };
    let truth = GroundTruth::from_dataset(dataset.as_ref(), eval.max_images);
    let category_ids = truth.category_ids();
    let mut predictions = Vec::new();
    for batch in loader.epoch(0, 0) {
        let batch = batch?;
        let [_, _, height, width] = batch.shape;
        let pixels = TensorData::new(batch.images, batch.shape);
        let images = Tensor::<4>::from_data(pixels, &Device::flex());
        let head = detector
            .forward(weights, images, &request)
            .head
            .expect("a full pass ends at the head");
        let sizes: Vec<[usize; 2]> = batch.metas.iter().map(|m| m.size).collect();
        let detections = detector.detect(&head, [height, width], &sizes);
        for (found, meta) in detections.iter().zip(&batch.metas) {
            predictions.extend(to_predictions(found, meta, &category_ids));
        }
    }
    let metrics = coco::evaluate(&truth, &predictions)?;
    Ok(Evaluation {
        metrics,
        predictions,
    })
}
