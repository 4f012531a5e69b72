//! Names, shapes, initial values, configuration errors, the tap table.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::{
    Init, ModelError, ParamKind, Part, TapRow, build_detector, initial_state, tap_table,
};

fn keys() -> serde_json::Value {
    let text = std::fs::read_to_string(golden_path("model/keys.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn full_size(backbone: &str, norm: NormKind, trainable_layers: usize) -> Box<dyn Detector> {
    let config = ModelConfig {
        backbone: backbone.into(),
        fpn_channels: 256,
        head_convs: 4,
        anchor_scales: vec![1.0, 1.26, 1.587],
        norm,
        trainable_layers,
        ..small_config()
    };
    build_detector(&config, 91).unwrap()
}

#[test]
fn names_and_shapes_are_torchvisions() {
    let keys = keys();
    for backbone in ["resnet18", "resnet34", "resnet50", "resnet101"] {
        let expected: BTreeMap<String, String> =
            serde_json::from_value(keys[backbone].clone()).unwrap();
        let detector = full_size(backbone, NormKind::Batch, 5);
        assert_eq!(shapes(detector.as_ref()), expected, "{backbone}");
    }
}

/// Shape of every parameter and buffer as `64x3x7x7`.
fn shapes(detector: &dyn Detector) -> BTreeMap<String, String> {
    let shapes: BTreeMap<String, String> = detector
        .specs()
        .iter()
        .map(|spec| {
            let extents: Vec<String> = spec.shape.iter().map(ToString::to_string).collect();
            (spec.name.clone(), extents.join("x"))
        })
        .collect();
    assert_eq!(shapes.len(), detector.specs().len(), "a name stands twice");
    shapes
}

#[test]
fn names_and_shapes_of_fcos_are_torchvisions() {
    let text = std::fs::read_to_string(golden_path("fcos/keys.json")).unwrap();
    let listed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let head: BTreeMap<String, String> = serde_json::from_value(listed["head"].clone()).unwrap();
    for backbone in ["resnet18", "resnet34", "resnet50", "resnet101"] {
        let mut expected: BTreeMap<String, String> =
            serde_json::from_value(keys()[backbone].clone()).unwrap();
        expected.retain(|name, _| !name.starts_with("head."));
        expected.extend(head.clone());
        let config = ModelConfig {
            detector: "fcos".into(),
            backbone: backbone.into(),
            fpn_channels: 256,
            head_convs: 4,
            fcos: FcosConfig {
                norm_groups: 32,
                ..small_config().fcos
            },
            ..small_config()
        };
        assert_eq!(
            shapes(build_detector(&config, 91).unwrap().as_ref()),
            expected
        );
    }
}

#[test]
fn trainable_layers_are_torchvisions() {
    let keys = keys();
    for (norm, kind) in [
        ("batch", NormKind::Batch),
        ("frozen_batch", NormKind::FrozenBatch),
    ] {
        for layers in 0..=5 {
            let listed = keys["resnet18_trained"][format!("{norm}.{layers}")].clone();
            let expected: BTreeSet<String> = serde_json::from_value(listed).unwrap();
            let detector = full_size("resnet18", kind, layers);
            let trained: BTreeSet<String> = detector
                .specs()
                .iter()
                .filter(|spec| spec.trainable && !spec.name.starts_with("head."))
                .map(|spec| spec.name.clone())
                .collect();
            assert_eq!(trained, expected, "{norm}, {layers} layers");
            assert!(
                detector
                    .specs()
                    .iter()
                    .all(|spec| !(spec.kind.is_buffer() && spec.trainable))
            );
        }
    }
}

#[test]
fn initial_values_follow_their_distributions() {
    for name in DETECTORS {
        let config = ModelConfig {
            detector: name.into(),
            tiny_width: 16,
            fpn_channels: 64,
            ..small_config()
        };
        let detector = build_detector(&config, 3).unwrap();
        let state = initial_state(detector.as_ref(), 11);
        for spec in detector.specs() {
            let data = &state.entries[&spec.name].data;
            let count = data.len() as f64;
            let mean = data.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
            let square = data.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / count;
            let (variance, kurtosis) = match spec.init {
                Init::Constant(value) => {
                    assert!(data.iter().all(|v| *v == value), "{}", spec.name);
                    continue;
                }
                Init::Normal { std } => (f64::from(std).powi(2), 3.0),
                Init::Uniform { bound } => {
                    let bound = f64::from(bound);
                    assert!(data.iter().all(|v| f64::from(v.abs()) <= bound));
                    (bound * bound / 3.0, 1.8)
                }
                Init::KaimingNormalFanOut => {
                    let fan_out = (spec.shape[0] * spec.shape[2] * spec.shape[3]) as f64;
                    (2.0 / fan_out, 3.0)
                }
                Init::KaimingUniformFanIn => {
                    let fan_in = (spec.shape[1] * spec.shape[2] * spec.shape[3]) as f64;
                    let bound = (3.0 / fan_in).sqrt();
                    assert!(data.iter().all(|v| f64::from(v.abs()) <= bound));
                    (bound * bound / 3.0, 1.8)
                }
            };
            // Five standard errors of the mean and of the mean square.
            assert!(
                mean.abs() < 5.0 * (variance / count).sqrt(),
                "{}",
                spec.name
            );
            let spread = 5.0 * variance * ((kurtosis - 1.0) / count).sqrt();
            assert!((square - variance).abs() < spread, "{}", spec.name);
        }
        let prior = &state.entries["head.classification_head.cls_logits.bias"].data;
        let probability = 1.0 / (1.0 + (-f64::from(prior[0])).exp());
        assert!((probability - 0.01).abs() < 1e-7);
    }
}

#[test]
fn a_parameter_starts_the_same_whatever_stands_beside_it() {
    let shallow = build_detector(&small_config(), 3).unwrap();
    let config = ModelConfig {
        head_convs: 3,
        tiny_blocks: [1, 2, 1, 1],
        ..small_config()
    };
    let deep = build_detector(&config, 3).unwrap();
    let (few, many) = (
        initial_state(shallow.as_ref(), 5),
        initial_state(deep.as_ref(), 5),
    );
    assert!(many.entries.len() > few.entries.len());
    for (name, array) in &few.entries {
        assert_eq!(array, &many.entries[name], "{name}");
    }
    assert_ne!(few.hash(), initial_state(shallow.as_ref(), 6).hash());
    // Two parameters of one shape and distribution differ all the same.
    assert_ne!(
        few.entries["head.classification_head.conv.0.0.weight"],
        few.entries["head.regression_head.conv.0.0.weight"]
    );
}

#[test]
fn a_bad_configuration_names_its_key() {
    type Spoil = fn(&mut ModelConfig);
    let cases: [(&str, Spoil); 12] = [
        ("backbone", |c| c.backbone = "resnet20".into()),
        ("tiny_width", |c| c.tiny_width = 0),
        ("tiny_blocks", |c| c.tiny_blocks = [1, 0, 1, 1]),
        ("trainable_layers", |c| c.trainable_layers = 6),
        ("anchor_scales", |c| c.anchor_scales = vec![]),
        ("anchor_ratios", |c| c.anchor_ratios = vec![1.0, f32::NAN]),
        ("focal_gamma", |c| c.focal_gamma = -1.0),
        ("nms_threshold", |c| c.nms_threshold = f32::NAN),
        ("bg_iou_threshold", |c| c.bg_iou_threshold = 0.6),
        ("fcos.base_size", |c| c.fcos.base_size = 1),
        ("fcos.center_sampling_radius", |c| {
            c.fcos.center_sampling_radius = f32::NAN;
        }),
        ("fcos.norm_groups", |c| {
            c.detector = "fcos".into();
            c.fcos.norm_groups = 3;
        }),
    ];
    for (expected, spoil) in cases {
        let mut config = small_config();
        spoil(&mut config);
        match build_detector(&config, 3).err() {
            Some(ModelError::Config { key, reason }) => {
                assert_eq!(key, expected, "{reason}");
                if key == "backbone" {
                    assert!(reason.contains("resnet18"), "{reason}");
                }
                if key == "fcos.norm_groups" {
                    assert!(reason.contains("`fpn_channels`, which is 8"), "{reason}");
                }
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert!(matches!(
        build_detector(&small_config(), 0),
        Err(ModelError::NoClasses)
    ));
    let config = ModelConfig {
        detector: "yolo".into(),
        ..small_config()
    };
    let message = build_detector(&config, 3).err().unwrap().to_string();
    assert!(message.contains("known: fcos, retinanet"), "{message}");
}

#[test]
fn the_tap_table_sets_both_models_side_by_side() {
    let student = build_detector(&small_config(), 3).unwrap();
    let teacher = full_size("resnet50", NormKind::Batch, 5);
    let rows = tap_table(student.as_ref(), Some(teacher.as_ref()), [240, 320]);
    assert_eq!(rows.len(), 7 + 5 + 4 * 5);
    let row = rows.iter().find(|row| row.name == "backbone.c5").unwrap();
    let (s, t) = (row.student.clone().unwrap(), row.teacher.clone().unwrap());
    assert_eq!((s.channels, s.size, s.stride), (32, [8, 10], 32));
    assert_eq!((t.channels, t.size, t.stride), (2048, [8, 10], 32));
    let fcos = ModelConfig {
        detector: "fcos".into(),
        ..small_config()
    };
    let fcos = build_detector(&fcos, 3).unwrap();
    let rows = tap_table(student.as_ref(), Some(fcos.as_ref()), [240, 320]);
    let both = |row: &&TapRow| row.student.is_some() && row.teacher.is_some();
    assert_eq!(rows.iter().filter(both).count(), 7 + 5 + 4 * 5);
    let row = rows.last().unwrap();
    assert_eq!(
        (row.name.as_str(), &row.student),
        ("head.centerness.p7", &None)
    );
    assert_eq!(row.teacher.as_ref().unwrap().channels, 1);
    assert!(
        tap_table(student.as_ref(), None, [240, 320])
            .iter()
            .all(|row| row.teacher.is_none() && row.student.is_some())
    );
}

#[test]
fn kinds_tell_weights_from_norms_and_buffers() {
    let detector = build_detector(&small_config(), 3).unwrap();
    let kind = |name: &str| {
        let spec = detector.specs().iter().find(|spec| spec.name == name);
        spec.unwrap().kind
    };
    for (name, expected) in [
        ("backbone.body.conv1.weight", ParamKind::Weight),
        ("backbone.body.bn1.weight", ParamKind::NormWeight),
        (
            "backbone.body.layer2.0.downsample.1.bias",
            ParamKind::NormBias,
        ),
        ("backbone.body.bn1.running_var", ParamKind::RunningVar),
        ("head.regression_head.bbox_reg.bias", ParamKind::Bias),
    ] {
        assert_eq!(kind(name), expected, "{name}");
    }
    let config = ModelConfig {
        detector: "fcos".into(),
        ..small_config()
    };
    let detector = build_detector(&config, 3).unwrap();
    for (name, expected) in [
        ("conv.0.weight", ParamKind::Weight),
        ("conv.0.bias", ParamKind::Bias),
        ("conv.1.weight", ParamKind::NormWeight),
        ("conv.4.bias", ParamKind::NormBias),
        ("bbox_ctrness.bias", ParamKind::Bias),
    ] {
        let name = format!("head.regression_head.{name}");
        let spec = detector.specs().iter().find(|spec| spec.name == name);
        let spec = spec.unwrap();
        assert_eq!((spec.kind, spec.part), (expected, Part::Head), "{name}");
        assert!(spec.trainable);
    }
}
