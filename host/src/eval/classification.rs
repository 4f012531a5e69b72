//! Accuracy of classifiers, as torchvision's reference scripts have it.
//!
//! Protocol: an image counts in the top k if its class is among the k of the largest logits; of equal
//! logits those of lower classes come first. With K < 5 classes the top 5 are all of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::percent;

/// How the numbers are made, part of every result: two of different protocols do not compare.
const PROTOCOL: &str = "top1-torchvision: every image once, as the evaluation transform has it; of \
                        equal logits those of lower classes come first";

/// What stands for a mean over nothing.
const UNDEFINED: f64 = -1.0;

/// Classes that count as found in the second number.
const TOP: usize = 5;

/// Images seen so far, by their class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accuracy {
    /// By class: images, those right, those within the top five.
    counts: Vec<[u64; 3]>,
}

impl Accuracy {
    /// Of no image yet.
    #[must_use]
    pub fn new(num_classes: usize) -> Self {
        Accuracy {
            counts: vec![[0; 3]; num_classes],
        }
    }

    /// Counts an image of the class `label` for which the model gave `logits`, one a class; says how many
    /// classes come before its own.
    ///
    /// # Panics
    /// If there is not one logit a class, or `label` is none.
    pub fn add(&mut self, logits: &[f32], label: usize) -> usize {
        assert_eq!(logits.len(), self.counts.len(), "one logit a class");
        let own = logits[label];
        let before = |(class, logit): (usize, &f32)| {
            // What is no number is never larger, and its own class is never found.
            *logit > own || (*logit == own && class < label) || own.is_nan()
        };
        let rank = logits
            .iter()
            .enumerate()
            .filter(|&(c, l)| before((c, l)))
            .count();
        let [images, right, within] = &mut self.counts[label];
        *images += 1;
        *right += u64::from(rank == 0);
        *within += u64::from(rank < TOP);
        rank
    }

    /// The numbers. `classes` are the names of the classes, `image_list_hash` is of the images that
    /// were added.
    ///
    /// # Panics
    /// If there is not a name for each class.
    #[must_use]
    pub fn metrics(&self, classes: &[String], image_list_hash: String) -> ClassificationMetrics {
        assert_eq!(classes.len(), self.counts.len(), "one name a class");
        let sum = |column: usize| self.counts.iter().map(|counts| counts[column]).sum::<u64>();
        let images = sum(0);
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let named = classes.iter().zip(&self.counts);
        let per_class: Vec<ClassAccuracy> = named
            .map(|(name, &[images, right, _])| ClassAccuracy {
                name: name.clone(),
                images,
                acc: share(right, images),
            })
            .collect();
        let defined: Vec<f64> = per_class.iter().filter_map(|class| class.acc).collect();
        ClassificationMetrics {
            top1: share(sum(1), images).unwrap_or(UNDEFINED),
            top5: share(sum(2), images).unwrap_or(UNDEFINED),
            mean_class: match defined.len() {
                0 => UNDEFINED,
                count => defined.iter().sum::<f64>() / count as f64,
            },
            per_class,
            images,
            protocol: PROTOCOL.to_owned(),
            image_list_hash,
        }
    }
}

/// Fractions over a whole data set; −1 without images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassificationMetrics {
    /// Share of the images whose class has the largest logit.
    pub top1: f64,
    /// Share of the images whose class is among the five of the largest logits.
    pub top5: f64,
    /// Mean of the classes' accuracy.
    pub mean_class: f64,
    /// One a class.
    pub per_class: Vec<ClassAccuracy>,
    /// How many images were looked at.
    pub images: u64,
    /// Every choice that the numbers depend on.
    pub protocol: String,
    /// [`super::image_list_hash`]: numbers with different hashes do not compare.
    pub image_list_hash: String,
}

/// Accuracy on the images of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassAccuracy {
    /// Its name.
    pub name: String,
    /// How many there are.
    pub images: u64,
    /// Share of them that is right; `None` where there are none.
    pub acc: Option<f64>,
}

impl ClassificationMetrics {
    /// The means under the names that reports and logs use; −1 where undefined.
    #[must_use]
    pub fn columns(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("top-1", self.top1),
            ("top-5", self.top5),
            ("class mean", self.mean_class),
        ]
    }

    /// Every number under the name that reports and logs use; −1 where it is undefined.
    #[must_use]
    pub fn named(&self) -> Vec<(String, f64)> {
        let means = [
            ("top1", self.top1),
            ("top5", self.top5),
            ("mean_class", self.mean_class),
        ];
        let means = means.map(|(name, value)| (name.to_owned(), value));
        let classes = self.per_class.iter();
        let classes = classes.map(|c| (format!("acc/{}", c.name), c.acc.unwrap_or(UNDEFINED)));
        means.into_iter().chain(classes).collect()
    }
}

impl fmt::Display for ClassificationMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let images = format!("of {} images", self.images);
        for (name, value) in self.columns() {
            writeln!(f, "{name:<10}  {images:<18}  {:>5}", percent(value))?;
        }
        let lengths = self.per_class.iter().map(|c| c.name.chars().count());
        let width = lengths
            .chain([5])
            .max()
            .expect("the chained element is there");
        write!(f, "\n{:<width$}  {:>5}  {:>6}", "class", "acc", "images")?;
        for ClassAccuracy { name, images, acc } in &self.per_class {
            let acc = percent(acc.unwrap_or(UNDEFINED));
            write!(f, "\n{name:<width$}  {acc:>5}  {images:>6}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
