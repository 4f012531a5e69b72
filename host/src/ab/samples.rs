//! Pictures of the images on which an arm and the control disagree most.

use std::io::Cursor;

use base64::Engine as _;
use image::codecs::jpeg::JpegEncoder;
use kdhost_ab::report::Sample;

use super::AbError;
use super::collect::{Collected, Evaluated};
use super::plan::Plan;
use crate::data::{Dataset, RgbPixels, resize};
use crate::eval::ByImage;
use crate::eval::coco::Prediction;
use crate::visualize::draw::draw_detections;

/// Pictures of an arm.
const OF_AN_ARM: usize = 3;
/// Quality of the pictures in per cent: one that opens fast.
const QUALITY: u8 = 80;
/// Longer sides are drawn smaller.
const LONGEST: usize = 640;

/// The images on which each arm and the control disagree most, in the first seed that both have a
/// result of: of detectors by how many of an image's n objects are among the n best detections, of
/// classifiers by whether the class is right. Segmenters leave no label maps to draw.
///
/// # Errors
/// If an image cannot be read.
pub(super) fn samples(plan: &Plan, collected: &Collected) -> Result<Vec<Sample>, AbError> {
    let mut samples = Vec::new();
    for (arm, runs) in collected.runs.iter().enumerate().skip(1) {
        let both = collected.runs[0].iter().zip(runs).enumerate();
        let pair = both
            .filter_map(|(seed, (control, arm))| {
                Some((seed, control.evaluation.as_ref()?, arm.evaluation.as_ref()?))
            })
            .next();
        let Some((seed, control, own)) = pair else {
            continue;
        };
        let scored = disagreements(collected.dataset.as_ref(), control, own);
        for image in scored.into_iter().take(OF_AN_ARM) {
            let dataset = collected.dataset.as_ref();
            let record = &dataset.records()[image.index];
            let pixels = dataset.pixels(image.index)?;
            let source = std::path::Path::new(&record.source).file_name();
            samples.push(Sample {
                arm: plan.spec.arms[arm].name.clone(),
                seed: plan.spec.seeds[seed],
                image_id: record.image_id,
                source: source.unwrap_or_default().to_string_lossy().into_owned(),
                caption: image.caption,
                control_image: picture(dataset, &pixels, image.index, &control.by_image)?,
                arm_image: picture(dataset, &pixels, image.index, &own.by_image)?,
            });
        }
    }
    Ok(samples)
}

/// An image and how far two runs disagree on it.
struct Disagreement {
    index: usize,
    size: usize,
    caption: String,
}

/// Images with some disagreement, the largest first.
fn disagreements(dataset: &dyn Dataset, control: &Evaluated, arm: &Evaluated) -> Vec<Disagreement> {
    let mut found = match (&control.by_image, &arm.by_image) {
        (ByImage::Detection(_), ByImage::Detection(_)) => of_detections(dataset, control, arm),
        (ByImage::Classification(control), ByImage::Classification(arm)) => {
            let classes = dataset.classes();
            let images = control.iter().zip(arm).enumerate();
            let differ = images.filter(|(_, (c, a))| (c.rank == 0) != (a.rank == 0));
            differ
                .map(|(index, (c, a))| Disagreement {
                    index,
                    size: c.rank.abs_diff(a.rank),
                    caption: format!(
                        "{}: control says {}, arm {}",
                        classes[c.label], classes[c.predicted], classes[a.predicted]
                    ),
                })
                .collect()
        }
        _ => Vec::new(),
    };
    // Stable: of equal ones the earlier image.
    found.sort_by_key(|image| std::cmp::Reverse(image.size));
    found
}

fn of_detections(dataset: &dyn Dataset, control: &Evaluated, arm: &Evaluated) -> Vec<Disagreement> {
    // `eval.max_images` may leave some out; matches number the others by ascending id.
    let records = &dataset.records()[..control.resampled.num_images()];
    let mut by_id: Vec<usize> = (0..records.len()).collect();
    by_id.sort_by_key(|&index| records[index].image_id);
    let hits = [control, arm].map(|run| best_hits(run, by_id.len()));
    let objects = objects(control, by_id.len());
    let mut found = Vec::new();
    for (rank, &index) in by_id.iter().enumerate() {
        let (c, a, n) = (hits[0][rank], hits[1][rank], objects[rank]);
        if c != a {
            found.push(Disagreement {
                index,
                size: c.abs_diff(a),
                caption: format!(
                    "of {n} objects, the {n} best detections find {c} (control) and {a} (arm) at IoU 0.5"
                ),
            });
        }
    }
    found.sort_by_key(|image| image.index);
    found
}

/// Objects of each image.
fn objects(run: &Evaluated, images: usize) -> Vec<usize> {
    let mut objects = vec![0; images];
    for class in &run.matches {
        for &(image, count) in &class.ground_truths {
            objects[image] += count as usize;
        }
    }
    objects
}

/// Of the n best detections of each image, n being its objects: those that find one at IoU 0.5.
fn best_hits(run: &Evaluated, images: usize) -> Vec<usize> {
    let objects = objects(run, images);
    let mut of_image: Vec<Vec<(f64, bool)>> = vec![Vec::new(); images];
    for class in &run.matches {
        for detection in &class.detections {
            if detection.ignored & 1 == 0 {
                of_image[detection.image].push((detection.score, detection.matched & 1 == 1));
            }
        }
    }
    let hits = of_image.into_iter().zip(objects).map(|(mut found, n)| {
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        found.iter().take(n).filter(|(_, hit)| *hit).count()
    });
    hits.collect()
}

/// The image as a `data:` address; with a detector's n best detections, n being its objects.
fn picture(
    dataset: &dyn Dataset,
    pixels: &RgbPixels,
    index: usize,
    by_image: &ByImage,
) -> Result<String, AbError> {
    let drawn = match by_image {
        ByImage::Detection(predictions) => with_best(dataset, pixels, index, predictions),
        _ => pixels.clone(),
    };
    let longest = drawn.size[0].max(drawn.size[1]);
    let shown = match longest > LONGEST {
        false => drawn,
        true => {
            let size = drawn.size.map(|side| (side * LONGEST / longest).max(1));
            resize(&drawn, size)
        }
    };
    let mut bytes = Cursor::new(Vec::new());
    let [height, width] = shown.size.map(|side| side as u32);
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(&shown.data, width, height, image::ExtendedColorType::Rgb8)
        .map_err(|error| AbError::file(&dataset.records()[index].source, error))?;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes.into_inner());
    Ok(format!("data:image/jpeg;base64,{text}"))
}

fn with_best(
    dataset: &dyn Dataset,
    pixels: &RgbPixels,
    index: usize,
    predictions: &[Prediction],
) -> RgbPixels {
    let record = &dataset.records()[index];
    let own = predictions.iter().filter(|p| p.image_id == record.image_id);
    let mut best: Vec<&Prediction> = own.collect();
    best.sort_by(|a, b| b.score.total_cmp(&a.score));
    best.truncate(
        record
            .objects
            .iter()
            .filter(|object| !object.is_crowd)
            .count(),
    );
    let boxes: Vec<[f32; 4]> = best
        .iter()
        .map(|p| {
            let [x, y, width, height] = p.bbox_xywh;
            [x, y, x + width, y + height].map(|v| v as f32)
        })
        .collect();
    let labels: Vec<usize> = best.iter().map(|p| (p.category_id - 1) as usize).collect();
    let scores: Vec<f32> = best.iter().map(|p| p.score as f32).collect();
    draw_detections(pixels, &boxes, &labels, Some(&scores), dataset.classes())
}
