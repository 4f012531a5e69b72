//! Tests of the models as wholes: against torchvision, against finite differences, by names, on
//! any number of threads.

mod building;
mod classifier_golden;
mod classifiers;
mod golden;
mod gradients;
mod group_norm;
mod loading;
mod pyramid_scale;
mod reference;
mod segmenter_golden;
mod segmenters;
mod stem;
mod threads;
mod tokens;
mod vit;
mod vit_golden;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};

use super::fcos::Fcos;
use super::resnet::{BlockKind, Variant};
use super::retinanet::RetinaNet;
use super::{Detector, ForwardRequest, Model, ParamKind};
use crate::config::{BoxLoss, DeeplabConfig, FcosConfig, ModelConfig, NormKind, Task, VitConfig};
use crate::detection::HeadOutput;
use crate::state::{Array, StateDict};

/// Every detector that there is.
pub(super) const DETECTORS: [&str; 2] = ["fcos", "retinanet"];

/// A valid configuration of a small detector.
pub(super) fn small_config() -> ModelConfig {
    ModelConfig {
        detector: "retinanet".into(),
        segmenter: "deeplabv3".into(),
        classifier: "convnet".into(),
        backbone: "tiny".into(),
        tiny_width: 4,
        tiny_blocks: [1, 1, 1, 1],
        mobilenet_width: 1.0,
        fpn_channels: 8,
        pyramid_scale: 1.0,
        head_convs: 2,
        trainable_layers: 5,
        norm: NormKind::Batch,
        anchor_base_size: 16,
        anchor_scales: vec![1.0],
        anchor_ratios: vec![0.5, 1.0, 2.0],
        box_loss: BoxLoss::L1,
        box_loss_weight: 1.0,
        focal_alpha: 0.25,
        focal_gamma: 2.0,
        fg_iou_threshold: 0.5,
        bg_iou_threshold: 0.4,
        score_threshold: 0.05,
        nms_threshold: 0.5,
        topk_candidates: 1000,
        detections_per_image: 100,
        weights: PathBuf::new(),
        fcos: FcosConfig {
            base_size: 8,
            center_sampling_radius: 1.5,
            norm_groups: 4,
        },
        deeplab: DeeplabConfig {
            aspp: true,
            aspp_channels: 8,
            atrous_rates: [1, 2, 3],
            output_stride: 8,
        },
        vit: VitConfig {
            patch_size: 8,
            dim: 16,
            depth: 2,
            heads: 2,
            mlp_ratio: 2.0,
            image_size: vec![32, 32],
        },
    }
}

/// A small segmenter or classifier on `backbone`.
pub(super) fn segmenter_config(backbone: &str) -> ModelConfig {
    ModelConfig {
        backbone: backbone.into(),
        mobilenet_width: 0.25,
        ..small_config()
    }
}

pub(super) fn build_segmenter(config: &ModelConfig, num_classes: usize) -> Box<dyn Model> {
    crate::model::build(config, Task::Segmentation, num_classes).unwrap()
}

pub(super) fn build_classifier(config: &ModelConfig, num_classes: usize) -> Box<dyn Model> {
    crate::model::build(config, Task::Classification, num_classes).unwrap()
}

/// The networks whose reference values stand under `tests/golden`.
pub(super) fn golden_detector(file: &str) -> Box<dyn Detector> {
    let mut config = small_config();
    config.head_convs = 4;
    config.score_threshold = 0.08;
    // torchvision's default.
    config.detections_per_image = 300;
    let (variant, classes) = match file {
        "model/basic_batch" => (
            Variant {
                block: BlockKind::Basic,
                blocks: [1, 2, 1, 1],
                width: 4,
            },
            3,
        ),
        "model/bottleneck_frozen" => {
            config.norm = NormKind::FrozenBatch;
            config.trainable_layers = 3;
            (
                Variant {
                    block: BlockKind::Bottleneck,
                    blocks: [2, 1, 1, 1],
                    width: 2,
                },
                2,
            )
        }
        "fcos/basic_batch" => {
            config.head_convs = 2;
            config.score_threshold = 0.2;
            config.nms_threshold = 0.6;
            config.fcos.base_size = 4;
            config.fcos.norm_groups = 2;
            let variant = Variant {
                block: BlockKind::Basic,
                blocks: [1, 2, 1, 1],
                width: 4,
            };
            return Box::new(Fcos::new(&config, variant, 3).unwrap());
        }
        other => panic!("no golden network `{other}`"),
    };
    Box::new(RetinaNet::new(&config, variant, classes).unwrap())
}

/// A small vision transformer.
pub(super) fn vit_config() -> ModelConfig {
    ModelConfig {
        classifier: "vit".into(),
        ..small_config()
    }
}

pub(super) fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(name)
}

/// Entries below `prefix/`, without it.
pub(super) fn below(state: &StateDict, prefix: &str) -> StateDict {
    StateDict {
        entries: state
            .entries
            .iter()
            .filter_map(|(name, array)| {
                let rest = name.strip_prefix(prefix)?.strip_prefix('/')?;
                Some((rest.to_owned(), array.clone()))
            })
            .collect(),
        ..StateDict::default()
    }
}

pub(super) fn map(array: &Array, device: &Device) -> Tensor<4> {
    let shape: [usize; 4] = array.shape.clone().try_into().unwrap();
    Tensor::from_data(TensorData::new(array.data.clone(), shape), device)
}

pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec::<f32>().unwrap()
}

/// `‖out − reference‖ / ‖reference‖`.
pub(super) fn relative_error(out: &[f32], reference: &[f32]) -> f64 {
    assert_eq!(out.len(), reference.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(
        &mut out
            .iter()
            .zip(reference)
            .map(|(a, b)| f64::from(*a) - f64::from(*b)),
    );
    let scale = norm(&mut reference.iter().map(|b| f64::from(*b)));
    assert!(scale > 0.0, "a reference of zeros shows nothing");
    difference / scale
}

/// Weights as the engine holds a student's: leaves where trainable, else plain.
pub(super) fn student_weights(detector: &dyn Model, plain: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
    detector
        .specs()
        .iter()
        .zip(plain)
        .map(|(spec, weight)| match spec.trainable {
            true => weight.autodiff().require_grad(),
            false => weight,
        })
        .collect()
}

/// Every output of a head as `[N, C, H, W]`: logits level by level, then box deltas, then centerness
/// where there is any.
pub(super) fn outputs(head: &HeadOutput) -> Vec<Tensor<4>> {
    let maps = [&head.cls_logits, &head.box_deltas].into_iter();
    maps.chain(&head.centerness)
        .flat_map(|maps| (0..maps.segments().len()).map(|level| maps.nchw(level)))
        .collect()
}

pub(super) fn request(training: bool, taps: &[&str], stop_at_taps: bool) -> ForwardRequest {
    ForwardRequest {
        training,
        taps: taps.iter().map(|tap| (*tap).to_owned()).collect(),
        stop_at_taps,
    }
}

pub(super) fn all_taps(detector: &dyn Model) -> Vec<&str> {
    detector
        .taps()
        .iter()
        .map(|tap| tap.name.as_str())
        .collect()
}

/// Weights to run a model with.
pub(super) fn started(model: &dyn Model) -> Vec<Tensor<1>> {
    let state = crate::model::initial_state(model, 3);
    crate::model::weights::tensors(model, &state, &Device::flex()).unwrap()
}

/// A pass that stops at one tap has its values, and no other tap and no output.
pub(super) fn assert_stopping_changes_nothing(model: &dyn Model, images: Tensor<4>, what: &str) {
    let weights = started(model);
    let all = all_taps(model);
    let whole = model.forward(&weights, images.clone(), &request(false, &all, false));
    for name in all {
        let request = request(false, &[name], true);
        let stopped = model.forward(&weights, images.clone(), &request);
        assert_eq!(stopped.taps.keys().collect::<Vec<_>>(), [name]);
        let (got, want) = (stopped.taps[name].clone(), whole.taps[name].clone());
        assert_eq!(values(got), values(want), "{what}: {name}");
        assert!(stopped.output.is_none());
    }
}
