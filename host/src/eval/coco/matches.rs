//! Which detections find an object, image by image: what AP is computed from.

use hotcoco::params::IouType;
use hotcoco::{COCO, COCOeval};
use kdhost_ab::resampled::{ClassMatches, IOU_THRESHOLDS, MatchedDetection};

use super::{EvalError, GroundTruth, Prediction, Ranks};

/// The matches of `predictions` at all areas and 100 detections per image and class, a class each in
/// the order of [`GroundTruth::categories`]. Images are numbered by ascending id.
///
/// # Errors
/// As [`super::evaluate`].
pub fn matches(
    gt: &GroundTruth,
    predictions: &[Prediction],
) -> Result<Vec<ClassMatches>, EvalError> {
    let ranks = Ranks::new(gt)?;
    let coco_gt = COCO::from_dataset(ranks.dataset(gt)?);
    let coco_dt = coco_gt.load_res_anns(ranks.detections(predictions)?)?;
    let mut evaluation = COCOeval::new(coco_gt, coco_dt, IouType::Bbox);
    evaluation.evaluate()?;
    let all = evaluation.params.area_ranges[0].range;
    let mut classes = vec![ClassMatches::default(); gt.categories.len()];
    let mut by_rank = vec![0; gt.categories.len()];
    for (index, category) in gt.categories.iter().enumerate() {
        by_rank[ranks.categories[&category.id] as usize - 1] = index;
    }
    let cells = evaluation.eval_imgs().iter().flatten();
    for cell in cells.filter(|cell| cell.area_rng == all) {
        let image = cell.image_id as usize - 1;
        let class = &mut classes[by_rank[cell.category_id as usize - 1]];
        let found = (0..cell.dt_scores.len()).map(|at| {
            let bits = |is: &dyn Fn(usize) -> bool| {
                let set = (0..IOU_THRESHOLDS).filter(|&t| is(t));
                set.fold(0_u16, |bits, t| bits | 1 << t)
            };
            MatchedDetection {
                score: cell.dt_scores[at],
                image,
                matched: bits(&|t| cell.dt_matched[(t, at)]),
                ignored: bits(&|t| cell.dt_ignore[(t, at)]),
            }
        });
        class.detections.extend(found);
        let objects = cell.num_gt_in_denominator() as u32;
        class.ground_truths.push((image, objects));
    }
    Ok(classes)
}
