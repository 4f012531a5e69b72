//! Runs a model over the evaluation set.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{DataConfig, EvalConfig, Task};
use crate::data::{Batch, Dataset, Loader, LoaderOptions, ViewSpec};
use crate::distill::Distiller;
use crate::distill::taps::STUDENT;
use crate::eval::{ByImage, Metrics};
use crate::model::{ForwardRequest, Model};
use crate::plugin::CallInfo;

use super::EngineError;
use super::teacher::{Teachers, model_taps, sources, teach, views};

mod boxes;
mod classes;
mod labels;

/// Evaluation mode, to the end, without taps.
pub(super) const FULL_PASS: ForwardRequest = ForwardRequest {
    training: false,
    taps: Vec::new(),
    stop_at_taps: false,
};

/// Result of an evaluation.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The task's numbers.
    pub metrics: Metrics,
    /// What they are made of.
    pub by_image: ByImage,
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

impl EvaluationSet<'_> {
    /// Every image once, in order.
    fn loader(&self, size_divisor: usize) -> Result<Loader, EngineError> {
        self.loader_with(size_divisor, Vec::new())
    }

    /// The same, with the views of teachers.
    fn loader_with(
        &self,
        size_divisor: usize,
        views: Vec<ViewSpec>,
    ) -> Result<Loader, EngineError> {
        let (size, limit) = (self.eval.batch_size, self.eval.max_images);
        let options = LoaderOptions::evaluation(self.data, size, size_divisor, limit);
        let options = options.with_views(views);
        Ok(Loader::new(Arc::clone(self.dataset), options)?)
    }
}

/// The normalised images of a batch, `[N, 3, H, W]`; it keeps its own.
fn images_of(batch: &Batch, device: &Device) -> Tensor<4> {
    let pixels = TensorData::new(batch.images.clone(), batch.shape);
    Tensor::from_data(pixels, device)
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
        return match model.task() {
            Task::Classification => classes::score(model, weights, set),
            Task::Detection | Task::Segmentation => labels::score(model, weights, set),
        };
    };
    boxes::score(
        detector,
        &weights[0].device(),
        set,
        Vec::new(),
        |images, _| {
            let forward = detector.forward(weights, images, &FULL_PASS);
            let head = forward.head().expect("a full pass ends at the head");
            Ok(head.clone())
        },
    )
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
    boxes::score(detector, &device, set, views(teachers), |images, batch| {
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
