//! Mean intersection over union, as mmsegmentation has it.
//!
//! Protocol: one confusion matrix over all pixels of all images, never an average of images. Pixels
//! without a class in the truth ([`IGNORE_LABEL`]) are left out, whatever is predicted there. Images
//! are compared at their annotated size. The IoU of a class is undefined, and left out of the mean,
//! only where it is neither annotated nor predicted: one that is predicted somewhere and annotated
//! nowhere has IoU 0. (Detectron2 leaves that one out as well.) Accuracy is undefined where a class is
//! not annotated.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::percent;
use crate::data::{IGNORE_LABEL, LabelMap};

/// How the numbers are made, part of every result: two of different protocols do not compare.
const PROTOCOL: &str = "miou-mmseg: one confusion matrix over all pixels, label 255 left out, images at \
                        their annotated size; a class counts if it is annotated or predicted";

/// What stands for a mean over nothing.
const UNDEFINED: f64 = -1.0;

/// How often each class was predicted for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    num_classes: usize,
    /// Pixels, by true class, then by predicted class.
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// Of no pixel yet.
    ///
    /// # Panics
    /// If there are more classes than labels: 1 to 255.
    #[must_use]
    pub fn new(num_classes: usize) -> Self {
        let labels = 1..=usize::from(IGNORE_LABEL);
        assert!(labels.contains(&num_classes), "{num_classes} classes");
        ConfusionMatrix {
            num_classes,
            counts: vec![0; num_classes * num_classes],
        }
    }

    /// Counts the labelled pixels of one image.
    ///
    /// # Panics
    /// If the maps differ in size, or a label is no class; the truth may have [`IGNORE_LABEL`].
    pub fn add(&mut self, predicted: &LabelMap, truth: &LabelMap) {
        assert_eq!(predicted.size, truth.size, "maps of one image");
        let classes = self.num_classes;
        for (&predicted, &truth) in predicted.data.iter().zip(&truth.data) {
            if truth == IGNORE_LABEL {
                continue;
            }
            let [predicted, truth] = [predicted, truth].map(usize::from);
            assert!(
                predicted < classes && truth < classes,
                "{predicted} predicted for {truth}, of {classes} classes"
            );
            self.counts[truth * classes + predicted] += 1;
        }
    }

    /// Adds the pixels of `other`.
    ///
    /// # Panics
    /// If it has other classes.
    pub fn merge(&mut self, other: &ConfusionMatrix) {
        assert_eq!(self.num_classes, other.num_classes, "the same classes");
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// `[true label, predicted label, pixels]`, where there are any.
    #[must_use]
    pub fn cells(&self) -> Vec<[u64; 3]> {
        let classes = self.num_classes;
        let cell = |(at, &pixels): (usize, &u64)| {
            (pixels > 0).then(|| [(at / classes) as u64, (at % classes) as u64, pixels])
        };
        self.counts.iter().enumerate().filter_map(cell).collect()
    }

    /// The numbers. `classes` are the names of the classes, `image_list_hash` is of the images that
    /// were added.
    ///
    /// # Panics
    /// If there is not a name for each class.
    #[must_use]
    pub fn metrics(&self, classes: &[String], image_list_hash: String) -> SegmentationMetrics {
        assert_eq!(classes.len(), self.num_classes, "one name a class");
        let count = |truth: usize, predicted: usize| self.counts[truth * classes.len() + predicted];
        let all = || 0..classes.len();
        let annotated: Vec<u64> = all().map(|c| all().map(|p| count(c, p)).sum()).collect();
        let predicted: Vec<u64> = all().map(|c| all().map(|t| count(t, c)).sum()).collect();
        let per_class: Vec<ClassIou> = all()
            .zip(classes)
            .map(|(class, name)| {
                let right = count(class, class);
                let union = annotated[class] + predicted[class] - right;
                ClassIou {
                    name: name.clone(),
                    iou: share(right, union),
                    acc: share(right, annotated[class]),
                }
            })
            .collect();
        let pixels: u64 = annotated.iter().sum();
        let right: u64 = all().map(|class| count(class, class)).sum();
        let weighted = per_class.iter().zip(&annotated);
        let weighted = weighted.filter_map(|(class, &n)| Some(n as f64 * class.iou?));
        SegmentationMetrics {
            miou: mean(per_class.iter().filter_map(|class| class.iou)),
            macc: mean(per_class.iter().filter_map(|class| class.acc)),
            aacc: share(right, pixels).unwrap_or(UNDEFINED),
            fwiou: match pixels {
                0 => UNDEFINED,
                pixels => weighted.sum::<f64>() / pixels as f64,
            },
            per_class,
            pixels,
            protocol: PROTOCOL.to_owned(),
            image_list_hash,
        }
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    match values.len() {
        0 => UNDEFINED,
        count => values.iter().sum::<f64>() / count as f64,
    }
}

/// Fractions over a whole data set; −1 where no pixel is labelled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentationMetrics {
    /// Mean of the classes' intersection over union.
    pub miou: f64,
    /// Mean of the classes' accuracy (recall).
    pub macc: f64,
    /// Share of all labelled pixels that are right.
    pub aacc: f64,
    /// IoU weighted by the classes' shares of the annotated pixels.
    pub fwiou: f64,
    /// One a class.
    pub per_class: Vec<ClassIou>,
    /// How many labelled pixels were compared.
    pub pixels: u64,
    /// Every choice that the numbers depend on.
    pub protocol: String,
    /// [`super::image_list_hash`]: numbers with different hashes do not compare.
    pub image_list_hash: String,
}

/// Numbers of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassIou {
    /// Its name.
    pub name: String,
    /// Right pixels over those annotated or predicted as it; `None` where there are none.
    pub iou: Option<f64>,
    /// Right pixels over those annotated as it; `None` where there are none.
    pub acc: Option<f64>,
}

impl SegmentationMetrics {
    /// Every number under the name that reports and logs use; −1 where it is undefined.
    #[must_use]
    pub fn named(&self) -> Vec<(String, f64)> {
        let means = [
            ("mIoU", self.miou),
            ("mAcc", self.macc),
            ("aAcc", self.aacc),
            ("fwIoU", self.fwiou),
        ];
        let means = means.map(|(name, value)| (name.to_owned(), value));
        let classes = self.per_class.iter();
        let classes = classes.map(|c| (format!("IoU/{}", c.name), c.iou.unwrap_or(UNDEFINED)));
        means.into_iter().chain(classes).collect()
    }
}

impl fmt::Display for SegmentationMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value, over) in [
            ("mIoU", self.miou, "mean over classes"),
            ("mAcc", self.macc, "mean over annotated classes"),
            ("aAcc", self.aacc, "all labelled pixels"),
            ("fwIoU", self.fwiou, "classes by annotated pixels"),
        ] {
            writeln!(f, "{name:<6}  {over:<28}  {:>5}", percent(value))?;
        }
        let lengths = self.per_class.iter().map(|c| c.name.chars().count());
        let width = lengths
            .chain([5])
            .max()
            .expect("the chained element is there");
        write!(f, "\n{:<width$}  {:>5}  {:>5}", "class", "IoU", "Acc")?;
        for ClassIou { name, iou, acc } in &self.per_class {
            let [iou, acc] = [iou, acc].map(|v| percent(v.unwrap_or(UNDEFINED)));
            write!(f, "\n{name:<width$}  {iou:>5}  {acc:>5}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
