//! What the models do, as their taps show it.

use kd_plugin::{MethodError, Role, TapInfo, Taps};

/// Class logits of a classifier `[N, K, 1, 1]` or of a segmenter `[N, K, H, W]`.
pub const LOGITS: &str = "logits";
/// Beginning of a detector's class logits.
pub const HEAD: &str = "head.cls_logits.";

/// What the models do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One class an image.
    Classification,
    /// One class a pixel.
    Segmentation,
    /// Boxes with classes.
    Detection,
}

impl Task {
    /// The student's.
    ///
    /// # Errors
    /// If it has neither `head.cls_logits.*` nor `logits`.
    pub fn of(taps: &Taps) -> Result<Self, MethodError> {
        let mut students = taps.iter().filter(|tap| tap.role == Role::Student);
        let is_output = |tap: &&TapInfo| tap.name == LOGITS || tap.name.starts_with(HEAD);
        match students.find(is_output) {
            Some(tap) if tap.name != LOGITS => Ok(Task::Detection),
            Some(tap) if has_no_grid(tap) => Ok(Task::Classification),
            Some(_) => Ok(Task::Segmentation),
            None => Err(MethodError::unsupported(
                "the student has neither the tap `logits` (classifiers, segmenters) nor taps \
                 `head.cls_logits.*` (detectors)",
            )),
        }
    }
}

/// Whether the tap is one vector an image.
fn has_no_grid(tap: &TapInfo) -> bool {
    tap.stride == 0 || tap.size() == Some([1, 1])
}
