//! Against PyTorch, the formula by tiles, finite differences, and the identities of the method.

mod accuracy;
mod by_hand;
mod golden;
mod gradients;
mod phase;
mod refusals;

use kd_plugin::testkit::{Bench, TapShape};
use serde_json::{Value, json};

use super::*;
use crate::options::{NormScope, Reduction};

/// Index of the joint phase.
const JOINT: u32 = 1;

/// `feat.last` of both, `[N, C, H, W]` and stride each.
fn feat(student: ([usize; 4], u32), teacher: ([usize; 4], u32)) -> Vec<TapShape> {
    let tap = |role, (shape, stride)| TapShape {
        role,
        name: "feat.last".to_owned(),
        shape,
        stride,
    };
    vec![tap("student", student), tap("teacher", teacher)]
}

/// `neck.p3`, … of both, `channels` of student and teacher.
fn neck(levels: std::ops::RangeInclusive<u32>, channels: [usize; 2]) -> Vec<TapShape> {
    let [student, teacher] = channels;
    let level = |level: u32| {
        let (h, w) = (16 >> (level - 3), (20 >> (level - 3)) + 1);
        let name = format!("neck.p{level}");
        let pair = TapShape::pair(&name, [2, student, h, w], [2, teacher, h, w]);
        pair.map(|tap| TapShape {
            stride: 1 << level,
            ..tap
        })
    };
    levels.flat_map(level).collect()
}

/// In the joint phase where there is one.
fn joint(config: &Value, taps: &[TapShape]) -> Bench {
    let mut bench = Bench::new::<Affinity>(config, taps).unwrap();
    if bench.schedule().is_some() {
        bench.set_phase(JOINT);
    }
    bench
}

/// The plan's losses and their values.
fn losses(bench: &mut Bench) -> Vec<(String, f64)> {
    let out = bench.forward().unwrap();
    let names = bench.losses().iter().map(|(name, _)| name.clone());
    names
        .zip(out.losses.iter().map(|&v| f64::from(v)))
        .collect()
}

fn loss(bench: &mut Bench, name: &str) -> f64 {
    let losses = losses(bench);
    let found = losses.iter().find(|(known, _)| known == name);
    found
        .unwrap_or_else(|| panic!("no `{name}` in {losses:?}"))
        .1
}
