//! The models to learn from: evaluation mode, no gradient, verified unchanged.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{TeacherConfig, TransformConfig};
use crate::data::{Batch, View, ViewSpec};
use crate::distill::distiller::TeacherModel;
use crate::distill::step::{ModelTaps, TapValues};
use crate::distill::taps::STUDENT;
use crate::distill::targets::Sources;
use crate::model::{Forward, ForwardRequest, Model};

mod input;

pub use input::{has_own_size, padded_size, view_of};

use super::EngineError;
use super::image_size::ImageSize;
use super::weights::ModelWeights;

/// The teachers of a run, by name.
pub type Teachers = BTreeMap<String, Teacher>;
/// What teachers gave for a batch, by name.
pub type Taught = BTreeMap<String, Forward>;

/// A frozen model.
pub struct Teacher {
    model: Arc<dyn Model>,
    weights: ModelWeights,
    hash: String,
    /// None where it sees the student's images.
    view: Option<ViewSpec>,
}

impl Teacher {
    /// Freezes `weights`, as `config` describes the teacher of a student that sees images of
    /// `student` and has a pyramid upsampled by `grid_scale`; the hash of the weights is taken now.
    #[must_use]
    pub fn new(
        model: Arc<dyn Model>,
        weights: ModelWeights,
        config: &TeacherConfig,
        student: &TransformConfig,
        grid_scale: f64,
    ) -> Self {
        let hash = weights.hash();
        Teacher {
            view: view_of(config, student, grid_scale, model.size_divisor()),
            model,
            weights,
            hash,
        }
    }

    /// The same on a plain `device`.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        Teacher {
            weights: self.weights.on(device),
            ..self
        }
    }

    /// Its architecture.
    #[must_use]
    pub fn model(&self) -> &dyn Model {
        self.model.as_ref()
    }

    /// What methods are bound to, where the student's training images all have the size `student`, if
    /// they have one.
    #[must_use]
    pub fn as_bound(&self, student: Option<ImageSize>) -> TeacherModel<'_> {
        TeacherModel {
            model: self.model.as_ref(),
            size: student.and_then(|size| padded_size(self.view.as_ref(), size).ok()),
            has_own_size: self
                .view
                .as_ref()
                .is_some_and(|view| view.scale != [1.0, 1.0]),
        }
    }

    /// The view that it sees of each image; none where it sees the student's.
    #[must_use]
    pub fn view(&self) -> Option<&ViewSpec> {
        self.view.as_ref()
    }

    fn view_in<'a>(&self, batch: &'a Batch) -> Option<&'a View> {
        let view = batch.view(self.view.as_ref()?);
        Some(view.expect("batches for teachers are made with the views of `views`"))
    }

    /// `[height, width]` of the images of a batch with padding, as it sees them.
    #[must_use]
    pub fn padded_size(&self, batch: &Batch) -> [usize; 2] {
        let [_, _, height, width] = self.view_in(batch).map_or(batch.shape, |view| view.shape);
        [height, width]
    }

    /// `[height, width]` of an image of a batch without padding, as it sees it.
    #[must_use]
    pub fn image_size(&self, batch: &Batch, image: usize) -> [usize; 2] {
        let view = self.view_in(batch);
        view.map_or(batch.metas[image].size, |view| view.sizes[image])
    }

    /// Hash of its weights and buffers.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The images of a batch as this teacher sees them, `[N, 3, H, W]` on its device; none where it
    /// sees the student's.
    ///
    /// # Panics
    /// If the batch was made without the view that [`views`] names for it.
    #[must_use]
    pub fn own_images(&self, batch: &Batch) -> Option<Tensor<4>> {
        let view = self.view_in(batch)?;
        let device = self.weights.device();
        let pixels = TensorData::new(view.images.clone(), view.shape);
        Some(Tensor::from_data(pixels, &device))
    }

    /// Taps `names` of `images` `[N, 3, H, W]`, which lie where its weights do, computed no deeper than
    /// they need; and where `to_the_end`, what its head gives. Without either nothing runs.
    #[must_use]
    pub fn forward(&self, images: &Tensor<4>, names: &[String], to_the_end: bool) -> Forward {
        if names.is_empty() && !to_the_end {
            return Forward::default();
        }
        let request = ForwardRequest {
            training: false,
            taps: names.to_vec(),
            stop_at_taps: !to_the_end,
        };
        self.model
            .forward(self.weights.tensors(), images.clone(), &request)
    }

    /// Checks that nothing wrote to the weights or buffers since they were frozen.
    ///
    /// # Errors
    /// If the hash differs.
    pub fn verify(&self, name: &str) -> Result<(), EngineError> {
        let now = self.weights.hash();
        if now == self.hash {
            Ok(())
        } else {
            Err(EngineError::TeacherChanged {
                name: name.to_owned(),
                before: self.hash.clone(),
                after: now,
            })
        }
    }
}

/// The views that batches for `teachers` are made with, each once.
#[must_use]
pub fn views(teachers: &Teachers) -> Vec<ViewSpec> {
    let mut views: Vec<ViewSpec> = Vec::new();
    for view in teachers.values().filter_map(Teacher::view) {
        if !views.contains(view) {
            views.push(view.clone());
        }
    }
    views
}

/// Each teacher on a batch whose student sees `images`: the taps, and whether to go to the end, that
/// `wanted` names. For a look at a run; a training step times each.
#[must_use]
pub fn teach(
    teachers: &Teachers,
    batch: &Batch,
    images: &Tensor<4>,
    wanted: impl Fn(&str, &Teacher) -> (Vec<String>, bool),
) -> Taught {
    let pass = |(name, teacher): (&String, &Teacher)| {
        let (taps, to_the_end) = wanted(name, teacher);
        let own = teacher.own_images(batch);
        let images = own.as_ref().unwrap_or(images);
        (name.clone(), teacher.forward(images, &taps, to_the_end))
    };
    teachers.iter().map(pass).collect()
}

/// Taps of student and teachers, as methods read them.
#[must_use]
pub fn model_taps<'a>(student: &'a TapValues, taught: &'a Taught) -> ModelTaps<'a> {
    let teachers = taught.iter();
    let teachers = teachers.map(|(name, forward)| (name.as_str(), &forward.taps));
    std::iter::once((STUDENT, student))
        .chain(teachers)
        .collect()
}

/// What targets are made from, with what each model predicts.
#[must_use]
pub fn sources<'a>(
    batch: &'a Batch,
    model: &'a dyn Model,
    student: &'a Forward,
    teachers: &'a Teachers,
    taught: &'a Taught,
) -> Sources<'a> {
    let mut sources = Sources::new(batch, model).predicted(STUDENT, model, student.head());
    for (name, forward) in taught {
        sources = sources.predicted(name, teachers[name].model(), forward.head());
    }
    sources
}
