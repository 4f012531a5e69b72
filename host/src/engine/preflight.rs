//! One batch before step 0: every tap fires, every learned part of the method gets a gradient,
//! time and memory are measured.

use std::fmt::Write as _;

use crate::data::Batch;
use crate::distill::taps::TEACHER;
use crate::model::{Detector, TapShape, tap_table};

use super::EngineError;
use super::memory::MemoryUsage;
use super::step::{Learner, StepPosition};
use super::step_times::StepTimes;

/// What one batch showed.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// Taps of student and teacher side by side; empty without a method.
    pub taps: String,
    /// Loss terms.
    pub losses: Vec<(String, f64)>,
    /// Learned parts of the method that got no gradient.
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
    let [_, _, height, width] = batch.shape;
    let taps = match &learner.distiller {
        None => String::new(),
        Some(distiller) => {
            let teacher = learner.teacher.as_ref().map(|t| t.detector());
            bound_taps(
                distiller.bindings(),
                learner.detector.as_ref(),
                teacher,
                [height, width],
            )
        }
    };
    let probe = learner.probe(batch, at)?;
    let names = learner.distiller.iter().flat_map(|d| d.param_names());
    let without_gradient = names
        .zip(&probe.method_gradients)
        .filter(|(_, gradient)| gradient.iter().all(|g| *g == 0.0))
        .map(|(name, _)| name.to_owned())
        .collect();
    Ok(Preflight {
        taps,
        losses: probe.losses,
        without_gradient,
        times: probe.times,
        resident_bytes: MemoryUsage::now().map_or(0, |m| m.resident_bytes),
    })
}

fn bound_taps(
    bindings: &[crate::plugin::TapBinding],
    student: &dyn Detector,
    teacher: Option<&dyn Detector>,
    input_size: [usize; 2],
) -> String {
    let mut text = String::new();
    for row in tap_table(student, teacher, input_size) {
        if !bindings.iter().any(|b| b.name == row.name) {
            continue;
        }
        let teacher = bindings
            .iter()
            .any(|b| b.role == TEACHER && b.name == row.name);
        let shape = |tap: &TapShape| {
            let [height, width] = tap.size;
            format!("{}×{height}×{width}", tap.channels)
        };
        let _ = write!(
            text,
            "tap {}: student {}",
            row.name,
            row.student.as_ref().map_or("-".into(), shape)
        );
        if teacher {
            let _ = write!(
                text,
                ", teacher {}",
                row.teacher.as_ref().map_or("-".into(), shape)
            );
        }
        text.push('\n');
    }
    text
}
