//! Vision transformers: building, taps, initial weights, files, precision.

use burn::tensor::{DType, Device};

use super::*;
use crate::config::Precision;
use crate::kernels::testing::{check, error, normal, tensor};
use crate::kernels::with_operations;
use crate::model::{Init, ModelError, ParamKind, Part, initial_state, ops, weights};

/// Images `[2, 3, H, W]`.
fn images(size: [usize; 2]) -> Tensor<4> {
    let [height, width] = size;
    let shape = [2, 3, height, width];
    let pixels = normal("images", shape.iter().product());
    tensor(&pixels, shape, &Device::flex())
}

fn plain_weights(model: &dyn Model) -> Vec<Tensor<1>> {
    weights::tensors(model, &initial_state(model, 3), &Device::flex()).unwrap()
}

#[test]
fn taps_have_the_sizes_that_are_told() {
    for size in [[32, 32], [31, 50]] {
        let mut config = vit_config();
        config.vit.image_size = size.to_vec();
        let model = build_classifier(&config, 5);
        assert_eq!(
            (model.task(), model.num_classes()),
            (Task::Classification, 5)
        );
        let names = all_taps(model.as_ref());
        assert_eq!(
            names,
            [
                "image",
                "stem.conv",
                "stem",
                "attn.b1",
                "backbone.b1",
                "attn.b2",
                "backbone.b2",
                "feat.last",
                "logits"
            ]
        );
        let request = request(true, &names, false);
        let forward = model.forward(&plain_weights(model.as_ref()), images(size), &request);
        for tap in model.taps() {
            let [rows, columns] = model.tap_size(tap, size);
            let got = forward.taps[&tap.name].dims();
            assert_eq!(got, [2, tap.channels, rows, columns], "{}", tap.name);
        }
        let tokens = 1 + (size[0] / 8) * (size[1] / 8);
        assert_eq!(forward.taps["attn.b2"].dims(), [2, 2, tokens, tokens]);
    }
}

#[test]
fn attention_is_a_distribution_over_the_tokens() {
    let model = build_classifier(&vit_config(), 5);
    let request = request(false, &["attn.b2"], false);
    let forward = model.forward(&plain_weights(model.as_ref()), images([32, 32]), &request);
    let attention = values(forward.taps["attn.b2"].clone());
    for row in attention.chunks(17) {
        let sum: f32 = row.iter().sum();
        assert!(
            (sum - 1.0).abs() < 1e-5 && row.iter().all(|a| *a > 0.0),
            "{row:?}"
        );
    }
}

#[test]
fn a_pass_stops_at_its_deepest_tap() {
    let model = build_classifier(&vit_config(), 5);
    let weights = plain_weights(model.as_ref());
    let all = request(false, &all_taps(model.as_ref()), false);
    let whole = model.forward(&weights, images([32, 32]), &all);
    for tap in all_taps(model.as_ref()) {
        let request = request(false, &[tap], true);
        let forward = model.forward(&weights, images([32, 32]), &request);
        assert!(forward.output.is_none(), "{tap}");
        assert_eq!(
            values(forward.taps[tap].clone()),
            values(whole.taps[tap].clone()),
            "{tap}"
        );
    }
}

#[test]
fn it_starts_as_timms() {
    let mut config = vit_config();
    config.vit.dim = 48;
    config.vit.patch_size = 4;
    let model = build_classifier(&config, 30);
    let state = initial_state(model.as_ref(), 1);
    let spread = |name: &str| {
        let data = &state.entries[name].data;
        (data.iter().map(|w| f64::from(w * w)).sum::<f64>() / data.len() as f64).sqrt()
    };
    for (name, std, tolerance) in [
        ("blocks.1.attn.qkv.weight", 0.02, 0.05),
        ("blocks.0.mlp.fc2.weight", 0.02, 0.05),
        ("head.weight", 0.02, 0.1),
        ("pos_embed", 0.02, 0.1),
        ("cls_token", 1e-6, 0.4),
        // Uniform between -1 and 1 over the root of 48.
        (
            "patch_embed.proj.weight",
            (1.0f64 / 48.0 / 3.0).sqrt(),
            0.05,
        ),
    ] {
        assert!(
            (spread(name) / std - 1.0).abs() < tolerance,
            "{name}: {}",
            spread(name)
        );
    }
    for spec in model.specs() {
        let data = &state.entries[&spec.name].data;
        match spec.kind {
            ParamKind::NormWeight => assert!(data.iter().all(|&w| w == 1.0), "{}", spec.name),
            ParamKind::NormBias => assert!(data.iter().all(|&w| w == 0.0), "{}", spec.name),
            ParamKind::Bias if spec.name != "patch_embed.proj.bias" => {
                assert_eq!(spec.init, Init::Constant(0.0), "{}", spec.name);
            }
            _ => assert!(data.iter().all(|&w| w != 0.0), "{}", spec.name),
        }
        let is_head = spec.name.starts_with("head.");
        assert_eq!(spec.part == Part::Head, is_head, "{}", spec.name);
        assert!(spec.trainable && !spec.kind.is_buffer(), "{}", spec.name);
    }
    let kind = |name: &str| model.specs().iter().find(|s| s.name == name).unwrap().kind;
    assert_eq!(kind("cls_token"), ParamKind::Token);
    assert_eq!(kind("pos_embed"), ParamKind::Positions { grid: [8, 8] });
}

#[test]
fn what_makes_no_sense_is_refused_by_its_key() {
    type Change = fn(&mut ModelConfig);
    let cases: [(&str, Change); 10] = [
        ("vit.patch_size", |c| c.vit.patch_size = 0),
        ("vit.depth", |c| c.vit.depth = 0),
        ("vit.heads", |c| c.vit.heads = 0),
        ("vit.dim", |c| c.vit.dim = 15),
        ("vit.mlp_ratio", |c| c.vit.mlp_ratio = 0.01),
        ("vit.mlp_ratio", |c| c.vit.mlp_ratio = f64::NAN),
        ("trainable_layers", |c| c.trainable_layers = 3),
        ("vit.image_size", |c| c.vit.image_size = vec![]),
        ("vit.image_size", |c| c.vit.image_size = vec![0, 32]),
        ("vit.image_size", |c| c.vit.image_size = vec![32, 7]),
    ];
    for (key, change) in cases {
        let mut config = vit_config();
        change(&mut config);
        match crate::model::build(&config, Task::Classification, 2) {
            Err(ModelError::Config { key: got, .. }) => assert_eq!(got, key),
            Err(other) => panic!("{key}: {other}"),
            Ok(_) => panic!("{key}: built"),
        }
    }
}

#[test]
#[should_panic(expected = "positions are those of [32, 32] images, got 40x32")]
fn images_of_another_size_are_refused() {
    let model = build_classifier(&vit_config(), 2);
    let weights = plain_weights(model.as_ref());
    let _ = model.forward(&weights, images([40, 32]), &request(false, &[], false));
}

/// A file of another grid, whose header says which; a square of so many cells would be another.
#[test]
fn the_header_of_a_file_says_its_grid() {
    let built = |size: [usize; 2]| {
        let mut config = vit_config();
        config.vit.image_size = size.to_vec();
        let model = build_classifier(&config, 2);
        (config, model)
    };
    let (config, model) = built([32, 72]);
    let mut file = initial_state(model.as_ref(), 1);
    let header = serde_json::to_string(&config).unwrap();
    file.metadata.insert(weights::MODEL_ENTRY.into(), header);
    let load = |size: [usize; 2]| {
        let (_, model) = built(size);
        let mut state = initial_state(model.as_ref(), 2);
        let report = weights::load_into(&mut state, model.as_ref(), &file).unwrap();
        (state.entries["pos_embed"].clone(), report)
    };
    let (same, report) = load([32, 72]);
    assert!(report.is_complete(), "{report}");
    assert_eq!(same, file.entries["pos_embed"]);
    // As many cells, elsewhere.
    let (turned, report) = load([72, 32]);
    assert_eq!(report.resized.len(), 1, "{report}");
    assert_ne!(turned, same);
    let (larger, report) = load([64, 144]);
    assert_eq!(report.resized.len(), 1, "{report}");
    assert_eq!(larger.shape, [1, 1 + 8 * 18, 16]);
    // Neither a square nor with a header.
    file.metadata.clear();
    let (_, model) = built([32, 40]);
    let file = initial_state(model.as_ref(), 1);
    let (_, model) = built([32, 32]);
    let mut state = initial_state(model.as_ref(), 2);
    let before = state.entries["pos_embed"].clone();
    let report = weights::load_into(&mut state, model.as_ref(), &file).unwrap();
    assert_eq!(report.mismatched[0].name, "pos_embed");
    assert_eq!(state.entries["pos_embed"], before);
}

/// A teacher's checkpoint has to fit as it is.
#[test]
fn tensors_are_not_resized() {
    let state = initial_state(build_classifier(&vit_config(), 2).as_ref(), 1);
    let mut config = vit_config();
    config.vit.image_size = vec![64, 64];
    let model = build_classifier(&config, 2);
    let error = weights::tensors(model.as_ref(), &state, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("pos_embed"), "{error}");
}

/// Images in bf16 make the layers compute in it; taps, logits and gradients are f32.
#[test]
fn half_precision_is_near() {
    let model = build_classifier(&vit_config(), 5);
    let plain = plain_weights(model.as_ref());
    let run = |precision| {
        let leaves = student_weights(model.as_ref(), plain.clone());
        let images = ops::in_precision(images([32, 32]), precision);
        let request = request(true, &all_taps(model.as_ref()), false);
        let forward = model.forward(&leaves, images, &request);
        for (name, tap) in &forward.taps {
            assert_eq!(tap.dtype(), DType::F32, "{name}");
        }
        let logits = forward.class_logits().unwrap().clone();
        assert_eq!(logits.dtype(), DType::F32);
        let gradients = logits.clone().square().sum().backward();
        let gradient = leaves[0].grad(&gradients).unwrap();
        (values(logits.inner()), values(gradient))
    };
    let ((full, d_full), (half, d_half)) = (run(Precision::F32), run(Precision::Bf16));
    // Eight bits of a number: 4e-3 a layer.
    check(format_args!("logits"), error(&half, &full), 0.03);
    check(format_args!("gradient"), error(&d_half, &d_full), 0.05);
    assert_ne!(half, full);
}

#[test]
fn the_form_for_other_devices_agrees() {
    let model = build_classifier(&vit_config(), 5);
    let weights = plain_weights(model.as_ref());
    let run = |on_operations| {
        with_operations(on_operations, || {
            let leaves = student_weights(model.as_ref(), weights.clone());
            let request = request(true, &[], false);
            let forward = model.forward(&leaves, images([32, 32]), &request);
            let logits = forward.class_logits().unwrap().clone();
            let gradients = logits.clone().square().sum().backward();
            let all = leaves
                .iter()
                .map(|leaf| values(leaf.grad(&gradients).unwrap()));
            std::iter::once(values(logits.inner()))
                .chain(all)
                .collect::<Vec<_>>()
        })
    };
    for (i, (ours, theirs)) in run(false).iter().zip(run(true)).enumerate() {
        check(format_args!("{i}"), error(ours, &theirs), 1e-5);
    }
}
