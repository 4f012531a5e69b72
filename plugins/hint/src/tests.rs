use kd_plugin::testkit::golden::{self, Golden};
use kd_plugin::testkit::{Bench, TapShape, gradcheck};
use serde_json::json;

use super::*;

/// Sums of a few hundred f32 terms.
const VALUE_TOLERANCE: f64 = 1e-5;

fn levels(student: usize, teacher: usize) -> Vec<TapShape> {
    let pair = |name, size| {
        TapShape::pair(
            name,
            [2, student, size, size + 1],
            [2, teacher, size, size + 1],
        )
    };
    [pair("neck.p3", 6), pair("neck.p4", 3)].concat()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let len = values.len() as f64;
    values.sum::<f64>() / len
}

#[test]
fn the_loss_is_the_mean_of_each_level_summed() {
    for (distance, of) in [
        ("l1", (|d: f64| d.abs()) as fn(f64) -> f64),
        ("l2", |d| d * d),
    ] {
        let mut bench = Bench::new::<Hint>(&json!({"distance": distance}), &levels(4, 4)).unwrap();
        bench.fill(3);
        let expected: f64 = [(0, 1), (2, 3)]
            .map(|(s, t)| {
                let (student, teacher) = (bench.tap_mut(s).to_vec(), bench.tap_mut(t).to_vec());
                mean(
                    student
                        .iter()
                        .zip(&teacher)
                        .map(|(s, t)| of(f64::from(*s) - f64::from(*t))),
                )
            })
            .iter()
            .sum();
        let got = f64::from(bench.forward().unwrap().losses[0]);
        assert!(
            (got - expected).abs() < VALUE_TOLERANCE * expected,
            "{distance} {got} {expected}"
        );
    }
}

#[test]
fn equal_maps_give_zero_with_and_without_normalisation() {
    for normalize in [false, true] {
        let config = json!({"normalize": normalize, "connector": "always"});
        let mut bench = Bench::new::<Hint>(&config, &levels(4, 4)).unwrap();
        bench.fill(5);
        for (s, t) in [(0, 1), (2, 3)] {
            let teacher = bench.tap_mut(t).to_vec();
            bench.tap_mut(s).copy_from_slice(&teacher);
        }
        // The connector starts as the identity.
        assert_eq!(bench.forward().unwrap().losses, [0.0]);
    }
}

#[test]
fn normalisation_ignores_gain_and_offset() {
    let mut bench = Bench::new::<Hint>(&json!({"normalize": true}), &levels(4, 4)).unwrap();
    bench.fill(5);
    let before = bench.forward().unwrap().losses[0];
    bench
        .tap_mut(0)
        .iter_mut()
        .for_each(|value| *value = 3.0 * *value + 1.0);
    let after = bench.forward().unwrap().losses[0];
    // The epsilon of the range shifts values by 1e-6 of themselves.
    assert!((before - after).abs() < 1e-5 * before, "{before} {after}");
}

#[test]
fn gradients_agree_with_differences() {
    for config in [
        json!({"distance": "l2"}),
        json!({"distance": "l1"}),
        json!({"distance": "l2", "normalize": true}),
        json!({"distance": "l2", "connector": "always"}),
    ] {
        for (student, teacher) in [(4, 4), (3, 5)] {
            let mut bench = Bench::new::<Hint>(&config, &levels(student, teacher)).unwrap();
            bench.fill(11);
            gradcheck::check(&mut bench, &gradcheck::Options::default())
                .unwrap_or_else(|error| panic!("{config} {student}->{teacher}: {error}"));
        }
    }
}

#[test]
fn parameters_are_named_by_level_and_start_from_the_seed() {
    let start = |seed| {
        let mut bench = Bench::new::<Hint>(&json!({}), &levels(3, 5)).unwrap();
        bench.set_seed(seed);
        bench.init_state().unwrap();
        bench.param_mut("connector.neck.p4.weight").to_vec()
    };
    assert_eq!(start(1), start(1));
    assert_ne!(start(1), start(2));
    let bench = Bench::new::<Hint>(&json!({}), &levels(3, 5)).unwrap();
    let names: Vec<(&str, &[i64])> = bench
        .params()
        .iter()
        .map(|(name, shape, _)| (name.as_str(), shape.as_slice()))
        .collect();
    assert_eq!(
        names,
        [
            ("connector.neck.p3.weight", [5, 3, 1, 1].as_slice()),
            ("connector.neck.p3.bias", &[5]),
            ("connector.neck.p4.weight", &[5, 3, 1, 1]),
            ("connector.neck.p4.bias", &[5]),
        ]
    );
}

#[test]
fn a_forbidden_connector_and_forbidden_sizes_are_refused() {
    let error = Bench::new::<Hint>(&json!({"connector": "never"}), &levels(3, 5)).unwrap_err();
    assert!(error.message.contains("3 channels"), "{error}");
    let taps = TapShape::pair("neck.p3", [1, 2, 4, 4], [1, 2, 5, 4]);
    let mut bench = Bench::new::<Hint>(&json!({"resize": "never"}), &taps).unwrap();
    let error = bench.forward().unwrap_err();
    assert_eq!(error.status, 4);
    assert!(error.message.contains("neck.p3"), "{error}");
}

/// f32 against an f64 reference: sums of at most a thousand terms.
const GOLDEN_TOLERANCE: f64 = 5e-6;

#[test]
fn forward_and_gradients_agree_with_pytorch() {
    let golden = Golden::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/hint/hint.safetensors"
    ));
    let cases = golden::cases(&golden);
    assert!(cases.len() >= 9, "{cases:?}");
    for case in cases {
        for (name, error) in golden::replay(&golden, &case, Bench::new::<Hint>).unwrap() {
            assert!(error <= GOLDEN_TOLERANCE, "{name}: {error:e}");
        }
    }
}
