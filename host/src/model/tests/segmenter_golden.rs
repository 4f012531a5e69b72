//! Segmenters against PyTorch and torchvision: `tests/golden/segmentation/make_segmentation_golden.py`
//! wrote the reference.

use std::collections::BTreeMap;

use burn::tensor::Device;

use super::*;
use crate::kernels::testing::dot;
use crate::model::backbone::BackboneKind;
use crate::model::deeplab::DeepLab;
use crate::model::weights;

/// f32 convolutions sum in another order than torch's: some 1e-7 a layer, over 50 layers, and a
/// normalisation by the statistics of two values (the pooled branch) amplifies it.
const TOLERANCE: f64 = 2e-5;
/// Gradients pass every layer twice.
const GRADIENT_TOLERANCE: f64 = 2e-4;
/// What rounding leaves of a gradient that vanishes, against the largest of all gradients.
const VANISHING: f64 = 1e-5;

struct Golden {
    /// Entries of this output stride.
    reference: StateDict,
    image: Tensor<4>,
    model: DeepLab,
    weights: Vec<Tensor<1>>,
}

fn golden(file: &str, config: &ModelConfig, kind: BackboneKind, below_: Option<&str>) -> Golden {
    let path = golden_path(&format!("segmentation/{file}.safetensors"));
    let file = StateDict::load(&path).unwrap();
    let model = DeepLab::new(config, kind, 3).unwrap();
    let device = Device::flex();
    let mut state = StateDict::default();
    weights::load_into(&mut state, &model, &below(&file, "state"))
        .unwrap()
        .strict()
        .unwrap();
    let weights = weights::tensors(&model, &state, &device).unwrap();
    Golden {
        image: map(&file.entries["image"], &device),
        reference: match below_ {
            Some(prefix) => below(&file, prefix),
            None => file,
        },
        model,
        weights,
    }
}

fn deeplab_resnet() -> Golden {
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

fn mobilenet(output_stride: usize) -> Golden {
    let mut config = segmenter_config("mobilenet_v2");
    config.deeplab.aspp = false;
    config.deeplab.output_stride = output_stride;
    let below = output_stride.to_string();
    let kind = BackboneKind::MobileNetV2(0.1);
    golden("mobilenet", &config, kind, Some(&below))
}

impl Golden {
    fn compare(&self, mode: &str, taps: &BTreeMap<String, Tensor<4>>) {
        let reference = below(&self.reference, mode);
        // All taps but `image`, which is the input.
        assert_eq!(reference.entries.len(), self.model.taps().len() - 1);
        for (name, expected) in &reference.entries {
            let tap = &taps[name];
            assert_eq!(tap.dims().as_slice(), expected.shape, "{name}");
            let error = relative_error(&values(tap.clone()), &expected.data);
            assert!(
                error <= TOLERANCE,
                "{mode}/{name}: relative error {error:e}"
            );
        }
    }
}

#[test]
fn evaluation_agrees_with_torch() {
    for golden in [deeplab_resnet(), mobilenet(16), mobilenet(8)] {
        let request = request(false, &all_taps(&golden.model), false);
        let image = golden.image.clone();
        let forward = golden.model.forward(&golden.weights, image, &request);
        golden.compare("eval", &forward.taps);
        assert!(forward.batch_stats.is_empty());
    }
}

#[test]
fn training_agrees_with_torch_and_returns_its_statistics() {
    for golden in [deeplab_resnet(), mobilenet(8)] {
        let request = request(true, &all_taps(&golden.model), false);
        let image = golden.image.clone();
        let forward = golden.model.forward(&golden.weights, image, &request);
        golden.compare("train", &forward.taps);
        let specs = golden.model.specs();
        let buffers = specs.iter().filter(|spec| spec.kind.is_buffer()).count();
        assert_eq!(2 * forward.batch_stats.len(), buffers);
        for stats in forward.batch_stats {
            for (index, new) in [(stats.mean_index, stats.mean), (stats.var_index, stats.var)] {
                // torch's momentum: 0.1 of the new statistics.
                let running = golden.weights[index].clone() * 0.9 + new * 0.1;
                let name = &specs[index].name;
                let expected = &golden.reference.entries[&format!("after/{name}")];
                let error = relative_error(&values(running), &expected.data);
                assert!(error <= TOLERANCE, "{name}: relative error {error:e}");
            }
        }
    }
}

#[test]
fn gradients_agree_with_torch() {
    for golden in [deeplab_resnet(), mobilenet(8)] {
        let weights = student_weights(&golden.model, golden.weights.clone());
        let image = golden.image.clone();
        let forward = golden
            .model
            .forward(&weights, image, &request(true, &[], false));
        let logits = forward.output.unwrap().segmentation().unwrap().clone();
        let gradients = logits.square().mean().backward();
        let norm = |values: &[f32]| dot(values, values).sqrt();
        let reference = below(&golden.reference, "grad");
        let largest = reference.entries.values().map(|array| norm(&array.data));
        let largest = largest.fold(0.0, f64::max);
        let mut compared = 0;
        for (spec, weight) in golden.model.specs().iter().zip(&weights) {
            if !spec.trainable {
                assert!(spec.kind.is_buffer(), "{}", spec.name);
                continue;
            }
            let expected = &reference.entries[&spec.name];
            let gradient = values(weight.grad(&gradients).unwrap());
            if expected.data.iter().all(|&g| g == 0.0) {
                let rest = norm(&gradient) / largest;
                assert!(rest <= VANISHING, "{}: {rest:e} is not nothing", spec.name);
                continue;
            }
            compared += 1;
            let error = relative_error(&gradient, &expected.data);
            assert!(
                error <= GRADIENT_TOLERANCE,
                "{}: relative error {error:e}",
                spec.name
            );
        }
        assert!(compared > 80, "{compared}");
    }
}

/// Shape of every parameter and buffer as `64x3x7x7`.
fn shapes(model: &dyn Model) -> BTreeMap<String, String> {
    let shapes = model.specs().iter().map(|spec| {
        let extents: Vec<String> = spec.shape.iter().map(ToString::to_string).collect();
        (spec.name.clone(), extents.join("x"))
    });
    shapes.collect()
}

#[test]
fn names_and_shapes_are_torchvisions() {
    let text = std::fs::read_to_string(golden_path("segmentation/keys.json")).unwrap();
    let keys: serde_json::Value = serde_json::from_str(&text).unwrap();
    let listed = |name: &str| -> BTreeMap<String, String> {
        serde_json::from_value(keys[name].clone()).unwrap()
    };
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
