//! The head of a one-stage detector: one tower for classes, one for boxes, shared by all levels.

use super::fpn::LEVELS;
use super::layers::{Builder, Conv, ConvShape, GroupNorm};
use super::pass::Pass;
use super::{Init, Part, TapSpec, ops};
use crate::detection::HeadOutput;
use crate::maps::Maps;

/// Foreground probability that every location starts with.
const PRIOR_PROBABILITY: f32 = 0.01;
/// Standard deviation of all initial weights of the head.
const INIT_STD: f32 = 0.01;
/// The width for which torchvision chose it. Narrower heads keep the gain of a layer, which goes
/// with `std * sqrt(channels)`; with 0.01 a tower of 32 channels would pass on a sixth a layer.
const INIT_CHANNELS: f32 = 256.0;

/// Bias of the class logits at the start.
pub(super) fn prior_logit() -> f32 {
    -((1.0 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY).ln()
}

/// A 3×3 convolution, its normalisation where there is one, and ReLU.
#[derive(Clone, Debug)]
struct Layer {
    conv: Conv,
    norm: Option<GroupNorm>,
}

/// What an output of the head looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// torchvision's name of the convolution that gives it.
    pub(super) name: &'static str,
    /// Prefix of its tap.
    pub(super) tap: &'static str,
    pub(super) channels: usize,
    /// The convolution's bias at the start.
    pub(super) bias: f32,
    /// Whether ReLU follows.
    pub(super) relu: bool,
}

/// A 3×3 convolution whose result is an output of the head.
#[derive(Clone, Debug)]
struct Predictor {
    conv: Conv,
    output: Output,
}

/// Layers, then one predictor or several on the last activation.
#[derive(Clone, Debug)]
pub(super) struct Tower {
    layers: Vec<Layer>,
    predictors: Vec<Predictor>,
    channels: usize,
    /// Prefix of the tap of the last activation.
    feature: &'static str,
}

impl Tower {
    /// Runs on the packed maps `x` of `levels`; each prediction that the pass needs on any of them.
    fn forward(&self, pass: &mut Pass<'_>, levels: &[usize], x: &Maps) -> Vec<Option<Maps>> {
        let mut feature = x.clone();
        for Layer { conv, norm } in &self.layers {
            feature = conv.forward(pass, &feature, norm.is_none());
            if let Some(norm) = norm {
                feature = norm.forward(pass, &feature, true);
            }
        }
        offer(pass, self.feature, levels, &feature);
        let mut outputs = Vec::with_capacity(self.predictors.len());
        for predictor in &self.predictors {
            let Output { tap, relu, .. } = predictor.output;
            let needed = |&level: &usize| pass.needs(&tap_name(tap, level));
            outputs.push(levels.iter().any(needed).then(|| {
                let output = predictor.conv.forward(pass, &feature, relu);
                offer(pass, tap, levels, &output);
                output
            }));
        }
        outputs
    }

    /// Whether a pass needs anything of the tower on `level`.
    fn is_needed(&self, pass: &Pass<'_>, level: usize) -> bool {
        let outputs = self.predictors.iter().map(|predictor| predictor.output.tap);
        outputs
            .chain([self.feature])
            .any(|kind| pass.needs(&tap_name(kind, level)))
    }
}

fn offer(pass: &mut Pass<'_>, kind: &str, levels: &[usize], maps: &Maps) {
    for (position, &level) in levels.iter().enumerate() {
        pass.offer(&tap_name(kind, level), || maps.nchw(position));
    }
}

/// Collects the layers of a tower in the order of their parameters.
pub(super) struct TowerBuilder<'a> {
    builder: &'a mut Builder,
    /// torchvision's name of the branch.
    branch: &'static str,
    tower: Tower,
}

impl<'a> TowerBuilder<'a> {
    /// A tower of `channels` named `head.<branch>`, whose last activation is tapped as
    /// `head.<feature>`.
    pub(super) fn new(
        builder: &'a mut Builder,
        branch: &'static str,
        channels: usize,
        feature: &'static str,
    ) -> Self {
        TowerBuilder {
            builder,
            branch,
            tower: Tower {
                layers: Vec::new(),
                predictors: Vec::new(),
                channels,
                feature,
            },
        }
    }

    fn conv(&mut self, name: &str, outputs: usize, bias: f32) -> Conv {
        let inputs = self.tower.channels;
        let shape = ConvShape {
            inputs,
            outputs,
            kernel: 3,
            stride: 1,
            dilation: 1,
            groups: 1,
        };
        let std = INIT_STD * (INIT_CHANNELS / inputs as f32).sqrt();
        let name = format!("head.{}.{name}", self.branch);
        let init = Init::Normal { std };
        self.builder.conv(&name, shape, Part::Head, init, bias)
    }

    /// Adds a layer with bias under torchvision's `name`.
    pub(super) fn layer(&mut self, name: &str) {
        let conv = self.conv(name, self.tower.channels, 0.0);
        self.tower.layers.push(Layer { conv, norm: None });
    }

    /// Adds a layer with bias and, of `groups`, its normalisation under torchvision's `names`.
    pub(super) fn normalized_layer(&mut self, [conv, norm]: [&str; 2], groups: usize) {
        let conv = self.conv(conv, self.tower.channels, 0.0);
        let name = format!("head.{}.{norm}", self.branch);
        let channels = self.tower.channels;
        let norm = self.builder.group_norm(&name, channels, groups, Part::Head);
        let norm = Some(norm);
        self.tower.layers.push(Layer { conv, norm });
    }

    /// Adds an output.
    pub(super) fn predictor(&mut self, output: Output) {
        let conv = self.conv(output.name, output.channels, output.bias);
        self.tower.predictors.push(Predictor { conv, output });
    }

    pub(super) fn finish(self) -> Tower {
        self.tower
    }
}

/// Both towers. The one for classes has one output, the one for boxes has box deltas and may have
/// centerness.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) classes: Tower,
    pub(super) boxes: Tower,
}

impl Head {
    fn towers(&self) -> [&Tower; 2] {
        [&self.classes, &self.boxes]
    }

    /// `head.<kind>.p3..p7` of each kind: the last activation of each tower, then the outputs.
    pub(super) fn taps(&self) -> Vec<TapSpec> {
        let features = self.towers().map(|tower| (tower.feature, tower.channels));
        let outputs = self
            .towers()
            .into_iter()
            .flat_map(|tower| &tower.predictors)
            .map(|predictor| (predictor.output.tap, predictor.output.channels));
        features
            .into_iter()
            .chain(outputs)
            .flat_map(|(kind, channels)| {
                LEVELS.map(|level| TapSpec {
                    name: tap_name(kind, level),
                    channels,
                    stride: 1 << level,
                })
            })
            .collect()
    }

    /// As far as a pass that stops at its taps needs it; `levels` with their maps.
    pub(super) fn run_to_taps(&self, pass: &mut Pass<'_>, levels: &[(usize, Maps)]) {
        for tower in self.towers() {
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
        let mut outputs = self
            .towers()
            .into_iter()
            .flat_map(|tower| tower.forward(pass, &LEVELS, &pyramid))
            .map(|output| {
                let output = output.expect("a pass that runs to the end needs every output");
                Maps::new(
                    ops::in_f32(output.cells().clone()),
                    output.segments().clone(),
                )
            });
        let mut output = || outputs.next();
        HeadOutput {
            cls_logits: output().expect("the tower for classes has an output"),
            box_deltas: output().expect("the tower for boxes has one too"),
            centerness: output(),
        }
    }
}

fn tap_name(kind: &str, level: usize) -> String {
    format!("head.{kind}.p{level}")
}
