//! What targets are made from, for one batch.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Kind, Target, find, of_locations};
use crate::data::Batch;
use crate::detection::{Assignment, HeadOutput, LocationLosses};
use crate::model::{Detector, Model};

/// A model and what its head gave for the batch.
#[derive(Clone, Copy)]
pub struct Prediction<'a> {
    /// The architecture.
    pub detector: &'a dyn Detector,
    /// Of all images of the batch; may be on the tape.
    pub head: &'a HeadOutput,
}

/// Everything that targets of one batch are made from. Each target is made when it is first read, and
/// kept for the other methods of the step.
pub struct Sources<'a> {
    pub(super) batch: &'a Batch,
    student: &'a dyn Model,
    assignment: OnceCell<Cow<'a, Assignment>>,
    predictions: BTreeMap<String, Prediction<'a>>,
    losses: RefCell<BTreeMap<String, Rc<LocationLosses>>>,
    made: RefCell<BTreeMap<String, Rc<Target>>>,
}

impl<'a> Sources<'a> {
    /// Of `batch`, whose ground truth `student` assigns when that is asked for.
    #[must_use]
    pub fn new(batch: &'a Batch, student: &'a dyn Model) -> Self {
        Sources {
            batch,
            student,
            assignment: OnceCell::new(),
            predictions: BTreeMap::new(),
            losses: RefCell::new(BTreeMap::new()),
            made: RefCell::new(BTreeMap::new()),
        }
    }

    /// With the student's assignment, where it is known already.
    #[must_use]
    pub fn assigned(mut self, assignment: &'a Assignment) -> Self {
        self.assignment = OnceCell::from(Cow::Borrowed(assignment));
        self
    }

    /// With the head's outputs of the model in `role`, if there are any.
    #[must_use]
    pub fn predicted(
        mut self,
        role: &str,
        model: &'a dyn Model,
        head: Option<&'a HeadOutput>,
    ) -> Self {
        if let (Some(detector), Some(head)) = (model.as_detector(), head) {
            let prediction = Prediction { detector, head };
            self.predictions.insert(role.to_owned(), prediction);
        }
        self
    }

    /// The target `name`.
    ///
    /// # Panics
    /// If there is no such target, or it is made from a prediction that was not given: names are
    /// checked when a method is bound, and the engine asks which predictions it reads.
    #[must_use]
    pub fn target(&self, name: &str) -> Rc<Target> {
        if let Some(made) = self.made.borrow().get(name) {
            return Rc::clone(made);
        }
        let kind = find(name).expect("targets were checked when the method was bound");
        let target = Rc::new(match kind {
            Kind::OfBatch(build) => build(self.batch),
            Kind::OfAssignment(build) => build(self),
            Kind::FgMask(level) => of_locations::fg_mask(self, level),
            Kind::OfPrediction { role, build } => build(self, role),
        });
        let mut made = self.made.borrow_mut();
        made.insert(name.to_owned(), Rc::clone(&target));
        target
    }

    /// The student, of targets that only detectors have.
    pub(super) fn student(&self) -> &'a dyn Detector {
        let detector = self.student.as_detector();
        detector.expect("a method that reads such targets is bound to detectors")
    }

    /// `[height, width]` of the network input.
    pub(super) fn input_size(&self) -> [usize; 2] {
        let [_, _, height, width] = self.batch.shape;
        [height, width]
    }

    pub(super) fn assignment(&self) -> &Assignment {
        self.assignment.get_or_init(|| {
            Cow::Owned(
                self.student()
                    .assign(self.input_size(), &self.batch.targets),
            )
        })
    }

    pub(super) fn prediction(&self, role: &str) -> Prediction<'a> {
        let prediction = self.predictions.get(role);
        *prediction.expect("the engine gives the predictions that methods read")
    }

    /// Of the model in `role`, under the student's assignment.
    pub(super) fn losses(&self, role: &str) -> Rc<LocationLosses> {
        if let Some(known) = self.losses.borrow().get(role) {
            return Rc::clone(known);
        }
        let Prediction { detector, head } = self.prediction(role);
        let losses = Rc::new(detector.location_losses(head, self.assignment()));
        let mut known = self.losses.borrow_mut();
        known.insert(role.to_owned(), Rc::clone(&losses));
        losses
    }
}
