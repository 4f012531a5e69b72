//! Finite differences.

use kd_plugin::testkit::gradcheck;

use super::*;

/// Any step wide enough for f32 crosses kinks of some ReLUs. The golden test holds the same gradients
/// to 1e-4; this one looks for what is forgotten.
const KINKS: f64 = 0.1;

#[test]
fn gradients_agree_with_differences() {
    for config in [
        json!({}),
        json!({"add_context_box": false}),
        json!({"interact_pattern": "labelGuided"}),
    ] {
        let mut config = config.clone();
        config["nr_transformer_heads"] = json!(4);
        let taps = taps(2, 16, [64, 64], 2);
        let mut bench = Bench::for_classes::<Lgd>(3, &config, &taps).unwrap();
        bench.fill(5);
        set_targets(&mut bench, [64, 64], &OBJECTS);
        let options = gradcheck::Options {
            directions: 1,
            elements: 0,
            directional_tolerance: KINKS,
            // Sixteen layers, each normalised, before an attention: a hundred times as steep.
            skip_params: &[
                "teacher.label_encoder.",
                "teacher.canoni_proj_1d.",
                "teacher.attention.",
            ],
            ..gradcheck::Options::default()
        };
        gradcheck::check(&mut bench, &options).unwrap_or_else(|error| panic!("{config}: {error}"));
    }
}
