//! FCOS (arXiv 2006.09214) on ResNet and FPN: torchvision's `fcos_resnet50_fpn` with any of the
//! backbones.
//!
//! A location of a level is a cell, and stands for a square centred on it whose side doubles from level
//! to level. The tower for boxes also says how central a location is in its object.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::head::{Head, Output, TowerBuilder, prior_logit};
use super::layers::Builder;
use super::one_stage::{NUM_LEVELS, OneStage, SIZE_DIVISOR, level_sizes};
use super::resnet::Variant;
use super::validate::{require, validate};
use super::{Detector, DetectorEntry, Forward, ForwardRequest, ModelError, ParamSpec, TapSpec};
use crate::boxes::BoxXyxy;
use crate::config::{BoxLoss, ModelConfig};
use crate::data::ImageTargets;
use crate::detection::{
    self, AnchorGenerator, Assignment, BoxCoder, Detections, HeadOutput, LocationLosses,
    LossConfig, PostprocessConfig,
};

inventory::submit! {
    DetectorEntry { name: "fcos", build }
}

fn build(config: &ModelConfig, num_classes: usize) -> Result<Box<dyn Detector>, ModelError> {
    let variant = Variant::from_config(config)?;
    Ok(Box::new(Fcos::new(config, variant, num_classes)?))
}

/// How the head's box deltas are read.
const BOX_CODER: BoxCoder = BoxCoder::EdgeDistances;

/// The architecture; weights come with each call.
#[derive(Clone, Debug)]
pub(super) struct Fcos {
    network: OneStage,
    num_classes: usize,
    /// One square a cell.
    locations: AnchorGenerator,
    center_sampling_radius: f32,
    loss: LossConfig,
    postprocess: PostprocessConfig,
}

impl Fcos {
    /// The detector on a backbone `variant`, which stands for `config.backbone`.
    pub(super) fn new(
        config: &ModelConfig,
        variant: Variant,
        num_classes: usize,
    ) -> Result<Self, ModelError> {
        validate(config, num_classes)?;
        let (groups, channels) = (config.fcos.norm_groups, config.fpn_channels);
        require("fcos.norm_groups", channels.is_multiple_of(groups), || {
            format!("got {groups}, which does not divide `fpn_channels`, which is {channels}")
        })?;
        let network = OneStage::new(config, variant, |builder| {
            head(builder, config, num_classes)
        });
        Ok(Fcos {
            network,
            num_classes,
            locations: AnchorGenerator::new(config.fcos.base_size, &[1.0], &[1.0], NUM_LEVELS),
            center_sampling_radius: config.fcos.center_sampling_radius,
            loss: LossConfig {
                num_classes,
                focal_alpha: config.focal_alpha,
                focal_gamma: config.focal_gamma,
                box_coder: BOX_CODER,
                box_loss: BoxLoss::Giou,
                box_loss_weight: config.box_loss_weight,
            },
            postprocess: PostprocessConfig {
                num_classes,
                box_coder: BOX_CODER,
                score_threshold: config.score_threshold,
                nms_threshold: config.nms_threshold,
                topk_candidates: config.topk_candidates,
                detections_per_image: config.detections_per_image,
            },
        })
    }
}

/// torchvision's: every layer is a convolution with bias, GroupNorm and ReLU, numbered one by one.
fn head(builder: &mut Builder, config: &ModelConfig, num_classes: usize) -> Head {
    let groups = config.fcos.norm_groups;
    let mut tower = |branch, feature, predictors: &[Output]| {
        let mut tower = TowerBuilder::new(builder, branch, config.fpn_channels, feature);
        for i in 0..config.head_convs {
            let names = [format!("conv.{}", 3 * i), format!("conv.{}", 3 * i + 1)];
            tower.normalized_layer([&names[0], &names[1]], groups);
        }
        for &output in predictors {
            tower.predictor(output);
        }
        tower.finish()
    };
    let logits = Output {
        name: "cls_logits",
        tap: "cls_logits",
        channels: num_classes,
        bias: prior_logit(),
        relu: false,
    };
    let distances = Output {
        name: "bbox_reg",
        tap: "box_deltas",
        channels: 4,
        bias: 0.0,
        relu: true,
    };
    let centerness = Output {
        name: "bbox_ctrness",
        tap: "centerness",
        channels: 1,
        bias: 0.0,
        relu: false,
    };
    Head {
        classes: tower("classification_head", "cls_feat", &[logits]),
        boxes: tower("regression_head", "box_feat", &[distances, centerness]),
    }
}

impl Detector for Fcos {
    fn specs(&self) -> &[ParamSpec] {
        &self.network.specs
    }

    fn taps(&self) -> &[TapSpec] {
        &self.network.taps
    }

    fn size_divisor(&self) -> usize {
        SIZE_DIVISOR
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn forward(
        &self,
        weights: &[Tensor<1>],
        images: Tensor<4>,
        request: &ForwardRequest,
    ) -> Forward {
        self.network.forward(weights, images, request)
    }

    fn head_taps(&self) -> Vec<String> {
        self.network.head_taps()
    }

    fn head(&self, weights: &[Tensor<1>], pyramid: &[Tensor<4>]) -> HeadOutput {
        self.network.head(weights, pyramid)
    }

    fn anchors(&self, input_size: [usize; 2]) -> Arc<Vec<BoxXyxy>> {
        self.locations.anchors(input_size, &level_sizes(input_size))
    }

    fn decoded_boxes(&self, head: &HeadOutput, input_size: [usize; 2]) -> Vec<BoxXyxy> {
        let locations = self.anchors(input_size);
        detection::decoded_boxes(head, &locations, BOX_CODER, self.num_classes)
    }

    fn location_losses(&self, head: &HeadOutput, assignment: &Assignment) -> LocationLosses {
        detection::location_losses(head, assignment, &self.loss)
    }

    fn assign(&self, input_size: [usize; 2], targets: &[ImageTargets]) -> Assignment {
        let cells = level_sizes(input_size).map(|[height, width]| height * width);
        detection::assign_locations(
            self.anchors(input_size),
            &cells,
            targets,
            self.center_sampling_radius,
        )
    }

    fn losses(&self, head: &HeadOutput, assignment: &Assignment) -> Vec<(&'static str, Tensor<1>)> {
        detection::fcos_losses(head, assignment, &self.loss)
    }

    fn detect(
        &self,
        head: &HeadOutput,
        input_size: [usize; 2],
        sizes: &[[usize; 2]],
    ) -> Vec<Detections> {
        let locations = self.anchors(input_size);
        detection::detect(head, &locations, sizes, &self.postprocess)
    }
}
