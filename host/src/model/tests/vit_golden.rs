//! Vision transformers against timm: `tests/golden/vit/make_vit_golden.py` wrote the reference, in f64.

use burn::tensor::Device;

use super::*;
use crate::distill::inject::inject;
use crate::kernels::testing::{check, error};
use crate::model::weights;

/// Sums in f32, some 1e-7 a layer, which large logits of the attention amplify.
const TOLERANCE: f64 = 5e-6;
/// Gradients pass every layer twice.
const GRADIENT_TOLERANCE: f64 = 2e-5;

struct Golden {
    case: &'static str,
    file: StateDict,
    model: Box<dyn Model>,
    weights: Vec<Tensor<1>>,
}

fn goldens() -> [Golden; 2] {
    let file = StateDict::load(&golden_path("vit/vit.safetensors")).unwrap();
    let whole = VitConfig {
        patch_size: 4,
        dim: 8,
        depth: 2,
        heads: 2,
        mlp_ratio: 2.0,
        image_size: vec![8, 12],
    };
    // 16.8 channels inside the MLP, of which 16 are whole.
    let rest = VitConfig {
        dim: 12,
        depth: 1,
        heads: 3,
        mlp_ratio: 1.4,
        image_size: vec![14, 19],
        ..whole.clone()
    };
    [("whole", whole), ("rest", rest)].map(|(case, vit)| {
        let config = ModelConfig {
            vit,
            ..vit_config()
        };
        let model = build_classifier(&config, 5);
        let file = below(&file, case);
        let mut state = StateDict::default();
        weights::load_into(&mut state, model.as_ref(), &below(&file, "state"))
            .unwrap()
            .strict()
            .unwrap();
        let weights = weights::tensors(model.as_ref(), &state, &Device::flex()).unwrap();
        Golden {
            case,
            file,
            model,
            weights,
        }
    })
}

impl Golden {
    fn image(&self) -> Tensor<4> {
        map(&self.file.entries["image"], &Device::flex())
    }

    /// The gradients that `objective` gives the weights are `reference`, and nothing where that has
    /// no entry.
    fn compare_gradients(
        &self,
        what: &str,
        taps: &[&str],
        reference: &StateDict,
        objective: impl Fn(&crate::model::Forward) -> Tensor<1>,
    ) {
        assert!(!reference.entries.is_empty(), "{what}");
        let leaves = student_weights(self.model.as_ref(), self.weights.clone());
        let request = request(true, taps, false);
        let forward = self.model.forward(&leaves, self.image(), &request);
        let gradients = objective(&forward).backward();
        for (spec, leaf) in self.model.specs().iter().zip(&leaves) {
            let name = &spec.name;
            let got = leaf.grad(&gradients).map(values);
            match (reference.entries.get(name), got) {
                (Some(want), Some(got)) => {
                    assert_eq!(want.shape, spec.shape);
                    let what = format_args!("{} {what}: {name}", self.case);
                    check(what, error(&got, &want.data), GRADIENT_TOLERANCE);
                }
                (None, Some(got)) => {
                    assert!(got.iter().all(|&g| g == 0.0), "{what} reaches {name}");
                }
                (Some(_), None) => panic!("{what} does not reach {name}"),
                (None, None) => {}
            }
        }
    }
}

#[test]
fn all_taps_are_timms() {
    for golden in goldens() {
        let request = request(false, &all_taps(golden.model.as_ref()), false);
        let forward = golden
            .model
            .forward(&golden.weights, golden.image(), &request);
        let reference = below(&golden.file, "tap");
        // All but `image`.
        assert_eq!(reference.entries.len() + 1, golden.model.taps().len());
        for (name, want) in &reference.entries {
            let tap = &forward.taps[name];
            assert_eq!(tap.dims().as_slice(), want.shape, "{name}");
            let what = format_args!("{} {name}", golden.case);
            check(what, error(&values(tap.clone()), &want.data), TOLERANCE);
        }
        let logits = forward.class_logits().unwrap();
        assert_eq!(
            values(logits.clone()),
            values(forward.taps["logits"].clone())
        );
        assert!(forward.batch_stats.is_empty() && forward.pyramid.is_empty());
    }
}

#[test]
fn gradients_are_timms() {
    for golden in goldens() {
        let reference = below(&golden.file, "grad");
        assert_eq!(reference.entries.len(), golden.model.specs().len());
        golden.compare_gradients("mean(logits^2)", &[], &reference, |forward| {
            forward.class_logits().unwrap().clone().square().mean()
        });
    }
}

/// What a method gives at a tap arrives at everything before it and at nothing else.
#[test]
fn gradients_injected_at_taps_are_timms() {
    for golden in goldens() {
        let upstreams = below(&golden.file, "upstream");
        assert_eq!(upstreams.entries.len() + 1, golden.model.taps().len());
        let injected = below(&golden.file, "injected");
        for (tap, upstream) in &upstreams.entries {
            let upstream = map(upstream, &Device::flex());
            let reference = below(&injected, tap);
            if tap == "stem.conv" {
                let names: Vec<&String> = reference.entries.keys().collect();
                assert_eq!(names, ["patch_embed.proj.bias", "patch_embed.proj.weight"]);
            }
            golden.compare_gradients(tap, &[tap], &reference, |forward| {
                inject(forward.taps[tap].clone(), upstream.clone())
            });
        }
    }
}

/// Without what methods add, the tape is the same whether a tap is asked for or not.
#[test]
fn a_gradient_at_a_tap_is_added_to_that_of_the_loss() {
    let [golden, _] = goldens();
    let upstream = map(&golden.file.entries["upstream/attn.b2"], &Device::flex());
    let mut reference = below(&golden.file, "grad");
    for (name, more) in below(&below(&golden.file, "injected"), "attn.b2").entries {
        let sum = reference.entries.get_mut(&name).unwrap();
        sum.data
            .iter_mut()
            .zip(more.data)
            .for_each(|(a, b)| *a += b);
    }
    golden.compare_gradients("both", &["attn.b2"], &reference, |forward| {
        let logits = forward.class_logits().unwrap().clone();
        let tap = forward.taps["attn.b2"].clone();
        logits.square().mean() + inject(tap, upstream.clone())
    });
}

#[test]
fn names_and_shapes_are_timms() {
    let text = std::fs::read_to_string(golden_path("vit/keys.json")).unwrap();
    let keys: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (name, dim, heads) in [
        ("deit_tiny_patch16_224", 192, 3),
        ("deit_small_patch16_224", 384, 6),
    ] {
        let mut config = vit_config();
        config.vit = VitConfig {
            patch_size: 16,
            dim,
            depth: 12,
            heads,
            mlp_ratio: 4.0,
            image_size: vec![224, 224],
        };
        let model = build_classifier(&config, 200);
        let got = model.specs().iter().map(|spec| {
            let extents: Vec<String> = spec.shape.iter().map(ToString::to_string).collect();
            (
                spec.name.clone(),
                serde_json::Value::from(extents.join("x")),
            )
        });
        let got: serde_json::Map<String, serde_json::Value> = got.collect();
        assert_eq!(&got, keys[name].as_object().unwrap(), "{name}");
    }
}

#[test]
fn positions_of_another_grid_are_resized_as_torch_does() {
    let file = StateDict::load(&golden_path("vit/positions.safetensors")).unwrap();
    let mut count = 0;
    while let Some(embedding) = file.entries.get(&format!("{count}/file")) {
        let grid = &file.entries[&format!("{count}/grid")].data;
        let mut config = vit_config();
        config.vit.dim = 4;
        // Some pixels beyond whole patches.
        config.vit.image_size = grid.iter().map(|&cells| 8 * cells as usize + 3).collect();
        let model = build_classifier(&config, 2);
        let mut state = crate::model::initial_state(model.as_ref(), 1);
        let mut weights_file = state.clone();
        let entries = &mut weights_file.entries;
        entries.insert("pos_embed".into(), embedding.clone());
        let report = weights::load_into(&mut state, model.as_ref(), &weights_file).unwrap();
        let want = &file.entries[&format!("{count}/resized")];
        assert_eq!(state.entries["pos_embed"].shape, want.shape);
        let got = &state.entries["pos_embed"].data;
        check(format_args!("{count}"), error(got, &want.data), 1e-6);
        assert_eq!(report.matched + 1, model.specs().len());
        let [resized] = &report.resized[..] else {
            panic!("{report}");
        };
        assert_eq!(
            (&resized.name[..], &resized.got),
            ("pos_embed", &embedding.shape)
        );
        assert!(
            report
                .to_string()
                .contains("1 resized to the model's grid: pos_embed")
        );
        assert!(
            report.strict().is_err(),
            "a size has to fit where all has to"
        );
        count += 1;
    }
    assert_eq!(count, 4);
}
