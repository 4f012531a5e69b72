use serde::Deserialize;

use super::*;
use crate::bootstrap::Resamples;
use crate::golden::read;
use kdhost_rng::KeyedRng;

const FILE: &str = "resampled.json";

/// Points. Every precision and share is the same number; only sums of up to 3030 of them are taken
/// in another order.
const ROUNDING: f64 = 1e-11;

#[track_caller]
fn assert_points(ours: Option<f64>, fraction: Option<f64>) {
    match (ours, fraction) {
        (None, None) => {}
        (Some(ours), Some(theirs)) if (ours - 100.0 * theirs).abs() <= ROUNDING => {}
        _ => panic!("{ours:?} is not 100 × {fraction:?}"),
    }
}

#[derive(Deserialize)]
struct DetectionCase {
    name: String,
    num_images: usize,
    matches: Vec<ClassCase>,
    draws: Vec<DetectionDraw>,
}

#[derive(Deserialize)]
struct ClassCase {
    detections: Vec<(f64, usize, u16, u16)>,
    ground_truths: Vec<(usize, u32)>,
}

#[derive(Deserialize)]
struct DetectionDraw {
    counts: Vec<u32>,
    ap: f64,
    ap_by_class: Vec<f64>,
    precision: Vec<(usize, Vec<Option<Vec<f64>>>)>,
}

impl DetectionCase {
    fn matches(&self) -> DetectionMatches {
        let class = |class: &ClassCase| ClassMatches {
            detections: class
                .detections
                .iter()
                .map(|&(score, image, matched, ignored)| MatchedDetection {
                    score,
                    image,
                    matched,
                    ignored,
                })
                .collect(),
            ground_truths: class.ground_truths.clone(),
        };
        let classes = self.matches.iter().map(class).collect();
        DetectionMatches::new(self.num_images, classes)
    }
}

#[test]
fn ap_under_counts_is_pycocotools_on_repeated_images() {
    let defined = |ap: f64| (ap >= 0.0).then_some(ap);
    for case in read::<Vec<DetectionCase>>(FILE, "detection") {
        let ours = case.matches();
        assert_eq!(ours.num_images(), case.num_images);
        for draw in &case.draws {
            println!("{} {:?}", case.name, draw.counts);
            assert_points(ours.ap(&draw.counts), defined(draw.ap));
            let by_class = ours.ap_by_class(&draw.counts);
            assert_eq!(by_class.len(), draw.ap_by_class.len());
            for (ours, &theirs) in by_class.into_iter().zip(&draw.ap_by_class) {
                assert_points(ours, defined(theirs));
            }
            for (iou_index, curves) in &draw.precision {
                let ours = ours.precision_at(&draw.counts, *iou_index);
                assert_eq!(ours.len(), curves.len());
                for (ours, theirs) in ours.iter().zip(curves) {
                    // Each is the same division: equal to the bit.
                    let theirs = theirs.as_ref();
                    let theirs = theirs.map(|curve| curve.iter().map(|p| 100.0 * p).collect());
                    assert_eq!(ours.map(Vec::from), theirs);
                }
            }
        }
    }
}

/// A step of weight w where copies interleave is a different number: the groups are needed.
#[test]
fn ties_within_an_image_interleave() {
    let detection = |image, matched| MatchedDetection {
        score: 0.5,
        image,
        matched,
        ignored: 0,
    };
    let all = (1 << IOU_THRESHOLDS) - 1;
    let mut class = ClassMatches {
        detections: vec![detection(0, all), detection(0, 0)],
        ground_truths: vec![(0, 1)],
    };
    // True false true false: precision 1, then 2/3. True true false false: 1 throughout.
    let tied = DetectionMatches::new(1, vec![class.clone()]);
    assert_points(tied.ap(&[2]), Some((51.0 + 50.0 * (2.0 / 3.0)) / 101.0));
    class.detections[0].score = 0.6;
    let apart = DetectionMatches::new(1, vec![class]);
    assert_points(apart.ap(&[2]), Some(1.0));
}

/// Any scene of `images`, half of its scores tied.
fn random_matches(rng: &mut KeyedRng, images: usize, an_image: usize) -> DetectionMatches {
    let classes = (0..3)
        .map(|_| {
            let mut class = ClassMatches::default();
            for image in 0..images {
                let objects = rng.below(4) as u32;
                class.ground_truths.push((image, objects));
                let mut detections: Vec<MatchedDetection> = (0..rng.below(an_image + 1))
                    .map(|_| {
                        let score = if rng.below(2) == 0 {
                            rng.below(4) as f64 / 4.0
                        } else {
                            rng.uniform()
                        };
                        MatchedDetection {
                            score,
                            image,
                            matched: 0,
                            ignored: 0,
                        }
                    })
                    .collect();
                detections.sort_by(|a, b| b.score.total_cmp(&a.score));
                for t in 0..IOU_THRESHOLDS {
                    let mut left = objects;
                    for d in &mut detections {
                        let hit = left > 0 && rng.below(12) > t;
                        left -= u32::from(hit);
                        d.matched |= u16::from(hit) << t;
                        d.ignored |= u16::from(!hit && rng.below(8) == 0) << t;
                    }
                }
                class.detections.extend(detections);
            }
            class
        })
        .collect();
    DetectionMatches::new(images, classes)
}

#[test]
fn copies_of_a_whole_data_set_without_ties_change_nothing() {
    let case = read::<Vec<DetectionCase>>(FILE, "detection").remove(0);
    let ours = case.matches();
    let [once, thrice] = [1, 3].map(|n| ours.ap(&vec![n; case.num_images]).unwrap());
    // But for ε in the precision of a first detection.
    assert!((once - thrice).abs() < ROUNDING, "{once} {thrice}");
}

#[test]
fn a_draw_depends_on_drawn_images_alone() {
    let mut rng = KeyedRng::new("drawn alone", &[]);
    for _ in 0..20 {
        let ours = random_matches(&mut rng, 6, 5);
        let counts = Resamples::new(6, 1, rng.next_u64()).counts(0);
        let ap = ours.ap(&counts);
        assert!(ap.is_none_or(|ap| (0.0..=100.0).contains(&ap)), "{ap:?}");
        let by_class = ours.ap_by_class(&counts);
        let defined: Vec<f64> = by_class.into_iter().flatten().collect();
        let mean = defined.iter().sum::<f64>() / defined.len() as f64;
        assert_points(ap, (!defined.is_empty()).then_some(mean / 100.0));
        assert_eq!(ours.ap(&[0; 6]), None);
    }
}

#[derive(Deserialize)]
struct SegmentationCase {
    num_classes: usize,
    cells: Vec<Vec<(usize, usize, u64)>>,
    draws: Vec<SegmentationDraw>,
}

#[derive(Deserialize)]
struct SegmentationDraw {
    counts: Vec<u32>,
    iou: Vec<Option<f64>>,
    miou: Option<f64>,
}

#[test]
fn miou_under_counts_is_that_of_the_summed_matrix() {
    let case: SegmentationCase = read(FILE, "segmentation");
    let cell = |&(truth, predicted, pixels): &(usize, usize, u64)| ConfusionCell {
        truth,
        predicted,
        pixels,
    };
    let images: Vec<Vec<_>> = case
        .cells
        .iter()
        .map(|image| image.iter().map(cell).collect())
        .collect();
    let ours = ConfusionByImage::new(case.num_classes, &images);
    for draw in case.draws {
        assert_points(ours.miou(&draw.counts), draw.miou);
        let by_class = ours.iou_by_class(&draw.counts);
        assert_eq!(by_class.len(), draw.iou.len());
        for (ours, theirs) in by_class.into_iter().zip(draw.iou) {
            assert_points(ours, theirs);
        }
    }
}

#[derive(Deserialize)]
struct ClassificationCase {
    hits: Vec<bool>,
    draws: Vec<ClassificationDraw>,
}

#[derive(Deserialize)]
struct ClassificationDraw {
    counts: Vec<u32>,
    top1: f64,
}

#[test]
fn top1_under_counts_is_that_of_repeated_images() {
    let case: ClassificationCase = read(FILE, "classification");
    let ours = ImageHits::new(case.hits);
    for draw in case.draws {
        assert_points(ours.top1(&draw.counts), Some(draw.top1));
    }
    assert_eq!(ours.top1(&vec![0; ours.num_images()]), None);
}
