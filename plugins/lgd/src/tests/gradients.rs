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

/// Norms of the gradients at the taps and, by module, at the parameters.
fn norms(bench: &mut Bench, of_loss: f32, of_maps: f32) -> [f64; 3] {
    let out = bench.forward().unwrap();
    let upstream: Vec<Vec<f32>> = out
        .maps
        .iter()
        .map(|map| Random::new(1).normals(map.len()))
        .map(|map| map.iter().map(|v| of_maps * v).collect())
        .collect();
    let gradients = bench.backward(&out, &[of_loss], &upstream).unwrap();
    drop(out);
    let norm = |lists: &mut dyn Iterator<Item = &Vec<f32>>| {
        let squares = lists.flatten().map(|g| f64::from(*g).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let params: Vec<(&String, &Vec<f32>)> = bench
        .params()
        .iter()
        .map(|p| &p.0)
        .zip(&gradients.params)
        .collect();
    let module = |name: &str| {
        let of_module = params.iter().filter(|p| p.0.starts_with(name));
        norm(&mut of_module.map(|p| p.1))
    };
    [
        norm(&mut gradients.taps.iter()),
        module("teacher."),
        module("adapter."),
    ]
}

#[test]
fn in_a_phase_without_distillation_the_loss_teaches_the_adapter_alone() {
    for detached in [false, true] {
        let mut bench = small(&json!({"detach_appearance_embed": detached}));
        for off in [false, true] {
            bench.set_detach_student(off);
            let [taps, teacher, adapter] = norms(&mut bench, 1.0, 0.0);
            assert_eq!(taps > 0.0, !off);
            assert!(teacher == 0.0 && adapter > 0.0);
            // The maps are judged in every phase.
            let [taps, teacher, adapter] = norms(&mut bench, 0.0, 1.0);
            assert_eq!(taps > 0.0, !detached);
            assert!(teacher > 0.0 && adapter == 0.0);
        }
    }
}
