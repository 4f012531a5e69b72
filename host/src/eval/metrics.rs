//! What an evaluation gives, whatever the task.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::classification::ClassificationMetrics;
use super::coco::CocoMetrics;
use super::segmentation::SegmentationMetrics;

/// Numbers of one evaluation. As JSON each task has its own keys, side by side with `protocol`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Metrics {
    /// COCO's twelve numbers and AP by class.
    Detection(CocoMetrics),
    /// mIoU, accuracies and IoU by class.
    Segmentation(SegmentationMetrics),
    /// Accuracies, over all and by class.
    Classification(ClassificationMetrics),
}

impl Metrics {
    /// Every number under the name that reports and logs use.
    #[must_use]
    pub fn named(&self) -> Vec<(String, f64)> {
        match self {
            Metrics::Detection(m) => {
                let named = m.named().into_iter();
                named
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            }
            Metrics::Segmentation(m) => m.named(),
            Metrics::Classification(m) => m.named(),
        }
    }

    /// The number by which checkpoints are compared, larger is better.
    #[must_use]
    pub fn main(&self) -> (&'static str, f64) {
        self.columns()[0]
    }

    /// The numbers of a table of models, fractions; the main one first. Negative or NaN: undefined.
    #[must_use]
    pub fn columns(&self) -> Vec<(&'static str, f64)> {
        match self {
            Metrics::Detection(m) => vec![
                ("AP", m.ap),
                ("AP50", m.ap50),
                ("AP75", m.ap75),
                ("AP_S", m.ap_small),
                ("AP_M", m.ap_medium),
                ("AP_L", m.ap_large),
            ],
            Metrics::Segmentation(m) => vec![
                ("mIoU", m.miou),
                ("mAcc", m.macc),
                ("aAcc", m.aacc),
                ("fwIoU", m.fwiou),
            ],
            Metrics::Classification(m) => m.columns(),
        }
    }

    /// Evaluator, version and settings that the numbers depend on.
    #[must_use]
    pub fn protocol(&self) -> &str {
        match self {
            Metrics::Detection(m) => &m.protocol,
            Metrics::Segmentation(m) => &m.protocol,
            Metrics::Classification(m) => &m.protocol,
        }
    }

    /// Hash of the images that were evaluated.
    #[must_use]
    pub fn image_list_hash(&self) -> &str {
        match self {
            Metrics::Detection(m) => &m.image_list_hash,
            Metrics::Segmentation(m) => &m.image_list_hash,
            Metrics::Classification(m) => &m.image_list_hash,
        }
    }

    /// The main number of each class, a fraction, in the order of classes; none where it is undefined.
    #[must_use]
    pub fn by_class(&self) -> Vec<(&str, Option<f64>)> {
        match self {
            Metrics::Detection(m) => {
                let defined = |ap: f64| (ap >= 0.0).then_some(ap);
                let classes = m.per_class.iter();
                classes.map(|c| (c.name.as_str(), defined(c.ap))).collect()
            }
            Metrics::Segmentation(m) => {
                let classes = m.per_class.iter();
                classes.map(|c| (c.name.as_str(), c.iou)).collect()
            }
            Metrics::Classification(m) => {
                let classes = m.per_class.iter();
                classes.map(|c| (c.name.as_str(), c.acc)).collect()
            }
        }
    }

    /// The first two columns, for a line of a log: `AP 40.1 AP50 61.0`.
    #[must_use]
    pub fn line(&self) -> String {
        let columns = self.columns().into_iter().take(2);
        let words = columns.map(|(name, value)| format!("{name} {}", percent(value)));
        words.collect::<Vec<String>>().join(" ")
    }
}

/// A fraction as a table shows it: in percent, or `-` where it is undefined.
#[must_use]
pub fn percent(value: f64) -> String {
    if value >= 0.0 {
        format!("{:.1}", 100.0 * value)
    } else {
        "-".into()
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metrics::Detection(m) => m.fmt(f),
            Metrics::Segmentation(m) => m.fmt(f),
            Metrics::Classification(m) => m.fmt(f),
        }
    }
}
