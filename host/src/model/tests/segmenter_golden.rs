//! Segmenters against PyTorch and torchvision: `tests/golden/segmentation/make_segmentation_golden.py`
//! wrote the reference.

use super::reference::{Reference, listed_shapes, shapes};
use super::*;
use crate::model::backbone::BackboneKind;
use crate::model::deeplab::DeepLab;
use crate::model::weights;

fn golden(file: &str, config: &ModelConfig, kind: BackboneKind, below_: Option<&str>) -> Reference {
    let path = golden_path(&format!("segmentation/{file}.safetensors"));
    let file = StateDict::load(&path).unwrap();
    let model = DeepLab::new(config, kind, 3).unwrap();
    let entries = match below_ {
        Some(prefix) => below(&file, prefix),
        None => file.clone(),
    };
    Reference::new(Box::new(model), &file, &below(&file, "state"), entries)
}

fn deeplab_resnet() -> Reference {
    let mut config = segmenter_config("tiny");
    config.deeplab.aspp_channels = 4;
    let variant = Variant {
        block: BlockKind::Bottleneck,
        blocks: [1, 1, 2, 2],
        width: 2,
    };
    golden(
        "deeplab_resnet",
        &config,
        BackboneKind::ResNet(variant),
        None,
    )
}

fn mobilenet(output_stride: usize) -> Reference {
    let mut config = segmenter_config("mobilenet_v2");
    config.deeplab.aspp = false;
    config.deeplab.output_stride = output_stride;
    let below = output_stride.to_string();
    let kind = BackboneKind::MobileNetV2(0.1);
    golden("mobilenet", &config, kind, Some(&below))
}

#[test]
fn evaluation_agrees_with_torch() {
    for golden in [deeplab_resnet(), mobilenet(16), mobilenet(8)] {
        golden.check_evaluation();
    }
}

#[test]
fn training_agrees_with_torch_and_returns_its_statistics() {
    for golden in [deeplab_resnet(), mobilenet(8)] {
        golden.check_training();
    }
}

#[test]
fn gradients_agree_with_torch() {
    for golden in [deeplab_resnet(), mobilenet(8)] {
        let compared = golden.check_gradients(|forward| {
            let logits = forward.output.unwrap().segmentation().unwrap().clone();
            logits.square().mean()
        });
        assert!(compared > 80, "{compared}");
    }
}

#[test]
fn names_and_shapes_are_torchvisions() {
    let listed = |name| listed_shapes("segmentation", name);
    let mut config = segmenter_config("resnet50");
    config.deeplab.aspp_channels = 256;
    let model = build_segmenter(&config, 21);
    assert_eq!(shapes(model.as_ref()), listed("deeplabv3_resnet50"));
    for (width, name) in [(0.35, "mobilenet_v2_0.35"), (1.0, "mobilenet_v2_1.0")] {
        let mut config = segmenter_config("mobilenet_v2");
        config.mobilenet_width = width;
        let mut got = shapes(build_segmenter(&config, 21).as_ref());
        got.retain(|name, _| name.starts_with("backbone."));
        assert_eq!(got, listed(name), "{width}");
    }
}

/// A file of torchvision's classifier fills the backbone.
#[test]
fn a_bare_classifier_fills_the_backbone() {
    for (backbone, prefix) in [("tiny", ""), ("mobilenet_v2", "features.")] {
        let model = build_segmenter(&segmenter_config(backbone), 3);
        let state = crate::model::initial_state(model.as_ref(), 1);
        let bare = state.entries.iter().filter_map(|(name, array)| {
            let rest = name.strip_prefix("backbone.")?;
            Some((format!("{prefix}{rest}"), array.clone()))
        });
        let bare = StateDict {
            entries: bare.collect(),
            ..StateDict::default()
        };
        let mut filled = crate::model::initial_state(model.as_ref(), 2);
        let report = weights::load_into(&mut filled, model.as_ref(), &bare).unwrap();
        assert_eq!(report.matched, bare.entries.len(), "{report}");
        assert!(report.unexpected.is_empty(), "{report}");
        assert!(
            report
                .missing
                .iter()
                .all(|name| name.starts_with("classifier."))
        );
    }
}
