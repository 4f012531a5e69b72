//! Against PyTorch, finite differences, and what can be seen by eye.

mod by_hand;
mod golden;
mod gradients;
mod refusals;

use kd_plugin::testkit::{Bench, TapShape, gradcheck};
use serde_json::{Value, json};

use super::*;

const LOGITS: &str = "head.cls_logits.p3";
const FEATURES: &str = "head.cls_feat.p3";

/// What one network says at the locations of one image, a location a column of one row of cells.
#[derive(Clone)]
struct Net {
    logits: Vec<Vec<f32>>,
    features: Vec<Vec<f32>>,
}

impl Net {
    fn new(logits: &[&[f32]], features: &[&[f32]]) -> Self {
        let owned = |rows: &[&[f32]]| rows.iter().map(|row| row.to_vec()).collect();
        Net {
            logits: owned(logits),
            features: owned(features),
        }
    }
}

/// One level of one image with these labels, one anchor a cell.
fn bench(config: &Value, labels: &[i64], student: &Net, teacher: &Net) -> Bench {
    let locations = labels.len();
    let shape = |rows: &[Vec<f32>]| [1, rows[0].len(), 1, locations];
    let taps = [
        TapShape::pair(LOGITS, shape(&student.logits), shape(&teacher.logits)),
        TapShape::pair(FEATURES, shape(&student.features), shape(&teacher.features)),
    ]
    .concat();
    let classes = student.logits[0].len() as u32;
    let mut bench = Bench::for_classes::<FgBg>(classes, config, &taps).unwrap();
    let columns = [
        &student.logits,
        &teacher.logits,
        &student.features,
        &teacher.features,
    ];
    for (slot, rows) in columns.into_iter().enumerate() {
        if !bench.uses_tap(slot) {
            continue;
        }
        for (location, row) in rows.iter().enumerate() {
            for (channel, value) in row.iter().enumerate() {
                bench.tap_mut(slot)[channel * locations + location] = *value;
            }
        }
    }
    let shape = [1, locations as i64];
    bench.set_target_ints("assign.labels", &shape, labels.to_vec());
    bench
}

/// Runs it; losses, and metrics by name.
fn run(bench: &mut Bench) -> (Vec<f32>, impl Fn(&str) -> f64 + use<>) {
    let logged = bench.log().metrics.len();
    let losses = bench.forward().unwrap().losses.clone();
    let metrics = bench.log().metrics[logged..].to_vec();
    let metric = move |name: &str| {
        let found = metrics.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no metric `{name}`")).1
    };
    (losses, metric)
}

fn near(got: impl Into<f64>, expected: f64) -> bool {
    (got.into() - expected).abs() < 1e-6 * (1.0 + expected.abs())
}
