//! MobileNetV2 (arXiv 1801.04381) as torchvision builds it, without its classifier; its last 1×1
//! convolution is a layer of its own, which classifiers alone have.
//!
//! torchvision has no dilated one. An output stride below 32 is DeepLab's rule (arXiv 1706.05587): a
//! block whose stride is replaced keeps the dilation of the block before it, and the depthwise
//! convolutions after it have twice that.

use burn::tensor::Tensor;

use super::backbone::Placement;
use super::layers::{Builder, ConvNorm, ConvShape, Place};
use super::ops::Activation;
use super::pass::Pass;
use super::stem::Stem;
use super::{Init, Part, TapSpec};
use crate::config::NormKind;
use crate::maps::Maps;

/// Blocks of one kind, in order: expansion, channels, how many, stride of the first.
struct Row {
    expansion: usize,
    channels: usize,
    blocks: usize,
    stride: usize,
    /// Which stage of five they belong to, as `trainable_layers` counts them; 0 is the stem's.
    stage: usize,
    /// Whether the stage ends here.
    last: bool,
}

/// Table 2 of the paper.
const ROWS: [Row; 7] = {
    const fn row(
        [expansion, channels, blocks, stride]: [usize; 4],
        (stage, last): (usize, bool),
    ) -> Row {
        Row {
            expansion,
            channels,
            blocks,
            stride,
            stage,
            last,
        }
    }
    [
        row([1, 16, 1, 1], (0, false)),
        row([6, 24, 2, 2], (1, true)),
        row([6, 32, 3, 2], (2, true)),
        row([6, 64, 4, 2], (3, false)),
        row([6, 96, 3, 1], (3, true)),
        row([6, 160, 3, 2], (4, false)),
        row([6, 320, 1, 1], (4, true)),
    ]
};

/// Channels of the first convolution.
const STEM: usize = 32;
/// Channels of the last 1×1 convolution; a width below 1 does not lessen them.
const LAST: usize = 1280;
/// Channels are multiples of it.
const DIVISOR: usize = 8;

/// torchvision's `_make_divisible`: the nearest multiple of 8, at least 8, and never less than nine
/// tenths of what was asked for.
fn scaled(channels: usize, width: f64) -> usize {
    let wanted = channels as f64 * width;
    let divisor = DIVISOR as f64;
    let nearest = ((wanted + divisor / 2.0) / divisor) as usize * DIVISOR;
    let nearest = nearest.max(DIVISOR);
    if (nearest as f64) < 0.9 * wanted {
        nearest + DIVISOR
    } else {
        nearest
    }
}

/// Channels of `c2..c5`.
pub(super) fn channels(width: f64) -> [usize; 4] {
    [24, 32, 96, 320].map(|channels| scaled(channels, width))
}

/// Channels of the last 1×1 convolution.
pub(super) fn last_channels(width: f64) -> usize {
    scaled(LAST, width.max(1.0))
}

/// The 1×1 convolution of a classifier after the last block, with its normalisation; ReLU6 follows. It
/// learns with the last stage.
pub(super) fn last_layer(
    builder: &mut Builder,
    width: f64,
    placement: Placement,
    norm: NormKind,
    trainable_layers: usize,
) -> ConvNorm {
    let blocks: usize = ROWS.iter().map(|row| row.blocks).sum();
    let names = [0, 1].map(|part| placement.name(&format!("{}.{part}", blocks + 1)));
    let [.., inputs] = channels(width);
    let place = Place {
        part: Part::Backbone,
        init: Init::KaimingNormalFanOut,
        norm,
        trainable: trainable_layers >= 1,
    };
    let shape = ConvShape::new(inputs, last_channels(width), 1);
    builder.conv_norm([&names[0], &names[1]], shape, place)
}

/// `image` (the network's input), `stem.conv` (the first convolution alone), `stem` (after its ReLU6)
/// and `backbone.c2..c5`: the last blocks of 24, 32, 96 and 320 channels, times the width.
pub(super) fn taps(width: f64, placement: Placement) -> Vec<TapSpec> {
    let mut taps = Stem::taps(scaled(STEM, width));
    for (stage, (channels, stride)) in channels(width)
        .into_iter()
        .zip(placement.strides())
        .enumerate()
    {
        taps.push(TapSpec {
            name: format!("backbone.c{}", stage + 2),
            channels,
            stride,
        });
    }
    taps
}

/// An inverted residual: 1×1 to more channels, depthwise 3×3, 1×1 to few channels without activation.
#[derive(Clone, Debug)]
struct Block {
    /// Absent where it would keep the channels.
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    project: ConvNorm,
    /// Whether the input is added.
    residual: bool,
    /// The tap that its output is, if it ends a stage.
    tap: Option<&'static str>,
}

impl Block {
    fn forward(&self, pass: &mut Pass<'_>, x: &Maps) -> Maps {
        let wide = match &self.expand {
            Some(expand) => expand.forward(pass, x, None, Activation::Relu6),
            None => x.clone(),
        };
        let wide = self.depthwise.forward(pass, &wide, None, Activation::Relu6);
        let residual = self.residual.then_some(x);
        self.project
            .forward(pass, &wide, residual, Activation::None)
    }
}

/// Stem and 17 blocks.
#[derive(Clone, Debug)]
pub(super) struct MobileNetV2 {
    stem: Stem,
    blocks: Vec<Block>,
}

impl MobileNetV2 {
    /// `width` multiplies channels. `trainable_layers` counts stages from the last: those that end with
    /// `c5`, `c4`, `c3`, `c2`, then the stem with the block of 16 channels.
    pub(super) fn new(
        builder: &mut Builder,
        width: f64,
        placement: Placement,
        norm: NormKind,
        trainable_layers: usize,
    ) -> Self {
        let place = |stage: usize| Place {
            part: Part::Backbone,
            init: Init::KaimingNormalFanOut,
            norm,
            trainable: trainable_layers >= 5 - stage,
        };
        let mut inputs = scaled(STEM, width);
        let stem = Stem {
            layer: builder.conv_norm(
                [&placement.name("0.0"), &placement.name("0.1")],
                ConvShape {
                    stride: 2,
                    ..ConvShape::new(3, inputs, 3)
                },
                place(0),
            ),
            activation: Activation::Relu6,
        };
        let mut blocks = Vec::new();
        let (mut stride_so_far, mut dilation) = (2, 1);
        for row in ROWS {
            let outputs = scaled(row.channels, width);
            let place = place(row.stage);
            let dilated = stride_so_far * row.stride > placement.output_stride;
            let before = dilation;
            if dilated {
                dilation *= row.stride;
            } else {
                stride_so_far *= row.stride;
            }
            for block in 0..row.blocks {
                let first = block == 0;
                let name = placement.name(&format!("{}.conv", blocks.len() + 1));
                let mut add = |conv: &str, norm: &str, shape| {
                    let names = [conv, norm].map(|part| format!("{name}.{part}"));
                    builder.conv_norm([&names[0], &names[1]], shape, place)
                };
                let wide = inputs * row.expansion;
                let stride = if first && !dilated { row.stride } else { 1 };
                let expands = row.expansion != 1;
                let expand = expands.then(|| add("0.0", "0.1", ConvShape::new(inputs, wide, 1)));
                let shape = ConvShape {
                    stride,
                    dilation: if first { before } else { dilation },
                    groups: wide,
                    ..ConvShape::new(wide, wide, 3)
                };
                let [spatial, last] = if expands {
                    [["1.0", "1.1"], ["2", "3"]]
                } else {
                    [["0.0", "0.1"], ["1", "2"]]
                };
                let depthwise = add(spatial[0], spatial[1], shape);
                let project = add(last[0], last[1], ConvShape::new(wide, outputs, 1));
                let ends = row.last && block + 1 == row.blocks;
                blocks.push(Block {
                    expand,
                    depthwise,
                    project,
                    // The first block of a row with a stride has none, whatever became of the stride: the
                    // output stride changes the grid, not the network.
                    residual: !(first && row.stride > 1) && inputs == outputs,
                    tap: ends.then(|| TAPS[row.stage - 1]),
                });
                inputs = outputs;
            }
        }
        MobileNetV2 { stem, blocks }
    }

    /// `[N, 3, H, W]` to `c5`; `None` if the pass stopped before.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, images: Tensor<4>) -> Option<Maps> {
        let mut x = self.stem.forward(pass, images)?;
        for block in &self.blocks {
            x = block.forward(pass, &x);
            if let Some(tap) = block.tap {
                pass.offer(tap, || x.nchw(0));
                if pass.done() {
                    return None;
                }
            }
        }
        Some(x)
    }
}

/// Ends of stages 1 to 4.
const TAPS: [&str; 4] = ["backbone.c2", "backbone.c3", "backbone.c4", "backbone.c5"];
