//! Finite differences of every tap and parameter. PyTorch's gradients stand for the kinks of L1.

use kd_plugin::testkit::gradcheck;

use super::*;

/// Taken from the teacher's image: all that is painted is above it, and L1 has no kink there.
const BELOW: f32 = 8.0;
/// Slot of the teacher's image.
const IMAGE: usize = 1;

fn check(config: &Value, taps: &[TapShape], stage: u32, anchors: usize) {
    let mut bench = bench(config, taps).unwrap();
    bench.fill(11);
    for value in bench.tap_mut(IMAGE) {
        *value -= BELOW;
    }
    bench.set_stage(stage);
    set_targets(&mut bench, anchors);
    gradcheck::check(&mut bench, &gradcheck::Options::default())
        .unwrap_or_else(|error| panic!("{config} at {stage}: {error}"));
}

#[test]
fn of_classifiers() {
    check(&json!({}), &classifier([4, 4]), 1, 1);
    check(&json!({}), &classifier([3, 4]), 0, 1);
    let config = json!({"isrd_fit": "resize", "fkd_norm": "pkd", "fkd_reduction": "sum"});
    check(&config, &classifier([4, 4]), 1, 1);
}

#[test]
fn of_attention() {
    let mut taps = classifier([4, 4]);
    for tap in &mut taps {
        tap.name = tap.name.replace("c2", "b1");
    }
    taps.extend(TapShape::pair("attn.b1", [2, 2, 7, 7], [2, 2, 21, 21]));
    let mut bench = bench(&json!({"attn_weight": 2.0, "isrd": "off"}), &taps).unwrap();
    bench.fill(3);
    bench.set_stage(1);
    // Attention weights are above 0.
    for slot in [6, 7] {
        let values: Vec<f32> = (bench.tap_mut(slot).iter())
            .map(|v| 0.1 + v.abs())
            .collect();
        bench.tap_mut(slot).copy_from_slice(&values);
    }
    gradcheck::check(&mut bench, &gradcheck::Options::default()).unwrap();
}

#[test]
fn of_segmenters() {
    check(&json!({}), &segmenter(), 1, 1);
}

#[test]
fn of_detectors() {
    check(&json!({}), &detector(false, [4, 4]), 0, 2);
    check(&json!({"isrd": "on"}), &detector(false, [4, 4]), 0, 2);
    check(&json!({"adapter": "auto"}), &detector(false, [3, 5]), 2, 2);
    check(&json!({"mode": "vanilla"}), &detector(true, [4, 4]), 0, 1);
}
