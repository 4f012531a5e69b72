//! Segmenters: sizes, taps, parts, names, refusals.

use burn::tensor::Device;

use super::*;
use crate::model::{Init, ModelError, ParamKind, Part, build_detector, initial_state, map_size};

const BACKBONES: [&str; 3] = ["tiny", "resnet50", "mobilenet_v2"];

fn images(shape: [usize; 4]) -> Tensor<4> {
    let pixels = crate::kernels::testing::normal("segmenter images", shape.iter().product());
    Tensor::from_data(TensorData::new(pixels, shape), &Device::flex())
}

#[test]
fn taps_have_the_announced_sizes_at_every_output_stride() {
    for backbone in BACKBONES {
        for output_stride in [16, 8, 4] {
            for aspp in [true, false] {
                let mut config = segmenter_config(backbone);
                config.deeplab.output_stride = output_stride;
                config.deeplab.aspp = aspp;
                let model = build_segmenter(&config, 5);
                // Odd, and no multiple of any stride: 513 of DeepLab in small.
                let shape = [2, 3, 33, 49];
                let taps = all_taps(model.as_ref());
                let request = request(false, &taps, false);
                let forward = model.forward(&started(model.as_ref()), images(shape), &request);
                assert_eq!(forward.taps.len(), taps.len());
                assert_eq!(taps.contains(&"aspp"), aspp);
                for tap in model.taps() {
                    let [h, w] = map_size([33, 49], tap.stride);
                    let got = forward.taps[&tap.name].dims();
                    let what = format!("{backbone}, {output_stride}, {aspp}: {}", tap.name);
                    assert_eq!(got, [2, tap.channels, h, w], "{what}");
                }
                let stride = |name: &str| {
                    let tap = model.taps().iter().find(|tap| tap.name == name);
                    tap.unwrap().stride
                };
                assert_eq!(stride("logits"), output_stride);
                assert_eq!(stride("backbone.c2"), 4);
                assert_eq!(stride("backbone.c3"), output_stride.min(8));
                let logits = forward.output.unwrap();
                let logits = logits.segmentation().unwrap().clone();
                assert_eq!(values(logits), values(forward.taps["logits"].clone()));
            }
        }
    }
}

#[test]
fn a_pass_that_stops_gives_the_same_taps_and_nothing_else() {
    for backbone in BACKBONES {
        for aspp in [true, false] {
            let mut config = segmenter_config(backbone);
            config.deeplab.aspp = aspp;
            let model = build_segmenter(&config, 5);
            assert_stopping_changes_nothing(model.as_ref(), images([2, 3, 32, 40]), backbone);
        }
    }
}

#[test]
fn parts_are_backbone_aspp_and_classifier() {
    for backbone in BACKBONES {
        let mut config = segmenter_config(backbone);
        let model = build_segmenter(&config, 5);
        for spec in model.specs() {
            let part = if spec.name.starts_with("backbone.") {
                Part::Backbone
            } else if spec.name.starts_with("classifier.0.") {
                Part::Neck
            } else {
                assert!(spec.name.starts_with("classifier."), "{}", spec.name);
                Part::Head
            };
            assert_eq!(spec.part, part, "{}", spec.name);
        }
        config.deeplab.aspp = false;
        let model = build_segmenter(&config, 5);
        let head = model.specs().iter().filter(|s| s.part != Part::Backbone);
        let head: Vec<&str> = head.map(|spec| spec.name.as_str()).collect();
        assert_eq!(head, ["classifier.weight", "classifier.bias"]);
    }
}

#[test]
fn what_is_frozen_is_the_backbone_alone() {
    for backbone in BACKBONES {
        for (norm, layers) in [
            (NormKind::Batch, 5),
            (NormKind::FrozenBatch, 5),
            (NormKind::Batch, 2),
        ] {
            let config = ModelConfig {
                norm,
                trainable_layers: layers,
                ..segmenter_config(backbone)
            };
            let model = build_segmenter(&config, 5);
            for spec in model.specs() {
                let is_norm = matches!(spec.kind, ParamKind::NormWeight | ParamKind::NormBias);
                let fixed = spec.part == Part::Backbone
                    && (stage(&spec.name) > layers || (is_norm && norm == NormKind::FrozenBatch));
                let learns = !spec.kind.is_buffer() && !fixed;
                assert_eq!(spec.trainable, learns, "{norm:?}, {layers}: {}", spec.name);
            }
        }
    }
}

/// Of a backbone's parameter, counted from the last: the stem is the fifth.
fn stage(name: &str) -> usize {
    let part = name.split('.').nth(1).unwrap();
    match part.parse::<usize>() {
        // MobileNetV2's blocks.
        Ok(0 | 1) => 5,
        Ok(2..=3) => 4,
        Ok(4..=6) => 3,
        Ok(7..=13) => 2,
        Ok(_) => 1,
        Err(_) => part
            .strip_prefix("layer")
            .map_or(5, |n| 5 - n.parse::<usize>().unwrap()),
    }
}

#[test]
fn a_single_image_cannot_train_the_aspp() {
    let model = build_segmenter(&segmenter_config("tiny"), 5);
    let weights = started(model.as_ref());
    let run = |training: bool| {
        let request = request(training, &[], false);
        model.forward(&weights, images([1, 3, 32, 32]), &request)
    };
    assert!(run(false).output.is_some());
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(true)));
    let panic = panic.expect_err("one value a channel has no variance");
    let message = panic.downcast_ref::<&str>().unwrap();
    assert!(message.contains("`data.batch_size`"), "{message}");
}

#[test]
fn bad_configurations_name_their_key() {
    type Spoil = fn(&mut ModelConfig);
    let cases: [(&str, Spoil); 6] = [
        ("backbone", |c| c.backbone = "resnet20".into()),
        ("mobilenet_width", |c| c.mobilenet_width = f64::NAN),
        ("mobilenet_width", |c| c.mobilenet_width = 0.0),
        ("deeplab.aspp_channels", |c| c.deeplab.aspp_channels = 0),
        ("deeplab.atrous_rates", |c| {
            c.deeplab.atrous_rates = [1, 0, 2]
        }),
        ("deeplab.output_stride", |c| c.deeplab.output_stride = 32),
    ];
    for (expected, spoil) in cases {
        let mut config = segmenter_config("mobilenet_v2");
        spoil(&mut config);
        match crate::model::build(&config, Task::Segmentation, 5).err() {
            Some(ModelError::Config { key, reason }) => assert_eq!(key, expected, "{reason}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
    match build_detector(&segmenter_config("mobilenet_v2"), 5).err() {
        Some(ModelError::Config { key, reason }) => {
            assert_eq!(key, "backbone");
            assert!(reason.contains("segmenters and classifiers"), "{reason}");
        }
        other => panic!("a detector on MobileNetV2: {other:?}"),
    }
}

#[test]
fn layers_behind_the_backbone_start_as_torchs_own() {
    let model = build_segmenter(&segmenter_config("tiny"), 5);
    let init = |name: &str| {
        let spec = model.specs().iter().find(|spec| spec.name == name);
        spec.unwrap().init
    };
    let uniform = |fan_in: usize| Init::Uniform {
        bound: (1.0 / fan_in as f32).sqrt(),
    };
    // c5 has 32 channels, the ASPP 8.
    for (name, fan_in) in [
        ("classifier.0.convs.0.0.weight", 32),
        ("classifier.0.convs.2.0.weight", 32 * 9),
        ("classifier.0.project.0.weight", 5 * 8),
        ("classifier.1.weight", 8 * 9),
        ("classifier.4.weight", 8),
        ("classifier.4.bias", 8),
    ] {
        let (Init::Uniform { bound }, Init::Uniform { bound: want }) =
            (init(name), uniform(fan_in))
        else {
            panic!("{name}: {:?}", init(name));
        };
        assert!((bound / want - 1.0).abs() < 1e-6, "{name}: {bound}");
    }
    let state = initial_state(model.as_ref(), 1);
    let weight = &state.entries["classifier.1.weight"].data;
    let bound = 1.0 / 72f32.sqrt();
    let largest = weight.iter().fold(0f32, |largest, w| largest.max(w.abs()));
    assert!((0.95 * bound..=bound).contains(&largest), "{largest}");
    assert_eq!(init("backbone.conv1.weight"), Init::KaimingNormalFanOut);
}
