//! Finite differences of every tap and parameter, where the losses are smooth: PyTorch's gradients stand
//! for the kinks of ReLU and of `p = 1`.

use kd_plugin::testkit::gradcheck;

use super::*;

/// Summand of every normalisation: values of variance 1 around it are all above 0, where ReLU has no kink.
const ABOVE_ZERO: f32 = 4.0;

/// What the joint phase takes as it is: the loss depends on it, and no gradient goes there.
const CONSTANT: &[&str] = &["encoder.", "decoder."];

/// Summands before a convolution and a normalisation, which takes them out but at the border.
const NEARLY_CANCELLED: &[&str] = &[
    "encoder.shared.norm1.beta",
    "encoder.shared.norm2.beta",
    "encoder.shared.norm3.beta",
    "decoder.shared.norm1.beta",
];

fn check(config: &Value, taps: &[TapShape], phase: u32, skip: &'static [&'static str]) {
    let mut bench = Bench::new::<Affinity>(config, taps).unwrap();
    bench.fill(11);
    bench.set_phase(phase);
    let names: Vec<String> = bench.params().iter().map(|(n, ..)| n.clone()).collect();
    for name in names.iter().filter(|name| name.ends_with(".beta")) {
        bench.param_mut(name).fill(ABOVE_ZERO);
    }
    let options = gradcheck::Options {
        skip_params: skip,
        ..gradcheck::Options::default()
    };
    gradcheck::check(&mut bench, &options).unwrap_or_else(|error| panic!("{config}: {error}"));
}

#[test]
fn of_the_joint_phase() {
    let taps = feat(([2, 3, 5, 6], 16), ([2, 6, 5, 6], 16));
    for config in [
        json!({"p": 2}),
        json!({"p": 2, "affinity": "rms"}),
        json!({"p": 2, "affinity": "row"}),
        json!({"p": 2, "q": 1, "norm_scope": "sample"}),
        json!({"p": 2, "autoencoder": "per_level"}),
    ] {
        check(&config, &taps, JOINT, CONSTANT);
    }
    let finer = feat(([2, 3, 9, 8], 8), ([2, 12, 9, 8], 8));
    check(&json!({"p": 2, "code_stride": 16}), &finer, JOINT, CONSTANT);
    check(&json!({"p": 2, "autoencoder": "none"}), &taps, 0, &[]);
}

#[test]
fn of_the_auto_encoder() {
    for (student, teacher) in [
        (([2, 3, 5, 6], 16), ([2, 4, 5, 6], 16)),
        (([2, 3, 5, 4], 16), ([2, 4, 9, 7], 8)),
    ] {
        check(
            &json!({"sparsity": 1e-3}),
            &feat(student, teacher),
            0,
            NEARLY_CANCELLED,
        );
    }
}
