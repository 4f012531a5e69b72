//! Convolutional classifiers against torchvision: `tests/golden/classification/make_convnet_golden.py`
//! wrote the reference.

use super::reference::{Reference, listed_shapes, shapes};
use super::*;
use crate::model::backbone::BackboneKind;
use crate::model::convnet::ConvNet;
use crate::model::{initial_state, weights};

const CLASSES: usize = 3;

fn golden(file: &str, kind: BackboneKind) -> Reference {
    let load = |path: &str| StateDict::load(&golden_path(path)).unwrap();
    let file = load(&format!("classification/{file}.safetensors"));
    let mut state = below(&file, "state");
    if let BackboneKind::MobileNetV2(_) = kind {
        // The blocks are the segmenter's.
        let blocks = below(&load("segmentation/mobilenet.safetensors"), "state");
        for (name, array) in blocks.entries {
            if let Some(block) = name.strip_prefix("backbone.") {
                state.entries.insert(format!("features.{block}"), array);
            }
        }
    }
    let model = ConvNet::new(&small_config(), kind, CLASSES).unwrap();
    Reference::new(Box::new(model), &file, &state, file.clone())
}

fn goldens() -> [Reference; 3] {
    let resnet = |block, blocks| {
        BackboneKind::ResNet(Variant {
            block,
            blocks,
            width: 2,
        })
    };
    [
        golden("basic", resnet(BlockKind::Basic, [1, 2, 1, 1])),
        golden("bottleneck", resnet(BlockKind::Bottleneck, [1; 4])),
        golden("mobilenet_v2", BackboneKind::MobileNetV2(0.1)),
    ]
}

#[test]
fn evaluation_agrees_with_torchvision() {
    for golden in goldens() {
        golden.check_evaluation();
    }
}

#[test]
fn training_agrees_with_torchvision_and_returns_its_statistics() {
    for golden in goldens() {
        golden.check_training();
    }
}

#[test]
fn gradients_agree_with_torchvision() {
    for (golden, parameters) in goldens().into_iter().zip([35, 45, 100]) {
        let compared = golden
            .check_gradients(|forward| forward.class_logits().unwrap().clone().square().mean());
        assert!(compared >= parameters, "{compared}");
    }
}

#[test]
fn names_and_shapes_are_torchvisions() {
    for (backbone, width, name) in [
        ("resnet18", 1.0, "resnet18"),
        ("resnet50", 1.0, "resnet50"),
        ("mobilenet_v2", 0.35, "mobilenet_v2_0.35"),
        ("mobilenet_v2", 1.4, "mobilenet_v2_1.4"),
    ] {
        let config = ModelConfig {
            mobilenet_width: width,
            ..segmenter_config(backbone)
        };
        let model = build_classifier(&config, 7);
        let got = shapes(model.as_ref());
        assert_eq!(got, listed_shapes("classification", name), "{name}");
        // A whole file of torchvision's is taken as it is.
        let file = initial_state(model.as_ref(), 1);
        let mut state = initial_state(model.as_ref(), 2);
        let report = weights::load_into(&mut state, model.as_ref(), &file).unwrap();
        assert_eq!(report.matched, model.specs().len(), "{report}");
        assert_eq!(state.hash(), file.hash());
    }
}

/// Of a file with other classes everything but the linear layer is taken.
#[test]
fn weights_of_other_classes_fill_the_backbone() {
    for (backbone, head) in [("tiny", "fc"), ("mobilenet_v2", "classifier.1")] {
        let config = segmenter_config(backbone);
        let file = initial_state(build_classifier(&config, 10).as_ref(), 1);
        let model = build_classifier(&config, 4);
        let mut state = initial_state(model.as_ref(), 2);
        let report = weights::load_into(&mut state, model.as_ref(), &file).unwrap();
        let names: Vec<&str> = report.mismatched.iter().map(|m| m.name.as_str()).collect();
        let expected = ["weight", "bias"].map(|kind| format!("{head}.{kind}"));
        assert_eq!(names, expected, "{report}");
        assert_eq!(report.matched + 2, model.specs().len(), "{report}");
        assert!(report.missing.is_empty() && report.unexpected.is_empty());
    }
}
