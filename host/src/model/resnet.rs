//! ResNet backbones (arXiv 1512.03385) as torchvision builds them: v1.5, stride on the 3×3.
//!
//! An output stride below 32 is torchvision's `replace_stride_with_dilation`: a stage whose stride is
//! replaced doubles the dilation of its 3×3 convolutions, but for its first block, which keeps that of
//! the stage before. torchvision refuses that for basic blocks; here they follow the same rule with both
//! of their convolutions.

use burn::tensor::Tensor;

use super::backbone::Placement;
use super::layers::{Builder, ConvNorm, ConvShape, Place};
use super::ops::{self, Activation};
use super::pass::Pass;
use super::stem::Stem;
use super::{Init, ModelError, Part, TapSpec};
use crate::config::{ModelConfig, NormKind};
use crate::maps::Maps;

/// Residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3, 1×1 with four times the channels at the end.
    Bottleneck,
}

impl BlockKind {
    fn expansion(self) -> usize {
        match self {
            BlockKind::Basic => 1,
            BlockKind::Bottleneck => 4,
        }
    }
}

/// A member of the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) block: BlockKind,
    /// Blocks of each stage.
    pub(super) blocks: [usize; 4],
    /// Channels of the stem and planes of the first stage; each next stage doubles them.
    pub(super) width: usize,
}

impl Variant {
    /// The variant that `config.backbone` names.
    pub(super) fn from_config(config: &ModelConfig) -> Result<Self, ModelError> {
        let (block, blocks) = match config.backbone.as_str() {
            "resnet18" => (BlockKind::Basic, [2, 2, 2, 2]),
            "resnet34" => (BlockKind::Basic, [3, 4, 6, 3]),
            "resnet50" => (BlockKind::Bottleneck, [3, 4, 6, 3]),
            "resnet101" => (BlockKind::Bottleneck, [3, 4, 23, 3]),
            "tiny" => {
                return Ok(Variant {
                    block: BlockKind::Basic,
                    blocks: config.tiny_blocks,
                    width: config.tiny_width,
                });
            }
            "mobilenet_v2" => {
                return Err(ModelError::Config {
                    key: "backbone",
                    reason:
                        "detectors have no `mobilenet_v2`, segmenters and classifiers do; known: \
                             resnet18, resnet34, resnet50, resnet101, tiny"
                            .into(),
                });
            }
            other => {
                return Err(ModelError::Config {
                    key: "backbone",
                    reason: format!(
                        "unknown backbone `{other}`; known: resnet18, resnet34, resnet50, \
                         resnet101, tiny, mobilenet_v2 (not of a detector)"
                    ),
                });
            }
        };
        Ok(Variant {
            block,
            blocks,
            width: 64,
        })
    }

    /// Channels of `c2..c5`.
    pub(super) fn channels(&self) -> [usize; 4] {
        [1, 2, 4, 8].map(|factor| self.width * factor * self.block.expansion())
    }
}

#[derive(Clone, Debug)]
struct Block {
    /// Run in order with a ReLU after each but the last.
    convs: Vec<ConvNorm>,
    /// Brings the input to the output's shape where they differ.
    downsample: Option<ConvNorm>,
}

impl Block {
    fn forward(&self, pass: &mut Pass<'_>, x: &Maps) -> Maps {
        let identity = match &self.downsample {
            Some(downsample) => downsample.forward(pass, x, None, Activation::None),
            None => x.clone(),
        };
        let (last, convs) = self.convs.split_last().expect("a block has convolutions");
        let mut out = x.clone();
        for conv in convs {
            out = conv.forward(pass, &out, None, Activation::Relu);
        }
        last.forward(pass, &out, Some(&identity), Activation::Relu)
    }
}

/// Stem and four stages, without pooling and classifier.
#[derive(Clone, Debug)]
pub(super) struct ResNet {
    stem: Stem,
    stages: [Vec<Block>; 4],
}

impl ResNet {
    /// `trainable_layers` counts from the last stage; the stem is the fifth.
    pub(super) fn new(
        builder: &mut Builder,
        variant: &Variant,
        placement: Placement,
        norm: NormKind,
        trainable_layers: usize,
    ) -> Self {
        let place = |trainable| Place {
            part: Part::Backbone,
            init: Init::KaimingNormalFanOut,
            norm,
            trainable,
        };
        let stem = Stem {
            layer: builder.conv_norm(
                [&placement.name("conv1"), &placement.name("bn1")],
                ConvShape {
                    stride: 2,
                    ..ConvShape::new(3, variant.width, 7)
                },
                place(trainable_layers >= 5),
            ),
            activation: Activation::Relu,
        };
        let mut inputs = variant.width;
        let mut dilation = 1;
        let strides = placement.strides();
        let stages = std::array::from_fn(|stage| {
            let planes = variant.width << stage;
            let place = place(trainable_layers >= 4 - stage);
            let dilated = stage > 0 && strides[stage] == strides[stage - 1];
            let before = dilation;
            if dilated {
                dilation *= 2;
            }
            (0..variant.blocks[stage])
                .map(|block| {
                    let first = block == 0;
                    let stride = if stage > 0 && first && !dilated { 2 } else { 1 };
                    let dilation = if first { before } else { dilation };
                    let name = placement.name(&format!("layer{}.{block}", stage + 1));
                    let mut add = |names: [&str; 2], inputs, outputs, kernel, stride| {
                        let shape = ConvShape {
                            stride,
                            dilation,
                            ..ConvShape::new(inputs, outputs, kernel)
                        };
                        let names = names.map(|part| format!("{name}.{part}"));
                        builder.conv_norm([&names[0], &names[1]], shape, place)
                    };
                    let outputs = planes * variant.block.expansion();
                    let convs = match variant.block {
                        BlockKind::Basic => vec![
                            add(["conv1", "bn1"], inputs, planes, 3, stride),
                            add(["conv2", "bn2"], planes, outputs, 3, 1),
                        ],
                        BlockKind::Bottleneck => vec![
                            add(["conv1", "bn1"], inputs, planes, 1, 1),
                            add(["conv2", "bn2"], planes, planes, 3, stride),
                            add(["conv3", "bn3"], planes, outputs, 1, 1),
                        ],
                    };
                    let downsample = (stride != 1 || inputs != outputs).then(|| {
                        let names = ["downsample.0", "downsample.1"];
                        add(names, inputs, outputs, 1, stride)
                    });
                    inputs = outputs;
                    Block { convs, downsample }
                })
                .collect()
        });
        ResNet { stem, stages }
    }

    /// `image` (the network's input), `stem.conv` (the first convolution alone), `stem` (after the ReLU,
    /// before the max-pool) and `backbone.c2..c5`.
    pub(super) fn taps(variant: &Variant, placement: Placement) -> Vec<TapSpec> {
        let mut taps = Stem::taps(variant.width);
        for (stage, channels) in variant.channels().into_iter().enumerate() {
            taps.push(TapSpec {
                name: format!("backbone.c{}", stage + 2),
                channels,
                stride: placement.strides()[stage],
            });
        }
        taps
    }

    /// `[N, 3, H, W]` to `c3, c4, c5`; `None` if the pass stopped before.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, images: Tensor<4>) -> Option<[Maps; 3]> {
        let stem = self.stem.forward(pass, images)?;
        let mut x = ops::max_pool_3x3_s2(&stem);
        drop(stem);
        let mut outputs = Vec::with_capacity(self.stages.len());
        for (stage, blocks) in self.stages.iter().enumerate() {
            for block in blocks {
                x = block.forward(pass, &x);
            }
            pass.offer(&format!("backbone.c{}", stage + 2), || x.nchw(0));
            if pass.done() {
                return None;
            }
            outputs.push(x.clone());
        }
        let [_, c3, c4, c5] = outputs.try_into().expect("a ResNet has four stages");
        Some([c3, c4, c5])
    }
}
