//! One batch before step 0: every tap fires, every learned part of a method gets a gradient,
//! time and memory are measured.

use std::fmt::Write as _;

use crate::data::Batch;
use crate::model::{Model, TapSpec};

use super::EngineError;
use super::memory::MemoryUsage;
use super::step::{Learner, StepPosition};
use super::step_times::StepTimes;
use super::teacher::Teacher;

/// What one batch showed.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// Taps of student and teachers side by side; empty without a method.
    pub taps: String,
    /// Loss terms.
    pub losses: Vec<(String, f64)>,
    /// Learned parts of methods that got no gradient though a term has weight.
    pub without_gradient: Vec<String>,
    /// Seconds of the parts of one step; the first is slower than the rest.
    pub times: StepTimes,
    /// Bytes in memory after the batch.
    pub resident_bytes: u64,
}

/// Runs one batch through every part of the step and applies nothing.
///
/// # Errors
/// As a training step.
pub fn run(
    learner: &mut Learner,
    batch: Batch,
    at: StepPosition,
) -> Result<Preflight, EngineError> {
    let taps = bound_taps(learner, &batch);
    let probe = learner.probe(batch, at)?;
    let mut gradients = probe.method_gradients.iter();
    let mut without_gradient = Vec::new();
    let (_, phase) = learner.schedule.at(at.step);
    for (index, bound) in learner.methods.iter().enumerate() {
        let learning = learner.methods.learning(index, phase);
        let names = bound.param_names().into_iter().zip(learning);
        for ((name, learns), gradient) in names.zip(gradients.by_ref()) {
            // A ramp that begins at 0 gives no gradient yet.
            let expected = learns && bound.distiller.has_weight();
            if expected && gradient.iter().all(|g| *g == 0.0) {
                without_gradient.push(name);
            }
        }
    }
    Ok(Preflight {
        taps,
        losses: probe.losses,
        without_gradient,
        times: probe.times,
        resident_bytes: MemoryUsage::now().map_or(0, |m| m.resident_bytes),
    })
}

/// A line for each tap that a method reads, with its extents in every model in which one reads it.
fn bound_taps(learner: &Learner, batch: &Batch) -> String {
    let [_, _, height, width] = batch.shape;
    let input_size = [height, width];
    let shape = |model: &dyn Model, tap: &TapSpec, size: [usize; 2]| {
        let [height, width] = model.tap_size(tap, size);
        format!("{}×{height}×{width}", tap.channels)
    };
    let student = learner.methods.student_taps();
    let teachers: Vec<(&String, &Teacher, Vec<String>)> = (learner.teachers.iter())
        .map(|(name, teacher)| (name, teacher, learner.methods.teacher_taps(name)))
        .collect();
    let mut all = student.clone();
    for name in teachers.iter().flat_map(|(_, _, taps)| taps) {
        if !all.contains(name) {
            all.push(name.clone());
        }
    }
    let mut text = String::new();
    for tap in all {
        let find = |model: &dyn Model, size| {
            let found = model.taps().iter().find(|spec| spec.name == tap);
            found.map_or("-".to_owned(), |spec| shape(model, spec, size))
        };
        let mut models = Vec::new();
        if student.contains(&tap) {
            models.push(format!(
                "student {}",
                find(learner.model.as_ref(), input_size)
            ));
        }
        for (name, teacher, taps) in &teachers {
            if taps.contains(&tap) {
                let size = teacher.padded_size(batch);
                models.push(format!("{name} {}", find(teacher.model(), size)));
            }
        }
        let _ = writeln!(text, "tap {tap}: {}", models.join(", "));
    }
    text
}
