//! FCOS (arXiv 2006.09214) on ResNet and FPN: torchvision's `fcos_resnet50_fpn` with any of the
//! backbones.
//!
//! A location of a level is a cell, and stands for a square centred on it whose side doubles from level
//! to level. The tower for boxes also says how central a location is in its object.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::head::{Head, Output, TowerBuilder, prior_logit};
use super::layers::Builder;
use super::one_stage::{Design, Grid, NUM_LEVELS, OneStage, Rules};
use super::resnet::Variant;
use super::validate::{require, validate};
use super::{Detector, DetectorEntry, ModelError};
use crate::boxes::BoxXyxy;
use crate::config::{BoxLoss, ModelConfig};
use crate::data::ImageTargets;
use crate::detection::{self, AnchorGenerator, Assignment, BoxCoder, HeadOutput, LossConfig};

inventory::submit! {
    DetectorEntry { name: "fcos", build }
}

fn build(config: &ModelConfig, num_classes: usize) -> Result<Box<dyn Detector>, ModelError> {
    let variant = Variant::from_config(config)?;
    Ok(Box::new(Fcos::new(config, variant, num_classes)?))
}

/// The architecture; weights come with each call.
pub(super) type Fcos = OneStage<ByLocation>;

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
        let design = Design {
            // One square a cell.
            anchors: AnchorGenerator::new(config.fcos.base_size, &[1.0], &[1.0], NUM_LEVELS),
            box_coder: BoxCoder::EdgeDistances,
            box_loss: BoxLoss::Giou,
            rules: ByLocation {
                center_sampling_radius: config.fcos.center_sampling_radius,
            },
        };
        Ok(Self::build(
            config,
            variant,
            num_classes,
            design,
            |builder| head(builder, config, num_classes),
        ))
    }
}

/// Locations are matched by where they lie in objects.
#[derive(Clone, Debug)]
pub(super) struct ByLocation {
    center_sampling_radius: f32,
}

impl Rules for ByLocation {
    fn assign(
        &self,
        locations: Arc<Vec<BoxXyxy>>,
        grid: Grid,
        targets: &[ImageTargets],
    ) -> Assignment {
        let cells = grid.level_sizes.map(|[height, width]| height * width);
        let radius = self.center_sampling_radius;
        detection::assign_locations(locations, &cells, grid.pixel, targets, radius)
    }

    fn losses(
        &self,
        head: &HeadOutput,
        assignment: &Assignment,
        config: &LossConfig,
    ) -> Vec<(&'static str, Tensor<1>)> {
        detection::fcos_losses(head, assignment, config)
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
