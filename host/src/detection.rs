//! Anchors, box coding, assignment, losses, post-processing. No I/O.

pub mod anchors;
pub mod assigner;
pub mod box_coder;
#[cfg(test)]
mod golden;

mod levels;
pub mod location_assigner;
pub mod locations;
pub mod losses;
pub mod nms;
pub mod postprocess;

pub use anchors::AnchorGenerator;
pub use assigner::assign;
pub use box_coder::BoxCoder;
pub use location_assigner::assign_locations;
pub use locations::{LocationLosses, decoded_boxes, location_losses};
pub use losses::{LossConfig, fcos_losses, retinanet_losses};
pub use postprocess::{PostprocessConfig, detect};

use std::sync::Arc;

use crate::boxes::BoxXyxy;
use crate::data::ImageTargets;
use crate::maps::Maps;

/// Raw outputs of the head on all levels, finest first.
#[derive(Clone, Debug)]
pub struct HeadOutput {
    /// Logits, `A*K` channels, anchor-major as torchvision's.
    pub cls_logits: Maps,
    /// Encoded boxes, `A*4` channels; the detector's [`BoxCoder`] reads them.
    pub box_deltas: Maps,
    /// How central each location is in its object, logits before the sigmoid, `A` channels; of
    /// detectors that predict it.
    pub centerness: Option<Maps>,
}

/// Ground truth matched to anchors, for a batch.
///
/// Anchors are numbered over all levels, finest first, within a level row-major over cells, then
/// anchors of the cell, as torchvision's. To a detector without anchors each location is one: the
/// square that stands for it.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Per image, per anchor: the matched object's index, or one of the constants below.
    pub matched: Vec<Vec<i32>>,
    /// Per image: class of each object.
    pub labels: Vec<Vec<usize>>,
    /// Per image: boxes in pixels of the network input.
    pub boxes_xyxy: Vec<Vec<[f32; 4]>>,
    /// Anchors, `[x1, y1, x2, y2]` in pixels of the network input.
    pub anchors_xyxy: Arc<Vec<[f32; 4]>>,
}

impl Assignment {
    /// Matches the objects of each image to `anchors_xyxy` by the rule `matched`: from anchors and
    /// objects to [`Assignment::matched`] of an image.
    fn new(
        anchors_xyxy: Arc<Vec<BoxXyxy>>,
        targets: &[ImageTargets],
        matched: impl Fn(&[BoxXyxy], &[BoxXyxy]) -> Vec<i32>,
    ) -> Self {
        let rows = targets.iter();
        Assignment {
            matched: rows
                .clone()
                .map(|image| matched(&anchors_xyxy, &image.boxes_xyxy))
                .collect(),
            labels: rows.clone().map(|image| image.labels.clone()).collect(),
            boxes_xyxy: rows.map(|image| image.boxes_xyxy.clone()).collect(),
            anchors_xyxy,
        }
    }
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
