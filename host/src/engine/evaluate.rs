//! Runs a detector over the evaluation set.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{DataConfig, EvalConfig};
use crate::data::{Batch, Dataset, Loader, LoaderOptions};
use crate::detection::HeadOutput;
use crate::distill::Distiller;
use crate::distill::taps::STUDENT;
use crate::eval::Metrics;
use crate::eval::coco::{self, GroundTruth, Prediction};
use crate::eval::detector::to_predictions;
use crate::model::{Detector, ForwardRequest, Model};
use crate::plugin::CallInfo;

use super::EngineError;
use super::teacher::{Teachers, model_taps, sources, teach};

/// Result of an evaluation.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The task's numbers.
    pub metrics: Metrics,
    /// Final detections in pixels of the original images.
    pub predictions: Vec<Prediction>,
}

/// Which images, and how they are brought to the network.
#[derive(Clone, Copy)]
pub struct EvaluationSet<'a> {
    /// The images.
    pub dataset: &'a Arc<dyn Dataset>,
    /// Their transform.
    pub data: &'a DataConfig,
    /// Batch size and number.
    pub eval: &'a EvalConfig,
}

/// Evaluates `weights` (plain tensors, in the order of the specs) in f32, on their device.
///
/// # Errors
/// If an image cannot be read or the protocol refuses the data.
pub fn evaluate(
    model: &dyn Model,
    weights: &[Tensor<1>],
    set: EvaluationSet<'_>,
) -> Result<Evaluation, EngineError> {
    let Some(detector) = model.as_detector() else {
        todo!("segmentation")
    };
    let request = ForwardRequest {
        training: false,
        taps: Vec::new(),
        stop_at_taps: false,
    };
    score(detector, &weights[0].device(), set, |images, _| {
        let forward = detector.forward(weights, images, &request);
        Ok(forward
            .head()
            .expect("a full pass ends at the head")
            .clone())
    })
}

/// Evaluates the head on a method's maps, with the ground truth of the evaluation images fed to the
/// method: says what the maps hold, and nothing about the student. A diagnostic, never a result.
///
/// # Errors
/// As [`evaluate`]; if the method fails; or if it has no maps.
pub fn evaluate_oracle(
    model: &dyn Model,
    weights: &[Tensor<1>],
    distiller: &mut Distiller,
    teachers: &Teachers,
    call: &CallInfo,
    set: EvaluationSet<'_>,
) -> Result<Evaluation, EngineError> {
    let (true, Some(detector)) = (distiller.has_maps(), model.as_detector()) else {
        return Err(EngineError::NoMaps {
            method: distiller.id().to_owned(),
        });
    };
    let request = ForwardRequest {
        training: false,
        taps: distiller.student_taps(),
        stop_at_taps: !distiller.reads_predictions(STUDENT),
    };
    let device = weights[0].device();
    score(detector, &device, set, |images, batch| {
        let taught = teach(teachers, batch, &images, |name, _| {
            (
                distiller.teacher_taps(name),
                distiller.reads_predictions(name),
            )
        });
        let student = detector.forward(weights, images, &request);
        let sources = sources(batch, model, &student, teachers, &taught);
        let taps = model_taps(&student.taps, &taught);
        let maps = distiller.maps(call, &taps, &sources)?;
        let maps: Vec<Tensor<4>> = maps.into_iter().map(|m| m.to_device(&device)).collect();
        Ok(detector.head(weights, &maps))
    })
}

/// Scores what `head` gives for each batch of normalised images `[N, 3, H, W]` on `device`.
fn score(
    detector: &dyn Detector,
    device: &Device,
    set: EvaluationSet<'_>,
    mut head: impl FnMut(Tensor<4>, &Batch) -> Result<HeadOutput, EngineError>,
) -> Result<Evaluation, EngineError> {
    let EvaluationSet {
        dataset,
        data,
        eval,
    } = set;
    let options = LoaderOptions::evaluation(
        data,
        eval.batch_size,
        detector.size_divisor(),
        eval.max_images,
    );
    let loader = Loader::new(Arc::clone(dataset), options)?;
    let truth = GroundTruth::from_dataset(dataset.as_ref(), eval.max_images);
    let category_ids = truth.category_ids();
    let mut predictions = Vec::new();
    for batch in loader.epoch(0, 0) {
        let batch = batch?;
        let [_, _, height, width] = batch.shape;
        // Teachers of other images make theirs from these.
        let pixels = TensorData::new(batch.images.clone(), batch.shape);
        let images = Tensor::<4>::from_data(pixels, device);
        let head = head(images, &batch)?;
        let sizes: Vec<[usize; 2]> = batch.metas.iter().map(|m| m.size).collect();
        let detections = detector.detect(&head, [height, width], &sizes);
        for (found, meta) in detections.iter().zip(&batch.metas) {
            predictions.extend(to_predictions(found, meta, &category_ids));
        }
    }
    let metrics = coco::evaluate(&truth, &predictions)?;
    Ok(Evaluation {
        metrics: Metrics::Detection(metrics),
        predictions,
    })
}
