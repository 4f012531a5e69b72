//! The numbers of an evaluation and how they print.

use std::fmt;

use hotcoco::COCOeval;
use serde::{Deserialize, Serialize};

use super::{EvalError, GroundTruth};

/// COCO's twelve numbers, as fractions; −1 where no class has ground truth (of that size).
///
/// AP is the mean precision over IoU thresholds, recall thresholds and classes; AR the mean over
/// IoU thresholds and classes of the highest recall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CocoMetrics {
    /// AP over IoU 0.50:0.05:0.95.
    pub ap: f64,
    /// AP at IoU 0.50.
    pub ap50: f64,
    /// AP at IoU 0.75.
    pub ap75: f64,
    /// AP of objects up to 32² px².
    pub ap_small: f64,
    /// AP of objects of 32² to 96² px².
    pub ap_medium: f64,
    /// AP of objects from 96² px².
    pub ap_large: f64,
    /// AR with the best detection per image and class.
    pub ar_1: f64,
    /// AR with the 10 best detections per image and class.
    pub ar_10: f64,
    /// AR with the 100 best detections per image and class.
    pub ar_100: f64,
    /// AR of objects up to 32² px².
    pub ar_small: f64,
    /// AR of objects of 32² to 96² px².
    pub ar_medium: f64,
    /// AR of objects from 96² px².
    pub ar_large: f64,
    /// One a class, in the order of [`GroundTruth::categories`].
    pub per_class: Vec<ClassAp>,
    /// Evaluator, its version and every setting that the numbers depend on.
    pub protocol: String,
    /// [`GroundTruth::image_list_hash`]: numbers with different hashes do not compare.
    pub image_list_hash: String,
}

/// AP of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassAp {
    /// Its name.
    pub name: String,
    /// AP over IoU 0.50:0.05:0.95; −1 without ground truth.
    pub ap: f64,
    /// AP at IoU 0.50; −1 without ground truth.
    pub ap50: f64,
}

impl CocoMetrics {
    /// The twelve numbers under the names that reports and logs use, in COCO's order.
    #[must_use]
    pub fn named(&self) -> [(&'static str, f64); 12] {
        [
            ("AP", self.ap),
            ("AP50", self.ap50),
            ("AP75", self.ap75),
            ("AP_S", self.ap_small),
            ("AP_M", self.ap_medium),
            ("AP_L", self.ap_large),
            ("AR_1", self.ar_1),
            ("AR_10", self.ar_10),
            ("AR_100", self.ar_100),
            ("AR_S", self.ar_small),
            ("AR_M", self.ar_medium),
            ("AR_L", self.ar_large),
        ]
    }
}

/// A fraction times 100 with one decimal, or `-` for pycocotools' −1.
#[must_use]
pub fn percent(fraction: f64) -> String {
    if fraction < 0.0 {
        "-".to_owned()
    } else {
        format!("{:.1}", 100.0 * fraction)
    }
}

/// What each of [`CocoMetrics::named`] is taken over: IoU, area, detections per image and class.
const ROWS: [(&str, &str, usize); 12] = [
    ("0.50:0.95", "all", 100),
    ("0.50", "all", 100),
    ("0.75", "all", 100),
    ("0.50:0.95", "small", 100),
    ("0.50:0.95", "medium", 100),
    ("0.50:0.95", "large", 100),
    ("0.50:0.95", "all", 1),
    ("0.50:0.95", "all", 10),
    ("0.50:0.95", "all", 100),
    ("0.50:0.95", "small", 100),
    ("0.50:0.95", "medium", 100),
    ("0.50:0.95", "large", 100),
];

impl fmt::Display for CocoMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((name, value), (iou, area, max_dets)) in self.named().into_iter().zip(ROWS) {
            writeln!(
                f,
                "{name:<6}  IoU={iou:<9}  area={area:<6}  maxDets={max_dets:>3}  {:>5}",
                percent(value)
            )?;
        }
        let width = self
            .per_class
            .iter()
            .map(|class| class.name.chars().count())
            .chain([5])
            .max()
            .expect("the chained element is there");
        write!(f, "\n{:<width$}  {:>5}  {:>5}", "class", "AP", "AP50")?;
        for ClassAp { name, ap, ap50 } in &self.per_class {
            write!(
                f,
                "\n{name:<width$}  {:>5}  {:>5}",
                percent(*ap),
                percent(*ap50)
            )?;
        }
        Ok(())
    }
}

/// Reads the numbers off a finished evaluation. `rank` gives the evaluator's id of a category.
pub(super) fn collect(
    evaluation: &COCOeval,
    gt: &GroundTruth,
    rank: impl Fn(i64) -> u64,
) -> Result<CocoMetrics, EvalError> {
    let results = evaluation.results(false)?;
    let [
        ap,
        ap50,
        ap75,
        ap_small,
        ap_medium,
        ap_large,
        ar_1,
        ar_10,
        ar_100,
        ar_small,
        ar_medium,
        ar_large,
    ] = evaluation
        .stats()
        .and_then(|stats| <[f64; 12]>::try_from(stats).ok())
        .expect("a box evaluation that is summarized has twelve numbers");
    let accumulated = evaluation
        .accumulated()
        .expect("`results` has found it accumulated");
    let params = &evaluation.params;
    let area_index = params.all_area_idx();
    let max_dets_index = params.max_det_idx();
    // The mean precision of class `class_index` over the first `thresholds` IoU thresholds. A class
    // has ground truth and thus precision at all thresholds, or at none (all are −1 then).
    let class_ap = |class_index: usize, thresholds: usize| {
        let recalls = accumulated.shape.r;
        let sum: f64 = (0..thresholds)
            .flat_map(|t| (0..recalls).map(move |r| (t, r)))
            .map(|(t, r)| {
                let index =
                    accumulated.precision_idx(t, r, class_index, area_index, max_dets_index);
                accumulated.precision[index]
            })
            .sum();
        sum / (thresholds * recalls) as f64
    };
    let per_class = gt
        .categories
        .iter()
        .map(|category| {
            let class_index = accumulated
                .cat_ids
                .binary_search(&rank(category.id))
                .expect("every category is evaluated, in ascending order of its rank");
            ClassAp {
                name: category.name.clone(),
                ap: class_ap(class_index, accumulated.shape.t),
                // The thresholds ascend from 0.50.
                ap50: class_ap(class_index, 1),
            }
        })
        .collect();
    Ok(CocoMetrics {
        ap,
        ap50,
        ap75,
        ap_small,
        ap_medium,
        ap_large,
        ar_1,
        ar_10,
        ar_100,
        ar_small,
        ar_medium,
        ar_large,
        per_class,
        protocol: protocol(&results.hotcoco_version, params),
        image_list_hash: gt.image_list_hash(),
    })
}

/// The settings as they were used, read back from the evaluator.
fn protocol(version: &str, params: &hotcoco::Params) -> String {
    let span = |values: &[f64]| match values {
        [first, .., last] => format!("{first:.2}..{last:.2} ({})", values.len()),
        _ => format!("{values:?}"),
    };
    let areas: Vec<String> = params
        .area_ranges
        .iter()
        .map(|range| format!("{} [{}, {}]", range.label, range.range[0], range.range[1]))
        .collect();
    format!(
        "COCO box, hotcoco {version} (as pycocotools); IoU {}; recall {}; maxDets {:?} per image and \
         class; area {} px2, of ground truth as annotated, of detections w*h",
        span(&params.iou_thrs),
        span(&params.rec_thrs),
        params.max_dets,
        areas.join(", ")
    )
}
