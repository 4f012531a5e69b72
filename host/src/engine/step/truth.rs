//! Ground truth of a batch as the student's losses read it, matched once.

use burn::tensor::Tensor;

use crate::classification;
use crate::data::Batch;
use crate::detection::Assignment;
use crate::model::{Model, Output};
use crate::segmentation;

/// Ground truth of a batch.
pub(super) enum Truth<'a> {
    /// Objects matched to the student's anchors.
    Detection(Assignment),
    /// Classes of pixels or of images, as the batch has them.
    Labels(&'a Batch),
}

impl<'a> Truth<'a> {
    /// Matches the ground truth of `batch` to what `student` predicts.
    pub(super) fn of(student: &dyn Model, batch: &'a Batch) -> Self {
        let [_, _, height, width] = batch.shape;
        match student.as_detector() {
            Some(detector) => Truth::Detection(detector.assign([height, width], &batch.targets)),
            None => Truth::Labels(batch),
        }
    }

    /// Task losses of the student's `output`.
    pub(super) fn losses(
        &self,
        student: &dyn Model,
        output: &Output,
    ) -> Vec<(&'static str, Tensor<1>)> {
        match (self, output) {
            (Truth::Detection(assignment), Output::Detection(head)) => {
                let detector = student.as_detector().expect("it was matched as one");
                detector.losses(head, assignment)
            }
            (Truth::Labels(batch), Output::Segmentation(logits)) => {
                vec![("loss_ce", segmentation::cross_entropy(logits, batch))]
            }
            (Truth::Labels(batch), Output::Classification(logits)) => {
                let loss = classification::cross_entropy(logits, &batch.labels);
                vec![("loss_ce", loss)]
            }
            _ => unreachable!("a model gives the output of its task"),
        }
    }

    /// Of a detector.
    pub(super) fn assignment(&self) -> Option<&Assignment> {
        match self {
            Truth::Detection(assignment) => Some(assignment),
            Truth::Labels(_) => None,
        }
    }
}
