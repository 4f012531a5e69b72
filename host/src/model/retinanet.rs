//! RetinaNet (arXiv 1708.02002) on ResNet and FPN: torchvision's `retinanet_resnet50_fpn`, first
//! version, with any of the backbones.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::head::{Head, Output, TowerBuilder, prior_logit};
use super::layers::Builder;
use super::one_stage::{Design, Grid, NUM_LEVELS, OneStage, Rules};
use super::resnet::Variant;
use super::validate::validate;
use super::{Detector, DetectorEntry, ModelError};
use crate::boxes::BoxXyxy;
use crate::config::ModelConfig;
use crate::data::ImageTargets;
use crate::detection::{self, AnchorGenerator, Assignment, BoxCoder, HeadOutput, LossConfig};

inventory::submit! {
    DetectorEntry { name: "retinanet", build }
}

fn build(config: &ModelConfig, num_classes: usize) -> Result<Box<dyn Detector>, ModelError> {
    let variant = Variant::from_config(config)?;
    Ok(Box::new(RetinaNet::new(config, variant, num_classes)?))
}

/// The architecture; weights come with each call.
pub(super) type RetinaNet = OneStage<ByOverlap>;

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
        let design = Design {
            anchors,
            box_coder: BoxCoder::CenterSize,
            box_loss: config.box_loss,
            rules: ByOverlap {
                fg_iou_threshold: config.fg_iou_threshold,
                bg_iou_threshold: config.bg_iou_threshold,
            },
        };
        Ok(Self::build(
            config,
            variant,
            num_classes,
            design,
            |builder| head(builder, config, per_cell, num_classes),
        ))
    }
}

/// Anchors are matched by their overlap with objects.
#[derive(Clone, Debug)]
pub(super) struct ByOverlap {
    fg_iou_threshold: f32,
    bg_iou_threshold: f32,
}

impl Rules for ByOverlap {
    fn assign(&self, anchors: Arc<Vec<BoxXyxy>>, _: Grid, targets: &[ImageTargets]) -> Assignment {
        let (fg, bg) = (self.fg_iou_threshold, self.bg_iou_threshold);
        detection::assign(anchors, targets, fg, bg)
    }

    fn losses(
        &self,
        head: &HeadOutput,
        assignment: &Assignment,
        config: &LossConfig,
    ) -> Vec<(&'static str, Tensor<1>)> {
        detection::retinanet_losses(head, assignment, config)
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
