//! Where a backbone stands, and the backbones of segmenters behind one door.

use burn::tensor::Tensor;

use super::layers::Builder;
use super::mobilenet::{self, MobileNetV2};
use super::pass::Pass;
use super::resnet::{ResNet, Variant};
use super::{ModelError, TapSpec};
use crate::config::{ModelConfig, NormKind};
use crate::maps::Maps;

/// Where a backbone stands in its model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    /// What its parameters' names begin with, before a dot; empty: no dot either.
    pub(super) prefix: &'static str,
    /// Input pixels per cell of the last map; strides beyond it become dilations.
    pub(super) output_stride: usize,
}

impl Placement {
    /// In torchvision's detectors.
    pub(super) const DETECTOR: Placement = Placement {
        prefix: "backbone.body",
        output_stride: 32,
    };

    /// Name in the model of what the backbone calls `part`.
    pub(super) fn name(self, part: &str) -> String {
        match self.prefix {
            "" => part.to_owned(),
            prefix => format!("{prefix}.{part}"),
        }
    }

    /// Input pixels per cell of `c2..c5`.
    pub(super) fn strides(self) -> [usize; 4] {
        [4, 8, 16, 32].map(|stride: usize| stride.min(self.output_stride))
    }
}

/// What kind, and how large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum BackboneKind {
    ResNet(Variant),
    /// With the multiplier of its channels.
    MobileNetV2(f64),
}

impl BackboneKind {
    /// What `config.backbone` names.
    pub(super) fn from_config(config: &ModelConfig) -> Result<Self, ModelError> {
        Ok(match config.backbone.as_str() {
            "mobilenet_v2" => BackboneKind::MobileNetV2(config.mobilenet_width),
            _ => BackboneKind::ResNet(Variant::from_config(config)?),
        })
    }

    /// Channels of `c2..c5`.
    pub(super) fn channels(self) -> [usize; 4] {
        match self {
            BackboneKind::ResNet(variant) => variant.channels(),
            BackboneKind::MobileNetV2(width) => mobilenet::channels(width),
        }
    }

    /// `image`, `stem.conv`, `stem` and `backbone.c2..c5`.
    pub(super) fn taps(self, placement: Placement) -> Vec<TapSpec> {
        match self {
            BackboneKind::ResNet(variant) => ResNet::taps(&variant, placement),
            BackboneKind::MobileNetV2(width) => mobilenet::taps(width, placement),
        }
    }
}

/// From images to the last map.
#[derive(Clone, Debug)]
pub(super) enum Backbone {
    ResNet(ResNet),
    MobileNetV2(MobileNetV2),
}

impl Backbone {
    /// `trainable_layers` counts stages from the last; the stem is the fifth.
    pub(super) fn new(
        builder: &mut Builder,
        kind: BackboneKind,
        placement: Placement,
        norm: NormKind,
        trainable_layers: usize,
    ) -> Self {
        match kind {
            BackboneKind::ResNet(variant) => Backbone::ResNet(ResNet::new(
                builder,
                &variant,
                placement,
                norm,
                trainable_layers,
            )),
            BackboneKind::MobileNetV2(width) => Backbone::MobileNetV2(MobileNetV2::new(
                builder,
                width,
                placement,
                norm,
                trainable_layers,
            )),
        }
    }

    /// `[N, 3, H, W]` to `c5`; `None` if the pass stopped before.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, images: Tensor<4>) -> Option<Maps> {
        match self {
            Backbone::ResNet(resnet) => resnet.forward(pass, images).map(|[_, _, c5]| c5),
            Backbone::MobileNetV2(mobilenet) => mobilenet.forward(pass, images),
        }
    }
}
