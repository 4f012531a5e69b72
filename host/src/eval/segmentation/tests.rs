use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

/// Made by `tests/golden/eval/make_segmentation_golden.py`.
const GOLDEN: &str = include_str!("../../../../tests/golden/eval/segmentation.json");

/// Quotients of the same whole numbers; sums of a few of them in another order.
const TOLERANCE: f64 = 1e-14;
/// torchmetrics divides in single precision.
const SINGLE: f64 = 1e-6;

#[derive(Deserialize)]
struct Golden {
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    classes: usize,
    /// Height, width, predicted, true.
    pairs: Vec<(usize, usize, Vec<u8>, Vec<u8>)>,
    iou: Vec<Option<f64>>,
    acc: Vec<Option<f64>>,
    miou: f64,
    macc: f64,
    aacc: f64,
    fwiou: f64,
    torchmetrics: Torchmetrics,
}

#[derive(Deserialize)]
struct Torchmetrics {
    /// By true class, then by predicted class.
    matrix: Vec<Vec<u64>>,
    aacc: f64,
    iou: Vec<f64>,
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|class| format!("class {class}")).collect()
}

fn of(case: &Case) -> ConfusionMatrix {
    let mut matrix = ConfusionMatrix::new(case.classes);
    for (height, width, predicted, truth) in &case.pairs {
        let map = |data: &Vec<u8>| LabelMap {
            size: [*height, *width],
            data: data.clone(),
        };
        matrix.add(&map(predicted), &map(truth));
    }
    matrix
}

fn close(out: f64, reference: f64, tolerance: f64, name: &str) {
    let error = (out - reference).abs();
    assert!(error <= tolerance, "{name}: {out} {reference}");
}

#[test]
fn numbers_equal_those_of_mmsegmentation_and_torchmetrics() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    assert!(golden.cases.len() >= 8);
    for (name, case) in &golden.cases {
        let matrix = of(case);
        assert_eq!(matrix.counts, case.torchmetrics.matrix.concat(), "{name}");
        let metrics = matrix.metrics(&names(case.classes), String::new());
        for (class, (iou, acc)) in metrics.per_class.iter().zip(case.iou.iter().zip(&case.acc)) {
            for (out, reference) in [(class.iou, iou), (class.acc, acc)] {
                assert_eq!(out.is_some(), reference.is_some(), "{name}: {}", class.name);
                let pair = out.zip(*reference);
                let (out, reference) = pair.unwrap_or_default();
                close(
                    out,
                    reference,
                    TOLERANCE,
                    &format!("{name}: {}", class.name),
                );
            }
        }
        for (out, reference) in [
            (metrics.miou, case.miou),
            (metrics.macc, case.macc),
            (metrics.aacc, case.aacc),
            (metrics.fwiou, case.fwiou),
        ] {
            close(out, reference, TOLERANCE, name);
        }
        close(metrics.aacc, case.torchmetrics.aacc, SINGLE, name);
        // torchmetrics writes 0 for a class that is nowhere.
        for (class, reference) in metrics.per_class.iter().zip(&case.torchmetrics.iou) {
            close(class.iou.unwrap_or(0.0), *reference, SINGLE, name);
        }
    }
}

#[test]
fn the_golden_cases_have_the_edges() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    let cases = || golden.cases.values();
    let ignored = |case: &Case| case.pairs.iter().any(|pair| pair.3.contains(&255));
    assert!(cases().any(ignored), "pixels without a class");
    let any = |keep: fn(&Option<f64>, &Option<f64>) -> bool| {
        let classes = cases().flat_map(|case| case.iou.iter().zip(&case.acc));
        classes.into_iter().any(|(iou, acc)| keep(iou, acc))
    };
    assert!(any(|iou, _| iou.is_none()), "a class that is nowhere");
    assert!(
        any(|iou, acc| *iou == Some(0.0) && acc.is_none()),
        "predicted, never annotated"
    );
}

#[test]
fn without_a_labelled_pixel_nothing_is_defined() {
    let mut matrix = ConfusionMatrix::new(2);
    let map = |data: Vec<u8>| LabelMap { size: [1, 2], data };
    matrix.add(&map(vec![0, 1]), &map(vec![255, 255]));
    let metrics = matrix.metrics(&names(2), String::new());
    assert_eq!(metrics.pixels, 0);
    assert_eq!(metrics.named(), {
        let undefined = [
            "mIoU",
            "mAcc",
            "aAcc",
            "fwIoU",
            "IoU/class 0",
            "IoU/class 1",
        ];
        undefined.map(|name| (name.to_owned(), -1.0))
    });
    let text = serde_json::to_string(&metrics).unwrap();
    let back: SegmentationMetrics = serde_json::from_str(&text).unwrap();
    assert_eq!(back, metrics);
}

#[test]
fn the_table_has_a_line_a_class() {
    let mut matrix = ConfusionMatrix::new(3);
    let map = |data: Vec<u8>| LabelMap { size: [2, 2], data };
    matrix.add(&map(vec![0, 0, 1, 1]), &map(vec![0, 1, 1, 255]));
    let expected = "\
mIoU    mean over classes              50.0
mAcc    mean over annotated classes    75.0
aAcc    all labelled pixels            66.7
fwIoU   classes by annotated pixels    50.0

class      IoU    Acc
class 0   50.0  100.0
class 1   50.0   50.0
class 2      -      -";
    assert_eq!(
        matrix.metrics(&names(3), String::new()).to_string(),
        expected
    );
}

#[test]
#[should_panic(expected = "maps of one image")]
fn maps_of_two_sizes_are_a_bug() {
    let map = |size: [usize; 2]| LabelMap {
        size,
        data: vec![0; size[0] * size[1]],
    };
    ConfusionMatrix::new(1).add(&map([1, 2]), &map([2, 1]));
}

#[test]
#[should_panic(expected = "3 predicted for 0, of 3 classes")]
fn a_prediction_that_is_no_class_is_a_bug() {
    let map = |label: u8| LabelMap {
        size: [1, 1],
        data: vec![label],
    };
    ConfusionMatrix::new(3).add(&map(3), &map(0));
}
