//! Against PyTorch, finite differences, what can be computed by hand, and the stages that are asked for.

mod by_hand;
mod golden;
mod gradients;
mod refusals;
mod stages;

use kd_plugin::testkit::{Bench, EntryError, Run, TapShape};
use serde_json::{Value, json};

use super::*;

/// Strides are of no account: sizes are told.
const STRIDE: u32 = 8;

fn tap(role: &'static str, name: &str, shape: [usize; 4]) -> TapShape {
    TapShape {
        role,
        name: name.to_owned(),
        shape,
        stride: STRIDE,
    }
}

/// The student's stem and the teacher's image, `[H, W]` each.
fn images(channels: usize, grid: [usize; 2], image: [usize; 2]) -> Vec<TapShape> {
    vec![
        tap("student", "stem.conv", [2, channels, grid[0], grid[1]]),
        tap("teacher", "image", [2, 3, image[0], image[1]]),
    ]
}

/// A classifier of three classes, `channels` of `backbone.c2` in student and teacher.
fn classifier(channels: [usize; 2]) -> Vec<TapShape> {
    let [student, teacher] = channels;
    let mut taps = images(4, [4, 5], [16, 18]);
    taps.extend(TapShape::pair("logits", [2, 3, 1, 1], [2, 3, 1, 1]));
    taps.extend(TapShape::pair(
        "backbone.c2",
        [2, student, 2, 3],
        [2, teacher, 4, 5],
    ));
    taps
}

/// A segmenter of three classes.
fn segmenter() -> Vec<TapShape> {
    let mut taps = images(4, [4, 5], [16, 20]);
    taps.extend(TapShape::pair("logits", [2, 3, 2, 3], [2, 3, 4, 5]));
    taps.extend(TapShape::pair("backbone.c2", [2, 4, 2, 3], [2, 4, 4, 5]));
    taps
}

/// A detector of three classes with two anchors a cell; FCOS has one and a centerness.
fn detector(fcos: bool, necks: [usize; 2]) -> Vec<TapShape> {
    let mut taps = images(4, [4, 6], [16, 24]);
    let anchors = if fcos { 1 } else { 2 };
    for (level, h, w) in [("p3", 3, 4), ("p4", 2, 2)] {
        let pair = |place: &str, channels: [usize; 2]| {
            let [student, teacher] = channels.map(|c| [2, c, h, w]);
            TapShape::pair(&format!("{place}.{level}"), student, teacher)
        };
        taps.extend(pair("head.cls_logits", [3 * anchors; 2]));
        taps.extend(pair("head.box_deltas", [4 * anchors; 2]));
        taps.extend(pair("neck", necks));
        if fcos {
            taps.extend(pair("head.centerness", [1; 2]));
        }
    }
    taps
}

/// Where all images have one size.
fn bench(config: &Value, taps: &[TapShape]) -> Result<Bench, EntryError> {
    let run = Run {
        num_classes: Some(3),
        fixed_sizes: true,
    };
    Bench::new_in::<Pixel>(run, config, taps)
}

/// Sizes of two images, the second one padded, for a detector's or a segmenter's taps above.
fn set_targets(bench: &mut Bench, anchors: usize) {
    bench.set_target_ints("image_sizes", &[2, 2], vec![8, 12, 5, 9]);
    bench.set_target_ints("input_size", &[2], vec![8, 12]);
    let count = 16 * anchors;
    let labels = (0..2 * count).map(|i| (i % 7) as i64 - 2).map(|l| l.min(2));
    if bench.reads_target("assign.labels") {
        bench.set_target_ints("assign.labels", &[2, count as i64], labels.collect());
    }
}

fn names(bench: &Bench) -> Vec<&str> {
    (bench.losses().iter().map(|(name, _)| name.as_str())).collect()
}

fn loss(bench: &mut Bench, name: &str) -> f64 {
    let at = names(bench).iter().position(|known| *known == name);
    let at = at.unwrap_or_else(|| panic!("no `{name}` in {:?}", names(bench)));
    f64::from(bench.forward().unwrap().losses[at])
}
