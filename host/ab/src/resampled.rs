//! One evaluation, kept by image: what a metric needs to be computed again for any draw of the images.
//!
//! A draw is given by counts, how often each image is in it. A metric under counts is what the
//! evaluator gives for a data set in which image i is there `counts[i]` times, with new ids, the copies side by
//! side; with every count 1 it is the evaluator's own number. All metrics are in points.

mod classification;
mod detection;
mod segmentation;
#[cfg(test)]
mod tests;

pub use classification::ImageHits;
pub use detection::{ClassMatches, DetectionMatches, IOU_THRESHOLDS, MatchedDetection, RECALLS};
pub use segmentation::{ConfusionByImage, ConfusionCell};

/// An evaluation of any task.
#[derive(Clone, Debug, PartialEq)]
pub enum Resampled {
    /// AP.
    Detection(DetectionMatches),
    /// mIoU.
    Segmentation(ConfusionByImage),
    /// Top-1 accuracy.
    Classification(ImageHits),
}

impl Resampled {
    /// Number of evaluated images.
    #[must_use]
    pub fn num_images(&self) -> usize {
        match self {
            Resampled::Detection(d) => d.num_images(),
            Resampled::Segmentation(s) => s.num_images(),
            Resampled::Classification(c) => c.num_images(),
        }
    }

    /// The task's main metric under `counts`, points; none where it is undefined.
    ///
    /// # Panics
    /// If there is not one count an image.
    #[must_use]
    pub fn metric(&self, counts: &[u32]) -> Option<f64> {
        match self {
            Resampled::Detection(d) => d.ap(counts),
            Resampled::Segmentation(s) => s.miou(counts),
            Resampled::Classification(c) => c.top1(counts),
        }
    }
}
