use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;
use crate::data::{DatasetError, Object, Record, RgbPixels};

/// Same doubles through the same operations; the classes' own means alone are summed in another
/// order (numpy's is pairwise), which moves the last bits of a sum of 1010 numbers in `[0, 1]`.
const TOLERANCE: f64 = 1e-12;

#[derive(Deserialize)]
struct Golden {
    versions: BTreeMap<String, String>,
    cases: BTreeMap<String, Case>,
}

/// `image_id, category_id, x, y, w, h, area, is_crowd`.
type AnnotationRow = (i64, i64, f64, f64, f64, f64, f64, u8);
/// `image_id, category_id, x, y, w, h, score`.
type PredictionRow = (i64, i64, f64, f64, f64, f64, f64);

/// As `make_coco_eval_golden.py` writes it.
#[derive(Deserialize)]
struct Case {
    images: Vec<i64>,
    categories: Vec<i64>,
    annotations: Vec<AnnotationRow>,
    predictions: Vec<PredictionRow>,
    stats: [f64; 12],
    class_ap: Vec<[f64; 2]>,
}

impl Case {
    fn ground_truth(&self) -> GroundTruth {
        GroundTruth {
            images: self
                .images
                .iter()
                .map(|&id| GtImage {
                    id,
                    size: [480, 640],
                })
                .collect(),
            categories: self
                .categories
                .iter()
                .map(|&id| Category {
                    id,
                    name: format!("class {id}"),
                })
                .collect(),
            annotations: self
                .annotations
                .iter()
                .map(
                    |&(image_id, category_id, x, y, w, h, area, crowd)| GtObject {
                        image_id,
                        category_id,
                        bbox_xywh: [x, y, w, h],
                        area,
                        is_crowd: crowd == 1,
                    },
                )
                .collect(),
        }
    }

    fn predictions(&self) -> Vec<Prediction> {
        self.predictions
            .iter()
            .map(|&(image_id, category_id, x, y, w, h, score)| Prediction {
                image_id,
                category_id,
                bbox_xywh: [x, y, w, h],
                score,
            })
            .collect()
    }
}

fn golden() -> Golden {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/golden/eval/coco_eval.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn equals_pycocotools_on_every_case() {
    let golden = golden();
    assert_eq!(golden.versions["pycocotools"], "2.0.11");
    assert!(golden.cases.len() >= 70, "{} cases", golden.cases.len());
    let mut differing = Vec::new();
    for (name, case) in &golden.cases {
        let metrics = evaluate(&case.ground_truth(), &case.predictions()).unwrap();
        for ((metric, ours), &theirs) in metrics.named().into_iter().zip(&case.stats) {
            if (ours - theirs).abs() > TOLERANCE {
                differing.push(format!("{name}: {metric} {ours} instead of {theirs}"));
            }
        }
        assert_eq!(metrics.per_class.len(), case.categories.len());
        for (class, &[ap, ap50]) in metrics.per_class.iter().zip(&case.class_ap) {
            if (class.ap - ap).abs() > TOLERANCE || (class.ap50 - ap50).abs() > TOLERANCE {
                differing.push(format!("{name}: {class:?} instead of {ap}, {ap50}"));
            }
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn the_result_does_not_depend_on_threads() {
    let case = &golden().cases["many_classes"];
    let (gt, predictions) = (case.ground_truth(), case.predictions());
    let with_threads = |count| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .build()
            .unwrap();
        pool.install(|| evaluate(&gt, &predictions).unwrap())
    };
    assert_eq!(with_threads(1), with_threads(4));
}

/// One object on image 3, one class.
fn one_object() -> GroundTruth {
    GroundTruth {
        images: vec![
            GtImage {
                id: 3,
                size: [48, 64],
            },
            GtImage {
                id: 1,
                size: [30, 40],
            },
        ],
        categories: vec![Category {
            id: 5,
            name: "cell".to_owned(),
        }],
        annotations: vec![GtObject {
            image_id: 3,
            category_id: 5,
            bbox_xywh: [10.0, 10.0, 20.0, 20.0],
            area: 400.0,
            is_crowd: false,
        }],
    }
}

fn hit() -> Prediction {
    Prediction {
        image_id: 3,
        category_id: 5,
        bbox_xywh: [10.0, 10.0, 20.0, 20.0],
        score: 0.5,
    }
}

#[test]
fn ids_may_be_negative() {
    let mut gt = one_object();
    let mut prediction = hit();
    gt.images[0].id = -3;
    gt.categories[0].id = -5;
    gt.annotations[0].image_id = -3;
    gt.annotations[0].category_id = -5;
    prediction.image_id = -3;
    prediction.category_id = -5;
    let metrics = evaluate(&gt, &[prediction]).unwrap();
    assert_eq!(metrics.named().map(|(_, value)| value), {
        let plain = evaluate(&one_object(), &[hit()]).unwrap();
        plain.named().map(|(_, value)| value)
    });
    // A lone hit: 1 / (1 + eps) at every recall.
    assert!((metrics.ap - 1.0).abs() < TOLERANCE);
}

#[test]
fn unknown_and_repeated_ids_are_refused() {
    let stray = Prediction {
        image_id: 2,
        ..hit()
    };
    let error = evaluate(&one_object(), &[hit(), stray]).unwrap_err();
    assert!(matches!(
        error,
        EvalError::UnknownId {
            entry: "prediction",
            index: 1,
            what: "image",
            id: 2
        }
    ));
    assert_eq!(
        error.to_string(),
        "prediction 1 names image 2, which the ground truth does not list; evaluate on the split \
         that the entries were made for"
    );
    let stray = Prediction {
        category_id: 6,
        ..hit()
    };
    let error = evaluate(&one_object(), &[stray]).unwrap_err();
    assert!(matches!(
        error,
        EvalError::UnknownId {
            what: "category",
            id: 6,
            ..
        }
    ));

    let mut gt = one_object();
    gt.annotations[0].category_id = 7;
    let error = evaluate(&gt, &[]).unwrap_err();
    assert!(matches!(
        error,
        EvalError::UnknownId {
            entry: "annotation",
            index: 0,
            ..
        }
    ));

    let mut gt = one_object();
    gt.images[1].id = 3;
    let error = evaluate(&gt, &[]).unwrap_err();
    assert!(matches!(
        error,
        EvalError::DuplicateId {
            what: "image",
            id: 3
        }
    ));

    let mut gt = one_object();
    gt.categories.push(gt.categories[0].clone());
    let error = evaluate(&gt, &[]).unwrap_err();
    assert!(matches!(
        error,
        EvalError::DuplicateId {
            what: "category",
            id: 5
        }
    ));
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let error = evaluate(
        &one_object(),
        &[Prediction {
            score: f64::NAN,
            ..hit()
        }],
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "prediction 0 on image 3 has a score that is NaN or infinite"
    );
    let mut prediction = hit();
    prediction.bbox_xywh[2] = f64::INFINITY;
    let error = evaluate(&one_object(), &[prediction]).unwrap_err();
    assert!(matches!(error, EvalError::NotFinite { what: "box", .. }));
    for what in ["box", "area"] {
        let mut gt = one_object();
        match what {
            "box" => gt.annotations[0].bbox_xywh[0] = f64::NAN,
            _ => gt.annotations[0].area = f64::NAN,
        }
        let error = evaluate(&gt, &[]).unwrap_err();
        assert!(
            matches!(error, EvalError::NotFinite { entry: "annotation", what: got, .. } if got == what)
        );
    }
}

#[test]
fn the_protocol_states_every_setting() {
    let metrics = evaluate(&one_object(), &[hit()]).unwrap();
    assert_eq!(
        metrics.protocol,
        "COCO box, hotcoco 1.3.1 (as pycocotools); IoU 0.50..0.95 (10); recall 0.00..1.00 (101); \
         maxDets [1, 10, 100] per image and class; area all [0, 10000000000], small [0, 1024], \
         medium [1024, 9216], large [9216, 10000000000] px2, of ground truth as annotated, of \
         detections w*h"
    );
}

#[test]
fn the_image_list_hash_ignores_order_and_sees_every_image() {
    let gt = one_object();
    // printf '1 30 40\n3 48 64\n' | sha256sum
    assert_eq!(
        gt.image_list_hash(),
        "06918c3184881f303b5d3a3445c0f53d4b13b93bda7dd4ada7bfeafc2991041c"
    );
    let mut reversed = gt.clone();
    reversed.images.reverse();
    assert_eq!(gt.image_list_hash(), reversed.image_list_hash());
    reversed.images.pop();
    assert_ne!(gt.image_list_hash(), reversed.image_list_hash());
}

#[test]
fn prints_percentages_and_a_dash_where_there_is_no_number() {
    let metrics = evaluate(&one_object(), &[hit()]).unwrap();
    let text = metrics.to_string();
    assert_eq!(
        text.lines().next().unwrap(),
        "AP      IoU=0.50:0.95  area=all     maxDets=100  100.0"
    );
    assert_eq!(
        text.lines().nth(4).unwrap(),
        "AP_M    IoU=0.50:0.95  area=medium  maxDets=100      -"
    );
    assert!(
        text.ends_with("\nclass     AP   AP50\ncell   100.0  100.0"),
        "{text}"
    );
}

#[test]
fn metrics_survive_a_json_file() {
    let metrics = evaluate(&one_object(), &[hit()]).unwrap();
    let text = serde_json::to_string(&metrics).unwrap();
    assert_eq!(serde_json::from_str::<CocoMetrics>(&text).unwrap(), metrics);
}

struct TwoImages {
    classes: Vec<String>,
    records: Vec<Record>,
}

impl Dataset for TwoImages {
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn records(&self) -> &[Record] {
        &self.records
    }
    fn pixels(&self, _index: usize) -> Result<RgbPixels, DatasetError> {
        unreachable!("ground truth needs no pixels")
    }
}

#[test]
fn ground_truth_of_a_data_set_keeps_crowds_and_areas() {
    let object = |label, is_crowd| Object {
        box_xyxy: [1.0, 2.0, 11.0, 22.0],
        label,
        is_crowd,
        area: 150.0,
        mask: None,
    };
    let record = |image_id, objects| Record {
        image_id,
        source: format!("{image_id}"),
        size: [30, 40],
        objects,
    };
    let dataset = TwoImages {
        classes: vec!["a".to_owned(), "b".to_owned()],
        records: vec![
            record(8, vec![object(1, false), object(0, true)]),
            record(4, vec![]),
        ],
    };
    let all = GroundTruth::from_dataset(&dataset, 0);
    assert_eq!(all.category_ids(), [1, 2]);
    assert_eq!(all.images.len(), 2);
    assert_eq!(
        all.images[0],
        GtImage {
            id: 8,
            size: [30, 40]
        }
    );
    assert_eq!(
        all.annotations[0],
        GtObject {
            image_id: 8,
            category_id: 2,
            bbox_xywh: [1.0, 2.0, 10.0, 20.0],
            area: 150.0,
            is_crowd: false
        }
    );
    assert!(all.annotations[1].is_crowd);
    assert_eq!(GroundTruth::from_dataset(&dataset, 1).images.len(), 1);
    assert_eq!(GroundTruth::from_dataset(&dataset, 9), all);
}
