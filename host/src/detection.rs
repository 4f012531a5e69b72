//! Anchors, box coding, assignment, losses, post-processing. No I/O.

pub mod anchors;
pub mod assigner;
pub mod box_coder;
#[cfg(test)]
mod golden;
mod host_values;
mod known_gradient;
mod levels;
pub mod locations;
pub mod losses;
pub mod nms;
pub mod postprocess;

pub use anchors::AnchorGenerator;
pub use assigner::assign;
pub use locations::{LocationLosses, decoded_boxes, retinanet_location_losses};
pub use losses::{LossConfig, retinanet_losses};
pub use postprocess::{PostprocessConfig, detect};

use crate::maps::Maps;

/// Raw outputs of the head on all levels, finest first.
#[derive(Clone, Debug)]
pub struct HeadOutput {
    /// Logits, `A*K` channels, anchor-major as torchvision's.
    pub cls_logits: Maps,
    /// Encoded boxes, `A*4` channels.
    pub box_deltas: Maps,
}

/// Ground truth matched to anchors, for a batch.
///
/// Anchors are numbered over all levels, finest first, within a level row-major over cells, then
/// anchors of the cell, as torchvision's.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Per image, per anchor: the matched object's index, or one of the constants below.
    pub matched: Vec<Vec<i32>>,
    /// Per image: class of each object.
    pub labels: Vec<Vec<usize>>,
    /// Per image: boxes in pixels of the network input.
    pub boxes_xyxy: Vec<Vec<[f32; 4]>>,
    /// Anchors, `[x1, y1, x2, y2]` in pixels of the network input.
    pub anchors_xyxy: std::sync::Arc<Vec<[f32; 4]>>,
}

pub use crate::kernels::focal::{BACKGROUND, IGNORED};

/// Final detections of one image, by descending score.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detections {
    /// Pixels; of which image, the function that returns this says.
    pub boxes_xyxy: Vec<[f32; 4]>,
    /// Probabilities.
    pub scores: Vec<f32>,
    /// Class indices, 0-based.
    pub labels: Vec<usize>,
}
