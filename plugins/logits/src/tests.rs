//! Against PyTorch, finite differences, and what can be seen by eye.

mod golden;

use kd_plugin::testkit::{Bench, TapShape, gradcheck};
use serde_json::{Value, json};

use super::*;

const TAP: &str = "head.cls_logits.p3";

/// One level of one image: `[1, K, 1, locations]`, a location a column.
fn bench(config: &Value, labels: &[i64], student: &[&[f32]], teacher: &[&[f32]]) -> Bench {
    let (locations, classes) = (labels.len(), student[0].len());
    let shape = [1, classes, 1, locations];
    let taps = TapShape::pair(TAP, shape, shape);
    let mut bench = Bench::for_classes::<Logits>(classes as u32, config, &taps).unwrap();
    for (slot, rows) in [student, teacher].into_iter().enumerate() {
        for (location, row) in rows.iter().enumerate() {
            for (class, logit) in row.iter().enumerate() {
                bench.tap_mut(slot)[class * locations + location] = *logit;
            }
        }
    }
    bench.set_target_ints("assign.labels", &[1, locations as i64], labels.to_vec());
    bench
}

fn loss(bench: &mut Bench) -> f64 {
    f64::from(bench.forward().unwrap().losses[0])
}

/// KL of two coins.
fn coin(p: f64, q: f64) -> f64 {
    p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln()
}

/// The logit of 3/4, whose `p` can be written down.
const THREE_QUARTERS: f32 = 1.098_612_3;

#[test]
fn three_locations_by_hand() {
    let rows: [&[f32]; 3] = [&[0.0], &[0.0], &[0.0]];
    let teacher: [&[f32]; 3] = [&[THREE_QUARTERS]; 3];
    // Two foregrounds of class 0, one background; each costs KL(3/4, 1/2).
    let one = coin(0.75, 0.5);
    for (config, labels, expected) in [
        (json!({}), [0, 0, -1], 3.0 * one / 2.0),
        (json!({"reduction": "mean"}), [0, 0, -1], one),
        (json!({"reduction": "batch"}), [0, 0, -1], 3.0 * one),
        (json!({}), [0, -2, -1], 2.0 * one),
        (json!({"include_ignored": true}), [0, -2, -1], 3.0 * one),
        (json!({"locations": "fg"}), [0, 0, -1], one),
        (json!({"locations": "bg"}), [0, 0, -1], one / 2.0),
        (
            json!({"locations": "bg", "reduction": "mean"}),
            [0, 0, -1],
            one,
        ),
        (json!({}), [-2, -2, -2], 0.0),
        (json!({"locations": "fg"}), [-1, -1, -1], 0.0),
    ] {
        let got = loss(&mut bench(&config, &labels, &rows, &teacher));
        assert!(
            (got - expected).abs() < 1e-6,
            "{config} {labels:?}: {got} {expected}"
        );
    }
}

#[test]
fn the_temperature_divides_logits_and_its_square_multiplies() {
    let config = json!({"temperature": 2.0});
    let got = loss(&mut bench(
        &config,
        &[0],
        &[&[0.0]],
        &[&[2.0 * THREE_QUARTERS]],
    ));
    let expected = 4.0 * coin(0.75, 0.5);
    assert!((got - expected).abs() < 1e-6, "{got} {expected}");
}

#[test]
fn softmax_is_blind_to_a_shift_and_bernoulli_is_not() {
    let (student, teacher): (&[f32], &[f32]) = (&[-1.0, -5.0, -6.0], &[5.0, 1.0, 0.0]);
    let of = |kl| loss(&mut bench(&json!({"kl": kl}), &[0], &[student], &[teacher]));
    assert!(of("softmax").abs() < 1e-6, "{}", of("softmax"));
    assert!(of("bernoulli") > 6.0, "{}", of("bernoulli"));
}

#[test]
fn equal_logits_give_exactly_zero() {
    for kl in ["bernoulli", "softmax"] {
        let row: &[f32] = &[12.0, -0.3, 0.0, -25.0];
        let mut bench = bench(&json!({"kl": kl}), &[1], &[row], &[row]);
        let out = bench.forward().unwrap();
        assert_eq!(out.losses, [0.0], "{kl}");
        let gradients = bench.backward(&out, &[1.0], &[]).unwrap();
        // p and q are computed in two ways.
        assert!(gradients.taps[0].iter().all(|g| g.abs() < 1e-6), "{kl}");
    }
}

#[test]
fn large_logits_are_finite_and_the_gradient_is_q_less_p() {
    let (student, teacher): (&[f32], &[f32]) = (&[60.0, -90.0, 0.0], &[-80.0, 70.0, 0.0]);
    let mut bench = bench(&json!({}), &[0], &[student], &[teacher]);
    let out = bench.forward().unwrap();
    assert!((out.losses[0] - 150.0).abs() < 1e-4, "{:?}", out.losses);
    let gradients = bench.backward(&out, &[1.0], &[]).unwrap();
    assert_eq!(gradients.taps[0], [1.0, -1.0, 0.0]);
}

#[test]
fn gradients_agree_with_differences() {
    for config in [
        json!({}),
        json!({"kl": "softmax", "temperature": 2.0}),
        json!({"reduction": "mean", "locations": "bg"}),
        json!({"reduction": "batch", "include_ignored": true}),
    ] {
        let (p3, p4) = ([2, 6, 3, 4], [2, 6, 2, 2]);
        let taps = [
            TapShape::pair(TAP, p3, p3),
            TapShape::pair("head.cls_logits.p4", p4, p4),
        ];
        let mut bench = Bench::for_classes::<Logits>(3, &config, &taps.concat()).unwrap();
        bench.fill(11);
        let labels = (0..64).map(|i| i % 5 - 2).collect();
        bench.set_target_ints("assign.labels", &[2, 32], labels);
        gradcheck::check(&mut bench, &gradcheck::Options::default())
            .unwrap_or_else(|error| panic!("{config}: {error}"));
    }
}

#[test]
fn heads_and_options_that_do_not_fit_are_refused() {
    let pair = |s: usize, t: usize| TapShape::pair(TAP, [1, s, 2, 2], [1, t, 2, 2]).to_vec();
    let refusal = |classes, config: Value, taps: &[TapShape]| {
        let error = Bench::for_classes::<Logits>(classes, &config, taps).unwrap_err();
        error.message
    };
    for (message, needles) in [
        (
            refusal(3, json!({}), &pair(27, 3)),
            vec![TAP, "27", "3 classes", "anchors"],
        ),
        (refusal(4, json!({}), &pair(6, 6)), vec![TAP, "4 classes"]),
        (
            refusal(1, json!({"kl": "softmax"}), &pair(1, 1)),
            vec!["softmax", "bernoulli"],
        ),
        (
            refusal(3, json!({"temperature": 0.0}), &pair(3, 3)),
            vec!["temperature"],
        ),
        (
            refusal(
                3,
                json!({"locations": "fg", "include_ignored": true}),
                &pair(3, 3),
            ),
            vec!["include_ignored"],
        ),
        (
            refusal(
                3,
                json!({}),
                &[pair(3, 3), vec![other_level("student")]].concat(),
            ),
            vec!["p4", "same levels"],
        ),
        (
            refusal(
                3,
                json!({}),
                &[pair(3, 3), vec![other_level("teacher")]].concat(),
            ),
            vec!["p4", "same levels"],
        ),
    ] {
        for needle in needles {
            assert!(message.contains(needle), "{needle}: {message}");
        }
    }
    let error = Bench::new::<Logits>(&json!({}), &pair(3, 3)).unwrap_err();
    assert!(error.message.contains("number of classes"), "{error}");
}

fn other_level(role: &'static str) -> TapShape {
    TapShape {
        role,
        name: "head.cls_logits.p4".to_owned(),
        shape: [1, 3, 1, 1],
        stride: 16,
    }
}

#[test]
fn labels_of_another_grid_and_maps_of_another_size_are_refused() {
    let mut wrong = bench(&json!({}), &[0, -1], &[&[0.0], &[0.0]], &[&[0.0], &[0.0]]);
    wrong.set_target_ints("assign.labels", &[1, 3], vec![0, -1, -1]);
    let error = wrong.forward().unwrap_err();
    assert!(
        error.message.contains("assign.labels") && error.message.contains("2 locations"),
        "{error}"
    );
    let taps = TapShape::pair(TAP, [1, 3, 2, 2], [1, 3, 2, 3]);
    let mut wrong = Bench::for_classes::<Logits>(3, &json!({}), &taps).unwrap();
    wrong.set_target_ints("assign.labels", &[1, 4], vec![0; 4]);
    let error = wrong.forward().unwrap_err();
    assert!(error.message.contains(TAP), "{error}");
}
