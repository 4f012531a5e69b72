//! Named targets that a method may ask for.
//!
//! `T` counts ground-truth objects over the batch and may be 0; `L` counts the locations of an image:
//! levels finest first, row-major over cells, anchors of a cell innermost. `<role>` is `student`, or a
//! teacher whose anchors are the student's.
//!
//! | name | shape, type | meaning |
//! |---|---|---|
//! | `gt_boxes_xyxy` | `[T, 4]` f32 | pixels of the network input |
//! | `gt_labels` | `[T]` i64 | 0-based class |
//! | `gt_batch` | `[T]` i64 | index of the image in the batch, ascending |
//! | `image_sizes` | `[N, 2]` i64 | height, width of each image without padding |
//! | `input_size` | `[2]` i64 | height, width of the network input: the batch, padding included |
//! | `gt_mask_crops` | `[T, 7, 7]` f32 | instance masks inside their boxes, each cell 1 if at least half covered, else 0; `[0, 7, 7]` if any object of the batch has no mask |
//! | `gt_semantic_seg` | `[N, H, W]` i64 | in segmentation: 0-based class of every pixel of the network input; 255 ignored or padding |
//! | `gt_label` | `[N]` i64 | in classification: 0-based class of each image |
//! | `anchors_xyxy` | `[L, 4]` f32 | anchors, pixels of the network input |
//! | `points_xy` | `[L, 2]` f32 | their centres |
//! | `assign.labels` | `[N, L]` i64 | class of the object that the student's assigner matched; -1 background, -2 ignored |
//! | `assign.gt_index` | `[N, L]` i64 | index of that object among the `gt_*`; -1 off the foreground |
//! | `assign.fg_mask.<level>` | `[N, 1, H, W]` f32 | on `p3` and so on: 1 where any anchor of the cell is foreground, else 0 |
//! | `<role>.boxes_xyxy` | `[N, L, 4]` f32 | predicted boxes, pixels of the network input, not clipped |
//! | `<role>.loss_cls` | `[N, L]` f32 | classification loss, summed over classes; 0 where ignored |
//! | `<role>.loss_bbox` | `[N, L]` f32 | box loss with its weight; 0 off the foreground |
//! | `<role>.task_loss` | `[N, L]` f32 | all that enters the detector's loss at the location, with weights, before normalisation |
//!
//! Losses of every role are taken under the student's assignment. None of these carries a gradient.
//! Each is made at most once a batch, and only if a method reads it.

mod of_batch;
mod of_locations;
mod sources;

pub use sources::{Prediction, Sources};

use crate::config::Task;
use crate::data::Batch;
use crate::model::Model;
use crate::plugin::{MethodManifest, Plan};

use super::DistillError;
use super::distiller::Models;
use super::roles::Roles;
use super::taps::STUDENT;

/// What a target holds, flat over the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Extents; the first may be 0.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: TargetValues,
}

/// Values of a target.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetValues {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit integers.
    I64(Vec<i64>),
}

/// Makes a target from ground truth and images alone.
type OfBatch = fn(&Batch) -> Target;
/// Makes a target from the student's assignment.
type OfAssignment = fn(&Sources<'_>) -> Target;
/// Makes a target from what the head of the model in a role gave.
type OfPrediction = fn(&Sources<'_>, &str) -> Target;

/// How a target is made.
#[derive(Clone, Copy)]
pub enum Kind<'a> {
    /// From ground truth and images alone.
    OfBatch(OfBatch),
    /// From the student's assignment.
    OfAssignment(OfAssignment),
    /// The foreground mask of a level of the pyramid: `p3`.
    FgMask(&'a str),
    /// From the head's outputs of the model in `role`.
    OfPrediction {
        /// `student` or a teacher.
        role: &'a str,
        /// Makes it.
        build: OfPrediction,
    },
}

const OF_BATCH: [(&str, OfBatch); 8] = [
    ("gt_boxes_xyxy", of_batch::gt_boxes_xyxy),
    ("gt_labels", of_batch::gt_labels),
    ("gt_batch", of_batch::gt_batch),
    ("image_sizes", of_batch::image_sizes),
    ("input_size", of_batch::input_size),
    ("gt_mask_crops", of_batch::gt_mask_crops),
    ("gt_semantic_seg", of_batch::gt_semantic_seg),
    ("gt_label", of_batch::gt_label),
];

const OF_ASSIGNMENT: [(&str, OfAssignment); 4] = [
    ("anchors_xyxy", of_locations::anchors_xyxy),
    ("points_xy", of_locations::points_xy),
    ("assign.labels", of_locations::labels),
    ("assign.gt_index", of_locations::gt_index),
];

const FG_MASK: &str = "assign.fg_mask.";

/// By what follows the role.
const OF_PREDICTION: [(&str, OfPrediction); 4] = [
    ("boxes_xyxy", of_locations::boxes_xyxy),
    ("loss_cls", of_locations::loss_cls),
    ("loss_bbox", of_locations::loss_bbox),
    ("task_loss", of_locations::task_loss),
];

/// The kind of the target `name`; none if this host has no such target.
#[must_use]
pub fn find(name: &str) -> Option<Kind<'_>> {
    if let Some((_, build)) = OF_BATCH.iter().find(|(known, _)| *known == name) {
        return Some(Kind::OfBatch(*build));
    }
    if let Some((_, build)) = OF_ASSIGNMENT.iter().find(|(known, _)| *known == name) {
        return Some(Kind::OfAssignment(*build));
    }
    if let Some(level) = name.strip_prefix(FG_MASK) {
        return Some(Kind::FgMask(level));
    }
    let (role, what) = name.split_once('.')?;
    let known = OF_PREDICTION.iter().find(|(known, _)| *known == what);
    known.map(|(_, build)| Kind::OfPrediction {
        role,
        build: *build,
    })
}

/// The model whose head the target `name` is made from, if it is made from one.
#[must_use]
pub fn role_of(name: &str) -> Option<&str> {
    match find(name)? {
        Kind::OfPrediction { role, .. } => Some(role),
        _ => None,
    }
}

/// Whether the target `name` is made from anchors of the student, or from what they are matched to.
#[must_use]
pub fn is_of_student(name: &str) -> bool {
    !matches!(find(name), Some(Kind::OfBatch(_)) | None)
}

/// # Errors
/// If the method lists a target that this host does not have.
pub(super) fn check_names(manifest: &MethodManifest) -> Result<(), DistillError> {
    match manifest.targets.iter().find(|name| find(name).is_none()) {
        None => Ok(()),
        Some(name) => Err(DistillError::UnknownTarget {
            method: manifest.id.clone(),
            target: name.clone(),
            known: known(),
        }),
    }
}

/// Targets that are there whatever the task.
const OF_EVERY_TASK: [&str; 2] = ["image_sizes", "input_size"];
/// The ground truth of segmentation.
const OF_SEGMENTATION: &str = "gt_semantic_seg";
/// The ground truth of classification.
const OF_CLASSIFICATION: &str = "gt_label";

/// Pixels of a square input on which anchors of two models are compared.
const PROBE: usize = 256;

/// # Errors
/// If a target that the plan reads cannot be made for these models.
pub(super) fn check_models(
    manifest: &MethodManifest,
    plan: &Plan,
    models: Models<'_>,
    cast: &Roles,
) -> Result<(), DistillError> {
    for (name, read) in manifest.targets.iter().zip(&plan.target_use) {
        let reason = match find(name) {
            _ if !*read => None,
            _ if !has_task(models.student, name) => Some(other_task(models.student, name)),
            Some(Kind::FgMask(level)) => level_missing(models, level),
            Some(Kind::OfPrediction { role, .. }) => prediction_missing(models, cast, role),
            _ => None,
        };
        if let Some(reason) = reason {
            return Err(DistillError::Target {
                method: manifest.id.clone(),
                target: name.clone(),
                reason,
            });
        }
    }
    Ok(())
}

/// The task that the target `name` belongs to.
fn task_of(name: &str) -> Task {
    match name {
        OF_SEGMENTATION => Task::Segmentation,
        OF_CLASSIFICATION => Task::Classification,
        _ => Task::Detection,
    }
}

/// Whether the task of `student` has the target `name`.
fn has_task(student: &dyn Model, name: &str) -> bool {
    OF_EVERY_TASK.contains(&name) || student.task() == task_of(name)
}

fn other_task(student: &dyn Model, name: &str) -> String {
    let of = task_of(name).name();
    let own = match student.task() {
        Task::Detection => return format!("it is one of {of}, and the student is a detector"),
        Task::Segmentation => ("segmenter", OF_SEGMENTATION),
        Task::Classification => ("classifier", OF_CLASSIFICATION),
    };
    format!(
        "it is one of {of}, and the student is a {}, which has {}, {}",
        own.0,
        OF_EVERY_TASK.join(", "),
        own.1
    )
}

fn level_missing(models: Models<'_>, level: &str) -> Option<String> {
    let taps = models.student.head_taps();
    let missing = !taps.contains(&of_locations::neck_tap(level));
    missing.then(|| format!("the student's head reads {}", taps.join(", ")))
}

fn prediction_missing(models: Models<'_>, cast: &Roles, role: &str) -> Option<String> {
    if role == STUDENT {
        return None;
    }
    let Some((name, teacher)) = cast
        .get(role)
        .and_then(|name| models.teachers.get_key_value(name))
    else {
        return Some(format!("there is no model in the role `{role}`"));
    };
    if teacher.has_own_size {
        return Some(format!(
            "images of teacher `{name}` have another size than the student's, and it predicts at \
             other places; leave its `input_size` at `[]` and its `input_scale` at 0, or choose options \
             that do without this target"
        ));
    }
    let anchors = |model: &dyn Model| model.as_detector().map(|d| d.anchors([PROBE; 2]));
    let (Some(of_teacher), Some(of_student)) = (anchors(teacher.model), anchors(models.student))
    else {
        return Some(format!("teacher `{name}` is no detector"));
    };
    (of_teacher != of_student).then(|| {
        format!(
            "teacher `{name}` predicts at other places than the student: {} anchors on an input of \
             {PROBE}x{PROBE} pixels, the student {}; give both the same detector and anchors, or \
             choose options that do without this target",
            of_teacher.len(),
            of_student.len()
        )
    })
}

/// All names, for messages.
#[must_use]
pub fn known() -> String {
    let batch = OF_BATCH.iter().map(|(name, _)| (*name).to_owned());
    let assignment = OF_ASSIGNMENT.iter().map(|(name, _)| (*name).to_owned());
    let mask = std::iter::once(format!("{FG_MASK}<level>"));
    let prediction = OF_PREDICTION
        .iter()
        .map(|(what, _)| format!("<role>.{what}"));
    let all = batch.chain(assignment).chain(mask).chain(prediction);
    all.collect::<Vec<_>>().join(", ")
}

impl Target {
    /// Stands for a target that the method's plan does not read.
    pub(super) fn unread() -> Self {
        Target {
            shape: vec![0],
            values: TargetValues::F32(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests;
