//! RetinaNet's head (arXiv 1708.02002): one tower for classes, one for boxes, shared by all levels.
//! torchvision's first version: no normalisation in the towers.

use super::fpn::LEVELS;
use super::layers::{Builder, Conv, ConvShape};
use super::pass::Pass;
use super::{Init, Part, TapSpec, ops};
use crate::detection::HeadOutput;
use crate::maps::Maps;

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
    /// Runs on the packed maps `x` of `levels`; the prediction, if the pass needs it on any.
    fn forward(&self, pass: &mut Pass<'_>, levels: &[usize], x: &Maps) -> Option<Maps> {
        let mut feature = x.clone();
        for conv in &self.convs {
            feature = conv.forward(pass, &feature, true);
        }
        offer(pass, self.feature, levels, &feature);
        if !levels
            .iter()
            .any(|&level| pass.needs(&tap_name(self.output, level)))
        {
            return None;
        }
        let output = self.predictor.forward(pass, &feature, false);
        offer(pass, self.output, levels, &output);
        Some(output)
    }

    /// Whether a pass needs anything of the tower on `level`.
    fn is_needed(&self, pass: &Pass<'_>, level: usize) -> bool {
        [self.feature, self.output]
            .iter()
            .any(|kind| pass.needs(&tap_name(kind, level)))
    }
}

fn offer(pass: &mut Pass<'_>, kind: &str, levels: &[usize], maps: &Maps) {
    for (position, &level) in levels.iter().enumerate() {
        pass.offer(&tap_name(kind, level), || maps.nchw(position));
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

    /// As far as a pass that stops at its taps needs it; `levels` with their maps.
    pub(super) fn run_to_taps(&self, pass: &mut Pass<'_>, levels: &[(usize, Maps)]) {
        for tower in [&self.classes, &self.boxes] {
            let (numbers, maps): (Vec<usize>, Vec<Maps>) = levels
                .iter()
                .filter(|(level, _)| tower.is_needed(pass, *level))
                .cloned()
                .unzip();
            if !numbers.is_empty() {
                tower.forward(pass, &numbers, &Maps::pack(maps));
            }
        }
    }

    /// Raw outputs of all levels in f32, finest first; of a pass that runs to the end.
    ///
    /// # Panics
    /// If there are not as many maps as levels.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, pyramid: Vec<Maps>) -> HeadOutput {
        assert_eq!(
            pyramid.len(),
            LEVELS.len(),
            "the head runs on p3..p7, one map a level"
        );
        let pyramid = Maps::pack(pyramid);
        let run = |tower: &Tower, pass: &mut Pass<'_>| {
            let output = tower.forward(pass, &LEVELS, &pyramid);
            let output = output.expect("a pass that runs to the end needs every output");
            Maps::new(
                ops::in_f32(output.cells().clone()),
                output.segments().clone(),
            )
        };
        HeadOutput {
            cls_logits: run(&self.classes, pass),
            box_deltas: run(&self.boxes, pass),
        }
    }
}

fn tap_name(kind: &str, level: usize) -> String {
    format!("head.{kind}.p{level}")
}
