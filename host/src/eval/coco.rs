//! COCO box AP and AR: the twelve numbers of pycocotools, and AP per class.
//!
//! The matching and the sums are the `hotcoco` crate's. This module owns what surrounds them: ids
//! (any distinct integers; the evaluator sees ranks, annotations are numbered from 1), refusal of
//! input that pycocotools would silently drop or sort unpredictably, and the protocol's fingerprint.
//!
//! Protocol: IoU thresholds 0.50:0.05:0.95, 101 recall thresholds, the 1, 10 and 100 best
//! detections per image **and class**, area ranges split at 32² and 96² px² with both ends
//! inclusive. Ground truth is binned by its annotated area (COCO: the mask's), a detection by `w·h`.
//! A class without ground truth is left out of every mean.

use std::collections::BTreeMap;

use hotcoco::params::IouType;
use hotcoco::{COCO, COCOeval};
use serde::{Deserialize, Serialize};

use crate::data::Dataset;

mod matches;
mod metrics;
#[cfg(test)]
mod tests;

pub use matches::matches;
pub use metrics::{ClassAp, CocoMetrics, percent};

/// What predictions are compared with. Ids need not be contiguous or sorted, only distinct.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroundTruth {
    /// Every evaluated image, those without objects included: detections on them are false.
    pub images: Vec<GtImage>,
    /// In class order: a detector's label is an index into this list.
    pub categories: Vec<Category>,
    /// Objects of all images. Their order matters on exact ties: the later of two equally
    /// overlapping objects is matched.
    pub annotations: Vec<GtObject>,
}

/// One evaluated image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GtImage {
    /// Id within the data set. On equal scores, images count in ascending order of it.
    pub id: i64,
    /// `[height, width]` in pixels.
    pub size: [usize; 2],
}

/// One class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Category {
    /// Id as annotations and predictions state it.
    pub id: i64,
    /// For people.
    pub name: String,
}

/// One annotated object.
#[derive(Clone, Debug, PartialEq)]
pub struct GtObject {
    /// The image it is on.
    pub image_id: i64,
    /// Its class.
    pub category_id: i64,
    /// `[x, y, width, height]` in pixels of the original image.
    pub bbox_xywh: [f64; 4],
    /// Area in pixels² that decides small, medium or large; not necessarily `w·h`.
    pub area: f64,
    /// A crowd region: not to be found, absorbs any number of detections inside it.
    pub is_crowd: bool,
}

/// One detection.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// The image it is on.
    pub image_id: i64,
    /// Its class.
    pub category_id: i64,
    /// `[x, y, width, height]` in pixels of the original image.
    #[serde(rename = "bbox")]
    pub bbox_xywh: [f64; 4],
    /// Higher is surer. On equal scores within an image, the earlier in the list counts first.
    pub score: f64,
}

/// Ground truth or predictions cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// Two images or two categories share an id.
    #[error("{what} id {id} occurs twice in the ground truth; ids must be distinct")]
    DuplicateId {
        /// `image` or `category`.
        what: &'static str,
        /// The id.
        id: i64,
    },
    /// An entry names an image or a category that the ground truth does not list.
    #[error(
        "{entry} {index} names {what} {id}, which the ground truth does not list; evaluate on the \
         split that the entries were made for"
    )]
    UnknownId {
        /// `annotation` or `prediction`.
        entry: &'static str,
        /// Position in its list.
        index: usize,
        /// `image` or `category`.
        what: &'static str,
        /// The id.
        id: i64,
    },
    /// A number has no place in an order or an area.
    #[error("{entry} {index} on image {image_id} has a {what} that is NaN or infinite")]
    NotFinite {
        /// `annotation` or `prediction`.
        entry: &'static str,
        /// Position in its list.
        index: usize,
        /// The image it is on.
        image_id: i64,
        /// `box`, `area` or `score`.
        what: &'static str,
    },
    /// The evaluator refused.
    #[error("COCO evaluation: {0}")]
    Evaluator(#[from] hotcoco::Error),
}

impl GroundTruth {
    /// Ground truth of the first `limit` images of `dataset` (0: all), crowd regions included.
    ///
    /// Category ids are the labels plus one, as [`GroundTruth::category_ids`] lists them.
    #[must_use]
    pub fn from_dataset(dataset: &dyn Dataset, limit: usize) -> Self {
        let records = dataset.records();
        let taken = match limit {
            0 => records.len(),
            _ => limit.min(records.len()),
        };
        let records = &records[..taken];
        GroundTruth {
            images: records
                .iter()
                .map(|record| GtImage {
                    id: record.image_id,
                    size: record.size,
                })
                .collect(),
            categories: (1..)
                .zip(dataset.classes())
                .map(|(id, name)| Category {
                    id,
                    name: name.clone(),
                })
                .collect(),
            annotations: records
                .iter()
                .flat_map(|record| {
                    record.objects.iter().map(|object| GtObject {
                        image_id: record.image_id,
                        category_id: object.label as i64 + 1,
                        bbox_xywh: xywh_from_xyxy(object.box_xyxy.map(f64::from)),
                        area: object.area,
                        is_crowd: object.is_crowd,
                    })
                })
                .collect(),
        }
    }

    /// Category id of each label, for [`crate::eval::detector::to_predictions`].
    #[must_use]
    pub fn category_ids(&self) -> Vec<i64> {
        self.categories.iter().map(|category| category.id).collect()
    }

    /// SHA-256 (hex) of the evaluated images: a line `id height width` each, by ascending id.
    #[must_use]
    pub fn image_list_hash(&self) -> String {
        super::image_list_hash(self.images.iter().map(|image| (image.id, image.size)))
    }
}

/// `[x, y, width, height]` of `[x1, y1, x2, y2]`.
pub(super) fn xywh_from_xyxy([x1, y1, x2, y2]: [f64; 4]) -> [f64; 4] {
    [x1, y1, x2 - x1, y2 - y1]
}

/// Scores `predictions` against `gt`.
///
/// Equal to pycocotools 2.0 on the same input. Where that has no answer, ours is: without any
/// prediction, AP and AR are 0 for every class and size that has ground truth.
///
/// # Units
/// Boxes in pixels of the original image; results are fractions in `[0, 1]`, or −1 where no class
/// has ground truth (of that size).
///
/// # Determinism
/// The result depends on the input alone, not on the number of threads.
///
/// # Errors
/// On repeated or unknown ids and on numbers that are not finite. pycocotools drops annotations and
/// detections of unknown classes without a word; here they are an error.
pub fn evaluate(gt: &GroundTruth, predictions: &[Prediction]) -> Result<CocoMetrics, EvalError> {
    let ranks = Ranks::new(gt)?;
    let coco_gt = COCO::from_dataset(ranks.dataset(gt)?);
    let coco_dt = coco_gt.load_res_anns(ranks.detections(predictions)?)?;
    let mut evaluation = COCOeval::new(coco_gt, coco_dt, IouType::Bbox);
    evaluation.evaluate()?;
    evaluation.accumulate();
    // Despite its name this computes the twelve numbers; `summarize` would also print them.
    evaluation.summarize_lines();
    metrics::collect(&evaluation, gt, |category_id| {
        ranks.categories[&category_id]
    })
}

/// Ids by ascending order, counted from 1. The evaluator takes unsigned ids, and pycocotools reads
/// the id 0 of an annotation as "not matched"; neither constrains the caller's ids this way.
struct Ranks {
    images: BTreeMap<i64, u64>,
    categories: BTreeMap<i64, u64>,
}

impl Ranks {
    fn new(gt: &GroundTruth) -> Result<Self, EvalError> {
        Ok(Ranks {
            images: rank("image", gt.images.iter().map(|image| image.id))?,
            categories: rank("category", gt.categories.iter().map(|category| category.id))?,
        })
    }

    fn find(
        &self,
        entry: &'static str,
        index: usize,
        image_id: i64,
        category_id: i64,
    ) -> Result<(u64, u64), EvalError> {
        let unknown = |what, id| EvalError::UnknownId {
            entry,
            index,
            what,
            id,
        };
        Ok((
            *self
                .images
                .get(&image_id)
                .ok_or_else(|| unknown("image", image_id))?,
            *self
                .categories
                .get(&category_id)
                .ok_or_else(|| unknown("category", category_id))?,
        ))
    }

    fn dataset(&self, gt: &GroundTruth) -> Result<hotcoco::Dataset, EvalError> {
        let images = self.images.values().map(|&id| hotcoco::Image {
            id,
            ..Default::default()
        });
        let categories = gt.categories.iter().map(|category| hotcoco::Category {
            id: self.categories[&category.id],
            name: category.name.clone(),
            ..Default::default()
        });
        let mut annotations = Vec::with_capacity(gt.annotations.len());
        for (index, object) in gt.annotations.iter().enumerate() {
            let (image_id, category_id) =
                self.find("annotation", index, object.image_id, object.category_id)?;
            for (what, finite) in [
                ("box", object.bbox_xywh.iter().all(|v| v.is_finite())),
                ("area", object.area.is_finite()),
            ] {
                if !finite {
                    let image_id = object.image_id;
                    return Err(EvalError::NotFinite {
                        entry: "annotation",
                        index,
                        image_id,
                        what,
                    });
                }
            }
            annotations.push(hotcoco::Annotation {
                id: index as u64 + 1,
                image_id,
                category_id,
                bbox: Some(object.bbox_xywh),
                area: Some(object.area),
                iscrowd: object.is_crowd,
                ..Default::default()
            });
        }
        Ok(hotcoco::Dataset {
            images: images.collect(),
            categories: categories.collect(),
            annotations,
            ..Default::default()
        })
    }

    fn detections(
        &self,
        predictions: &[Prediction],
    ) -> Result<Vec<hotcoco::Annotation>, EvalError> {
        let mut detections = Vec::with_capacity(predictions.len());
        for (index, prediction) in predictions.iter().enumerate() {
            let (image_id, category_id) = self.find(
                "prediction",
                index,
                prediction.image_id,
                prediction.category_id,
            )?;
            for (what, finite) in [
                ("box", prediction.bbox_xywh.iter().all(|v| v.is_finite())),
                ("score", prediction.score.is_finite()),
            ] {
                if !finite {
                    let image_id = prediction.image_id;
                    return Err(EvalError::NotFinite {
                        entry: "prediction",
                        index,
                        image_id,
                        what,
                    });
                }
            }
            detections.push(hotcoco::Annotation {
                image_id,
                category_id,
                bbox: Some(prediction.bbox_xywh),
                score: Some(prediction.score),
                ..Default::default()
            });
        }
        Ok(detections)
    }
}

fn rank(
    what: &'static str,
    ids: impl Iterator<Item = i64>,
) -> Result<BTreeMap<i64, u64>, EvalError> {
    let mut ranks = BTreeMap::new();
    for id in ids {
        if ranks.insert(id, 0).is_some() {
            return Err(EvalError::DuplicateId { what, id });
        }
    }
    for (rank, slot) in (1..).zip(ranks.values_mut()) {
        *slot = rank;
    }
    Ok(ranks)
}
