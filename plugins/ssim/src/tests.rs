use kd_plugin::testkit::golden::{self, Golden};
use kd_plugin::testkit::{Bench, TapShape, gradcheck};
use serde_json::json;

use super::*;

/// f32 against an f64 reference: variances are differences of nearly equal sums (1e-7 absolute on
/// values of 1e-2), and a loss near 0.01 is 0.5 minus half a number near 1.
const LOSS_TOLERANCE: f64 = 2e-6;
/// Gradients divide by the same variances once more.
const GRADIENT_TOLERANCE: f64 = 5e-5;

fn pair(student: [usize; 4], teacher: [usize; 4]) -> Vec<TapShape> {
    TapShape::pair("neck.p3", student, teacher).to_vec()
}

#[test]
fn gradients_agree_with_differences() {
    for config in [
        json!({}),
        json!({"norm_scope": "channel"}),
        json!({"norm_scope": "tensor"}),
        json!({"alpha": 0.0, "beta": 0.0, "gamma": 1.0}),
        json!({"alpha": 1.0, "beta": 0.0, "gamma": 0.0}),
        json!({"alpha": 2.0, "beta": 1.0, "gamma": 0.5}),
    ] {
        for (student, teacher) in [
            ([2, 3, 8, 9], [2, 3, 8, 9]),
            ([1, 2, 3, 4], [1, 3, 3, 4]),
            ([1, 3, 6, 6], [1, 3, 9, 8]),
        ] {
            let mut bench = Bench::new::<Ssim>(&config, &pair(student, teacher)).unwrap();
            bench.fill(11);
            if student == teacher {
                // Similar maps: the structure term is positive, so that its root has no kink.
                let values = bench.tap_mut(0).to_vec();
                for (teacher, student) in bench.tap_mut(1).iter_mut().zip(values) {
                    *teacher = 0.3 * *teacher + 0.7 * student;
                }
            } else if config["gamma"] == 0.5 {
                continue;
            }
            gradcheck::check(&mut bench, &gradcheck::Options::default())
                .unwrap_or_else(|error| panic!("{config} {student:?}->{teacher:?}: {error}"));
        }
    }
}

#[test]
fn forward_and_gradients_agree_with_pytorch() {
    let golden = Golden::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/ssim/ssim.safetensors"
    ));
    let cases = golden::cases(&golden);
    assert!(cases.len() >= 20, "{cases:?}");
    for case in cases {
        let errors = golden::replay(&golden, &case, Bench::new::<Ssim>).unwrap();
        for (name, error) in errors {
            let allowed = if name.ends_with("/loss") {
                LOSS_TOLERANCE
            } else {
                GRADIENT_TOLERANCE
            };
            assert!(error <= allowed, "{name}: {error:e}");
        }
    }
}

/// The published reference point: `T = (1 + c/2) sin(.31i + .73j + .9c) + .2c`,
/// `Q = (1 - .3c) cos(.53i - .21j + .45c) - .1c`, `S = .7T + .3Q` on `[1, 2, 8, 9]`.
fn analytic() -> (Vec<f32>, Vec<f32>) {
    let mut maps = (Vec::new(), Vec::new());
    for (c, i, j) in (0..2).flat_map(|c| (0..8).flat_map(move |i| (0..9).map(move |j| (c, i, j)))) {
        let (c, i, j) = (f64::from(c), f64::from(i), f64::from(j));
        let t = (1.0 + 0.5 * c) * (0.31 * i + 0.73 * j + 0.9 * c).sin() + 0.2 * c;
        let q = (1.0 - 0.3 * c) * (0.53 * i - 0.21 * j + 0.45 * c).cos() - 0.1 * c;
        maps.0.push((0.7 * t + 0.3 * q) as f32);
        maps.1.push(t as f32);
    }
    maps
}

fn analytic_loss(config: serde_json::Value) -> f64 {
    let shape = [1, 2, 8, 9];
    let mut bench = Bench::new::<Ssim>(&config, &pair(shape, shape)).unwrap();
    let (student, teacher) = analytic();
    bench.tap_mut(0).copy_from_slice(&student);
    bench.tap_mut(1).copy_from_slice(&teacher);
    f64::from(bench.forward().unwrap().losses[0])
}

#[test]
fn independent_values_are_met() {
    let only = |alpha, beta, gamma| json!({"norm_scope": "channel", "alpha": alpha, "beta": beta, "gamma": gamma});
    // f64 values of a pure Python implementation. Contrast and structure alone carry the epsilon
    // under the root, which moves them by less than 3e-5.
    for (config, expected, tolerance) in [
        (json!({"norm_scope": "channel"}), 0.038636046, 1e-6),
        (json!({"norm_scope": "image"}), 0.028738024, 1e-6),
        (only(1, 0, 0), 0.011666282, 1e-6),
        (only(0, 1, 1), 0.027691613, 1e-6),
        (only(0, 1, 0), 0.011378130, 3e-5),
        (only(0, 0, 1), 0.016765099, 3e-5),
    ] {
        let got = analytic_loss(config.clone());
        assert!(
            (got - expected).abs() < tolerance,
            "{config}: {got} {expected}"
        );
    }
}

#[test]
fn equal_maps_give_zero_and_inverted_maps_nearly_one() {
    for config in [
        json!({}),
        json!({"gamma": 2.0}),
        json!({"alpha": 0.0, "beta": 0.0}),
    ] {
        for size in [1, 2, 3, 5, 6, 12] {
            let shape = [2, 3, size, size + 1];
            let mut bench = Bench::new::<Ssim>(&config, &pair(shape, shape)).unwrap();
            bench.fill(9);
            let teacher = bench.tap_mut(1).to_vec();
            bench.tap_mut(0).copy_from_slice(&teacher);
            let out = bench.forward().unwrap();
            // One rounding of a similarity near 1.
            assert!(
                out.losses[0].abs() < 1e-6,
                "{config} {size}: {}",
                out.losses[0]
            );
        }
    }
    let shape = [1, 1, 16, 16];
    let mut bench = Bench::new::<Ssim>(&json!({}), &pair(shape, shape)).unwrap();
    bench.fill(9);
    let inverted: Vec<f32> = bench.tap_mut(1).iter().map(|v| -v).collect();
    bench.tap_mut(0).copy_from_slice(&inverted);
    assert!(bench.forward().unwrap().losses[0] > 0.8);
}

#[test]
fn gain_and_offset_of_the_student_do_not_matter() {
    let shape = [2, 3, 8, 8];
    let mut bench = Bench::new::<Ssim>(&json!({}), &pair(shape, shape)).unwrap();
    bench.fill(4);
    let before = bench.forward().unwrap().losses[0];
    bench
        .tap_mut(0)
        .iter_mut()
        .for_each(|value| *value = 3.0 * *value - 2.0);
    let after = bench.forward().unwrap().losses[0];
    assert!((before - after).abs() < 1e-5 * before, "{before} {after}");
}

#[test]
fn constant_maps_are_finite() {
    for config in [json!({}), json!({"gamma": 2.0})] {
        let shape = [1, 2, 7, 7];
        let mut bench = Bench::new::<Ssim>(&config, &pair(shape, shape)).unwrap();
        let out = bench.forward().unwrap();
        let gradients = bench.backward(&out, &[1.0], &[]).unwrap();
        assert!(out.losses[0].is_finite());
        assert!(gradients.taps[0].iter().all(|g| g.is_finite()));
    }
}

#[test]
fn bad_options_and_shapes_are_refused() {
    let shape = [1, 2, 6, 6];
    for (config, needle) in [
        (json!({"patch_size": 10}), "odd"),
        (json!({"sigma": 0.0}), "sigma"),
        (
            json!({"alpha": 0.0, "beta": 0.0, "gamma": 0.0}),
            "one must be positive",
        ),
        (json!({"beta": -1.0}), "negative"),
    ] {
        let error = Bench::new::<Ssim>(&config, &pair(shape, shape)).unwrap_err();
        assert_eq!(error.status, 3, "{error}");
        assert!(error.message.contains(needle), "{error}");
    }
    let mut bench = Bench::new::<Ssim>(&json!({}), &pair(shape, [1, 2, 14, 6])).unwrap();
    let error = bench.forward().unwrap_err();
    assert_eq!(error.status, 4, "{error}");
    assert!(
        error.message.contains("neck.p3") && error.message.contains("2.33"),
        "{error}"
    );
}

#[test]
fn the_default_weight_is_the_configured_one() {
    let shape = [1, 2, 6, 6];
    let weight = |config| {
        Bench::new::<Ssim>(&config, &pair(shape, shape))
            .unwrap()
            .losses()[0]
            .1
    };
    assert_eq!(weight(json!({})), 4.0);
    assert_eq!(weight(json!({"loss_weight": 2.0})), 2.0);
}
