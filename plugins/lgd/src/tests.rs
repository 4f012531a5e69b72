//! Against a PyTorch transcription, finite differences, and the identities of the method.

mod golden;
mod gradients;
mod invariants;

use kd_plugin::testkit::{Bench, Random, TapShape};
use serde_json::{Value, json};

use super::*;

/// Objects of a batch: image, label, box.
type Gt = (i64, i64, [f32; 4]);

/// Two objects in the first of two 64x64 images, one in the second.
const OBJECTS: [Gt; 3] = [
    (0, 1, [8.0, 8.0, 30.0, 40.0]),
    (0, 2, [20.0, 20.0, 60.0, 50.0]),
    (1, 0, [2.0, 30.0, 33.0, 60.0]),
];

/// Taps `neck.p3…` of `images` inputs of `[height, width]`.
fn taps(images: usize, channels: usize, input: [usize; 2], levels: usize) -> Vec<TapShape> {
    (0..levels)
        .map(|level| {
            let stride = 8 << level;
            let [h, w] = input.map(|extent: usize| extent.div_ceil(stride));
            TapShape {
                role: "student",
                name: format!("neck.p{}", 3 + level),
                shape: [images, channels, h, w],
                stride: stride as u32,
            }
        })
        .collect()
}

/// Sets the targets of a batch.
fn set_targets(bench: &mut Bench, input: [usize; 2], objects: &[Gt]) {
    let t = objects.len() as i64;
    bench.clear_targets();
    let boxes = objects.iter().flat_map(|o| o.2).collect();
    bench.push_target("gt_boxes_xyxy", &[t, 4], boxes);
    bench.push_target_ints(&[t], objects.iter().map(|o| o.1).collect());
    bench.push_target_ints(&[t], objects.iter().map(|o| o.0).collect());
    bench.push_target_ints(&[2], input.map(|extent| extent as i64).to_vec());
    bench.push_target("gt_mask_crops", &[0, 7, 7], Vec::new());
}

/// A small method on two levels of two 64x64 images, with objects.
fn small(config: &Value) -> Bench {
    let mut config = config.clone();
    config["nr_transformer_heads"] = json!(2);
    let mut bench = Bench::for_classes::<Lgd>(3, &config, &taps(2, 4, [64, 64], 2)).unwrap();
    bench.fill(5);
    set_targets(&mut bench, [64, 64], &OBJECTS);
    bench
}
