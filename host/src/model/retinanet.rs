//! RetinaNet (arXiv 1708.02002) on ResNet and FPN: torchvision's `retinanet_resnet50_fpn`, first
//! version, with any of the backbones.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::head::{Head, Output, TowerBuilder, prior_logit};
use super::layers::Builder;
use super::one_stage::{NUM_LEVELS, OneStage, SIZE_DIVISOR, level_sizes};
use super::resnet::Variant;
use super::validate::validate;
use super::{Detector, DetectorEntry, Forward, ForwardRequest, ModelError, ParamSpec, TapSpec};
use crate::boxes::BoxXyxy;
use crate::config::ModelConfig;
use crate::data::ImageTargets;
use crate::detection::{
    self, AnchorGenerator, Assignment, BoxCoder, Detections, HeadOutput, LocationLosses,
    LossConfig, PostprocessConfig,
};

inventory::submit! {
    DetectorEntry { name: "retinanet", build }
}

fn build(config: &ModelConfig, num_classes: usize) -> Result<Box<dyn Detector>, ModelError> {
    let variant = Variant::from_config(config)?;
    Ok(Box::new(RetinaNet::new(config, variant, num_classes)?))
}

/// How the head's box deltas are read.
const BOX_CODER: BoxCoder = BoxCoder::CenterSize;

/// The architecture; weights come with each call.
#[derive(Clone, Debug)]
pub(super) struct RetinaNet {
    network: OneStage,
    num_classes: usize,
    anchors: AnchorGenerator,
    fg_iou_threshold: f32,
    bg_iou_threshold: f32,
    loss: LossConfig,
    postprocess: PostprocessConfig,
}

impl RetinaNet {
    /// The detector on a backbone `variant`, which stands for `config.backbone`.
    pub(super) fn new(
        config: &ModelConfig,
        variant: Variant,
        num_classes: usize,
    ) -> Result<Self, ModelError> {
        validate(config, num_classes)?;
        let anchors = AnchorGenerator::new(
            config.anchor_base_size,
            &config.anchor_scales,
            &config.anchor_ratios,
            NUM_LEVELS,
        );
        let per_cell = anchors.per_cell();
        let network = OneStage::new(config, variant, |builder| {
            head(builder, config, per_cell, num_classes)
        });
        Ok(RetinaNet {
            network,
            num_classes,
            anchors,
            fg_iou_threshold: config.fg_iou_threshold,
            bg_iou_threshold: config.bg_iou_threshold,
            loss: LossConfig {
                num_classes,
                focal_alpha: config.focal_alpha,
                focal_gamma: config.focal_gamma,
                box_coder: BOX_CODER,
                box_loss: config.box_loss,
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

/// torchvision's first version: no normalisation in the towers.
fn head(
    builder: &mut Builder,
    config: &ModelConfig,
    anchors_per_cell: usize,
    num_classes: usize,
) -> Head {
    let channels = config.fpn_channels;
    let mut tower = |branch, feature, output| {
        let mut tower = TowerBuilder::new(builder, branch, channels, feature);
        for i in 0..config.head_convs {
            tower.layer(&format!("conv.{i}.0"));
        }
        tower.predictor(output);
        tower.finish()
    };
    let logits = Output {
        name: "cls_logits",
        tap: "cls_logits",
        channels: anchors_per_cell * num_classes,
        bias: prior_logit(),
        relu: false,
    };
    let deltas = Output {
        name: "bbox_reg",
        tap: "box_deltas",
        channels: anchors_per_cell * 4,
        bias: 0.0,
        relu: false,
    };
    Head {
        classes: tower("classification_head", "cls_feat", logits),
        boxes: tower("regression_head", "box_feat", deltas),
    }
}

impl Detector for RetinaNet {
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
        self.anchors.anchors(input_size, &level_sizes(input_size))
    }

    fn decoded_boxes(&self, head: &HeadOutput, input_size: [usize; 2]) -> Vec<BoxXyxy> {
        let anchors = self.anchors(input_size);
        detection::decoded_boxes(head, &anchors, BOX_CODER, self.num_classes)
    }

    fn location_losses(&self, head: &HeadOutput, assignment: &Assignment) -> LocationLosses {
        detection::location_losses(head, assignment, &self.loss)
    }

    fn assign(&self, input_size: [usize; 2], targets: &[ImageTargets]) -> Assignment {
        detection::assign(
            self.anchors(input_size),
            targets,
            self.fg_iou_threshold,
            self.bg_iou_threshold,
        )
    }

    fn losses(&self, head: &HeadOutput, assignment: &Assignment) -> Vec<(&'static str, Tensor<1>)> {
        detection::retinanet_losses(head, assignment, &self.loss)
    }

    fn detect(
        &self,
        head: &HeadOutput,
        input_size: [usize; 2],
        sizes: &[[usize; 2]],
    ) -> Vec<Detections> {
        let anchors = self.anchors(input_size);
        detection::detect(head, &anchors, sizes, &self.postprocess)
    }
}
