//! RetinaNet's head (arXiv 1708.02002): one tower for classes, one for boxes, shared by all levels.
//! torchvision's first version: no normalisation in the towers.

use burn::tensor::Tensor;

use super::fpn::LEVELS;
use super::layers::{Builder, Conv, ConvShape};
use super::ops;
use super::pass::Pass;
use super::{Init, Part, TapSpec};
use crate::detection::HeadOutput;

/// Foreground probability that every anchor starts with.
const PRIOR_PROBABILITY: f32 = 0.01;
/// Standard deviation of all initial weights of the head.
const INIT_STD: f32 = 0.01;
/// The width for which torchvision chose it. Narrower heads keep the gain of a layer, which goes
/// with `std * sqrt(channels)`; with 0.01 a tower of 32 channels would pass on a sixth a layer.
const INIT_CHANNELS: f32 = 256.0;

/// 3×3 convolutions with ReLU, then a 3×3 predictor.
#[derive(Clone, Debug)]
struct Tower {
    convs: Vec<Conv>,
    predictor: Conv,
    /// Prefix of the tap of the last activation.
    feature: &'static str,
    /// Prefix of the tap of the prediction.
    output: &'static str,
}

impl Tower {
    /// The prediction `[N, outputs, H, W]`, if the pass needs it.
    fn forward(&self, pass: &mut Pass<'_>, level: usize, x: &Tensor<4>) -> Option<Tensor<4>> {
        let feature_name = tap_name(self.feature, level);
        let output_name = tap_name(self.output, level);
        let needs_output = pass.needs(&output_name);
        if !needs_output && !pass.needs(&feature_name) {
            return None;
        }
        let mut feature = x.clone();
        for conv in &self.convs {
            feature = ops::relu(conv.forward(pass, feature));
        }
        pass.offer(&feature_name, &feature);
        if !needs_output {
            return None;
        }
        let output = self.predictor.forward(pass, feature);
        pass.offer(&output_name, &output);
        Some(output)
    }
}

/// Both towers.
#[derive(Clone, Debug)]
pub(super) struct Head {
    classes: Tower,
    boxes: Tower,
}

/// Extents of a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadShape {
    pub(super) channels: usize,
    pub(super) convs: usize,
    pub(super) anchors_per_cell: usize,
    pub(super) num_classes: usize,
}

impl Head {
    pub(super) fn new(builder: &mut Builder, shape: HeadShape) -> Self {
        let shape_channels = shape.channels as f32;
        let mut conv = |name: String, outputs, bias| {
            let shape = ConvShape {
                inputs: shape.channels,
                outputs,
                kernel: 3,
                stride: 1,
            };
            let std = INIT_STD * (INIT_CHANNELS / shape_channels).sqrt();
            let init = Init::Normal { std };
            builder.conv(&format!("head.{name}"), shape, Part::Head, init, bias)
        };
        let mut tower = |branch: &str, predictor: &str, outputs, bias, feature, output| Tower {
            convs: (0..shape.convs)
                .map(|i| conv(format!("{branch}.conv.{i}.0"), shape.channels, 0.0))
                .collect(),
            predictor: conv(format!("{branch}.{predictor}"), outputs, bias),
            feature,
            output,
        };
        let prior_logit = -((1.0 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY).ln();
        Head {
            classes: tower(
                "classification_head",
                "cls_logits",
                shape.anchors_per_cell * shape.num_classes,
                prior_logit,
                "cls_feat",
                "cls_logits",
            ),
            boxes: tower(
                "regression_head",
                "bbox_reg",
                shape.anchors_per_cell * 4,
                0.0,
                "box_feat",
                "box_deltas",
            ),
        }
    }

    /// `head.cls_feat.*`, `head.box_feat.*` (last activation of each tower), `head.cls_logits.*`
    /// and `head.box_deltas.*` (raw outputs) on `p3..p7`.
    pub(super) fn taps(shape: &HeadShape) -> Vec<TapSpec> {
        let kinds = [
            ("cls_feat", shape.channels),
            ("box_feat", shape.channels),
            ("cls_logits", shape.anchors_per_cell * shape.num_classes),
            ("box_deltas", shape.anchors_per_cell * 4),
        ];
        let mut taps = Vec::with_capacity(kinds.len() * LEVELS.len());
        for (kind, channels) in kinds {
            taps.extend(LEVELS.map(|level| TapSpec {
                name: tap_name(kind, level),
                channels,
                stride: 1 << level,
            }));
        }
        taps
    }

    /// Raw outputs of one level, as far as the pass needs them.
    pub(super) fn level(
        &self,
        pass: &mut Pass<'_>,
        level: usize,
        x: &Tensor<4>,
    ) -> (Option<Tensor<4>>, Option<Tensor<4>>) {
        let logits = self.classes.forward(pass, level, x);
        let deltas = self.boxes.forward(pass, level, x);
        (logits, deltas)
    }

    /// Raw outputs of all levels, finest first; of a pass that runs to the end.
    ///
    /// # Panics
    /// If there are not as many maps as levels.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, pyramid: &[Tensor<4>]) -> HeadOutput {
        assert_eq!(
            pyramid.len(),
            LEVELS.len(),
            "the head runs on p3..p7, one map a level"
        );
        let (logits, deltas): (Vec<_>, Vec<_>) = LEVELS
            .into_iter()
            .zip(pyramid)
            .map(|(level, map)| self.level(pass, level, map))
            .unzip();
        HeadOutput {
            cls_logits: logits.into_iter().flatten().collect(),
            box_deltas: deltas.into_iter().flatten().collect(),
        }
    }
}

fn tap_name(kind: &str, level: usize) -> String {
    format!("head.{kind}.p{level}")
}
