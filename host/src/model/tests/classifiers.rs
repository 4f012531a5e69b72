//! Convolutional classifiers: sizes, taps, parts, starts, refusals.

use burn::tensor::Device;

use super::*;
use crate::model::{Init, ModelError, Part, map_size};

const BACKBONES: [&str; 3] = ["tiny", "resnet50", "mobilenet_v2"];

fn images(shape: [usize; 4]) -> Tensor<4> {
    let pixels = crate::kernels::testing::normal("classifier images", shape.iter().product());
    Tensor::from_data(TensorData::new(pixels, shape), &Device::flex())
}

#[test]
fn taps_have_the_announced_sizes_on_images_of_any_size() {
    for backbone in BACKBONES {
        let model = build_classifier(&segmenter_config(backbone), 5);
        let weights = started(model.as_ref());
        assert_eq!(model.size_divisor(), 1, "images are not padded");
        for size in [[64, 64], [37, 53], [14, 14], [1, 3]] {
            let [height, width] = size;
            let taps = all_taps(model.as_ref());
            let forward = model.forward(
                &weights,
                images([2, 3, height, width]),
                &request(false, &taps, false),
            );
            assert_eq!(forward.taps.len(), taps.len());
            for tap in model.taps() {
                let [h, w] = map_size(size, tap.stride);
                let got = forward.taps[&tap.name].dims();
                assert_eq!(got, [2, tap.channels, h, w], "{backbone}: {}", tap.name);
            }
            let logits = forward.class_logits().unwrap().clone();
            assert_eq!(logits.dims(), [2, 5]);
            assert_eq!(values(logits), values(forward.taps["logits"].clone()));
            assert_eq!(forward.taps["logits"].dims(), [2, 5, 1, 1]);
        }
        let names = all_taps(model.as_ref());
        let [first @ .., _, _, _, _, last, logits] = names.as_slice() else {
            panic!("{names:?}");
        };
        assert_eq!(first, ["image", "stem.conv", "stem"]);
        assert_eq!([*last, *logits], ["feat.last", "logits"]);
    }
}

#[test]
fn an_image_is_classified_by_itself() {
    for backbone in BACKBONES {
        let model = build_classifier(&segmenter_config(backbone), 5);
        let weights = started(model.as_ref());
        let request = request(false, &[], false);
        let both = images([2, 3, 37, 53]);
        let run = |images| {
            let forward = model.forward(&weights, images, &request);
            values(forward.class_logits().unwrap().clone())
        };
        let second = run(both.clone().narrow(0, 1, 1));
        let error = relative_error(&second, &run(both)[5..]);
        // Sums of other tiles.
        assert!(error < 1e-5, "{backbone}: {error:e}");
    }
}

#[test]
fn a_pass_that_stops_gives_the_same_taps_and_nothing_else() {
    for backbone in BACKBONES {
        let model = build_classifier(&segmenter_config(backbone), 5);
        assert_stopping_changes_nothing(model.as_ref(), images([2, 3, 32, 40]), backbone);
    }
}

/// A method's gradient at the tap of the logits is one of the output: they are one tensor.
#[test]
fn a_gradient_at_the_logits_is_the_outputs() {
    let model = build_classifier(&segmenter_config("tiny"), 5);
    let gradients = |of_tap: bool| {
        let leaves = student_weights(model.as_ref(), started(model.as_ref()));
        let request = request(true, &["logits"], false);
        let forward = model.forward(&leaves, images([2, 3, 37, 53]), &request);
        let tap = forward.taps["logits"].clone().square().sum();
        let output = forward.class_logits().unwrap().clone().square().sum();
        let gradients = if of_tap { tap } else { output }.backward();
        let all = leaves.iter().filter_map(|leaf| leaf.grad(&gradients));
        all.map(values).collect::<Vec<_>>()
    };
    assert_eq!(gradients(true), gradients(false));
}

#[test]
fn parts_are_backbone_and_linear_layer() {
    for (backbone, head) in [("tiny", "fc"), ("mobilenet_v2", "classifier.1")] {
        let model = build_classifier(&segmenter_config(backbone), 5);
        let specs = model.specs().iter();
        let of_head: Vec<&str> = specs
            .clone()
            .filter(|spec| spec.part == Part::Head)
            .map(|spec| spec.name.as_str())
            .collect();
        assert_eq!(
            of_head,
            ["weight", "bias"].map(|kind| format!("{head}.{kind}"))
        );
        assert!(specs.clone().all(|spec| spec.part != Part::Neck));
    }
}

#[test]
fn what_is_frozen_is_the_backbone_alone() {
    let trained = |backbone: &str, norm, layers| {
        let config = ModelConfig {
            norm,
            trainable_layers: layers,
            ..segmenter_config(backbone)
        };
        let model = build_classifier(&config, 5);
        let specs = model.specs().iter().filter(|spec| spec.trainable);
        specs.map(|spec| spec.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        trained("tiny", NormKind::Batch, 0),
        ["fc.weight", "fc.bias"]
    );
    assert_eq!(
        trained("mobilenet_v2", NormKind::Batch, 0),
        ["classifier.1.weight", "classifier.1.bias"]
    );
    let last = trained("mobilenet_v2", NormKind::Batch, 1);
    assert!(last.iter().any(|name| name == "features.18.0.weight"));
    assert!(last.iter().any(|name| name == "features.18.1.bias"));
    assert!(!last.iter().any(|name| name.starts_with("features.13.")));
    let frozen = trained("mobilenet_v2", NormKind::FrozenBatch, 5);
    assert!(frozen.iter().any(|name| name == "features.18.0.weight"));
    assert!(!frozen.iter().any(|name| name == "features.18.1.bias"));
    let stem = trained("tiny", NormKind::FrozenBatch, 5);
    assert_eq!(stem[0], "conv1.weight");
    assert!(!stem.iter().any(|name| name.contains("bn")));
}

#[test]
fn the_linear_layer_starts_as_torchvisions() {
    let init = |backbone: &str, name: &str| {
        let model = build_classifier(&segmenter_config(backbone), 5);
        let spec = model.specs().iter().find(|spec| spec.name == name);
        spec.unwrap().init
    };
    // c5 of a width of 4 has 32 channels.
    for name in ["fc.weight", "fc.bias"] {
        let Init::Uniform { bound } = init("tiny", name) else {
            panic!("{:?}", init("tiny", name));
        };
        assert!((bound - 1.0 / 32f32.sqrt()).abs() < 1e-7, "{bound}");
    }
    assert_eq!(
        init("mobilenet_v2", "classifier.1.weight"),
        Init::Normal { std: 0.01 }
    );
    assert_eq!(
        init("mobilenet_v2", "classifier.1.bias"),
        Init::Constant(0.0)
    );
    assert_eq!(
        init("mobilenet_v2", "features.18.0.weight"),
        Init::KaimingNormalFanOut
    );
}

#[test]
fn bad_configurations_name_their_key() {
    type Spoil = fn(&mut ModelConfig);
    let cases: [(&str, Spoil); 3] = [
        ("backbone", |c| c.backbone = "resnet20".into()),
        ("mobilenet_width", |c| c.mobilenet_width = -1.0),
        ("trainable_layers", |c| c.trainable_layers = 6),
    ];
    for (expected, spoil) in cases {
        let mut config = segmenter_config("mobilenet_v2");
        spoil(&mut config);
        match crate::model::build(&config, Task::Classification, 5).err() {
            Some(ModelError::Config { key, reason }) => assert_eq!(key, expected, "{reason}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let config = ModelConfig {
        classifier: "perceptron".into(),
        ..small_config()
    };
    let error = crate::model::build(&config, Task::Classification, 5).err();
    let message = error.unwrap().to_string();
    assert!(
        message.contains("`perceptron`") && message.contains("convnet"),
        "{message}"
    );
}
