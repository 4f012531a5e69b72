//! DeepLabV3 (arXiv 1706.05587): torchvision's `deeplabv3_resnet50` without its auxiliary classifier,
//! with any of the backbones.
//!
//! The ASPP's output goes through no dropout, unlike torchvision's: it has no parameters, a pass has no
//! random draws of its own, and student and teacher see the same features in every pass.
//!
//! Without the ASPP the classifier is one 1×1 convolution on the backbone's last map, `classifier.weight`
//! and `classifier.bias`.

use burn::tensor::Tensor;

use super::backbone::{Backbone, BackboneKind, Placement};
use super::layers::{Builder, Conv, ConvNorm, ConvShape, Place};
use super::ops::{self, Activation};
use super::pass::Pass;
use super::validate::validate;
use super::{
    Forward, ForwardRequest, Model, ModelError, Output, ParamSpec, Part, SegmenterEntry, TapSpec,
};
use crate::config::{ModelConfig, NormKind, Task};
use crate::maps::Maps;

inventory::submit! {
    SegmenterEntry { name: "deeplabv3", build }
}

fn build(config: &ModelConfig, num_classes: usize) -> Result<Box<dyn Model>, ModelError> {
    let kind = BackboneKind::from_config(config)?;
    Ok(Box::new(DeepLab::new(config, kind, num_classes)?))
}

/// Maps round their sizes up, so that images of any size fit.
const SIZE_DIVISOR: usize = 1;

/// The architecture; weights come with each call.
#[derive(Clone, Debug)]
pub(super) struct DeepLab {
    specs: Vec<ParamSpec>,
    taps: Vec<TapSpec>,
    backbone: Backbone,
    /// ASPP and the classifier's 3×3 convolution.
    context: Option<(Aspp, ConvNorm)>,
    classifier: Conv,
    num_classes: usize,
}

impl DeepLab {
    /// The segmenter on a backbone `kind`, which stands for `config.backbone`.
    pub(super) fn new(
        config: &ModelConfig,
        kind: BackboneKind,
        num_classes: usize,
    ) -> Result<Self, ModelError> {
        validate(config, num_classes)?;
        let deeplab = &config.deeplab;
        let stride = deeplab.output_stride;
        let placement = Placement {
            prefix: "backbone",
            output_stride: stride,
        };
        let mut builder = Builder::default();
        let backbone = Backbone::new(
            &mut builder,
            kind,
            placement,
            config.norm,
            config.trainable_layers,
        );
        let mut taps = kind.taps(placement);
        let mut tap = |name: &str, channels| {
            taps.push(TapSpec {
                name: name.to_owned(),
                channels,
                stride,
            });
        };
        let [.., inputs] = kind.channels();
        let (context, classifier) = if deeplab.aspp {
            let channels = deeplab.aspp_channels;
            let aspp = Aspp::new(&mut builder, inputs, channels, deeplab.atrous_rates);
            let shape = ConvShape::new(channels, channels, 3);
            let names = ["classifier.1", "classifier.2"];
            let conv = builder.conv_norm(names, shape, learned(Part::Head, shape));
            let shape = ConvShape::new(channels, num_classes, 1);
            let classifier = builder.default_conv("classifier.4", shape, Part::Head);
            tap("aspp", channels);
            tap("feat.last", channels);
            (Some((aspp, conv)), classifier)
        } else {
            let shape = ConvShape::new(inputs, num_classes, 1);
            tap("feat.last", inputs);
            let classifier = builder.default_conv("classifier", shape, Part::Head);
            (None, classifier)
        };
        tap("logits", num_classes);
        Ok(DeepLab {
            specs: builder.finish(),
            taps,
            backbone,
            context,
            classifier,
            num_classes,
        })
    }

    /// What the last convolution reads; `None` if the pass stopped before.
    fn features(&self, pass: &mut Pass<'_>, images: Tensor<4>) -> Option<Maps> {
        let mut x = self.backbone.forward(pass, images)?;
        if let Some((aspp, conv)) = &self.context {
            x = aspp.forward(pass, &x);
            pass.offer("aspp", || x.nchw(0));
            if pass.done() {
                return None;
            }
            x = conv.forward(pass, &x, None, Activation::Relu);
        }
        pass.offer("feat.last", || x.nchw(0));
        (!pass.done()).then_some(x)
    }
}

impl Model for DeepLab {
    fn task(&self) -> Task {
        Task::Segmentation
    }

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn taps(&self) -> &[TapSpec] {
        &self.taps
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
        let mut pass = Pass::new(weights, &self.taps, request);
        let Some(features) = self.features(&mut pass, images) else {
            return pass.finish(Vec::new(), None);
        };
        let logits = self.classifier.forward(&pass, &features, false).nchw(0);
        let logits = ops::in_f32(logits);
        pass.offer("logits", || logits.clone());
        if pass.done() {
            return pass.finish(Vec::new(), None);
        }
        pass.finish(Vec::new(), Some(Output::Segmentation(logits)))
    }
}

/// A normalised convolution behind the backbone: it always learns, by the statistics of the batch, and
/// starts as PyTorch's own.
fn learned(part: Part, shape: ConvShape) -> Place {
    Place {
        part,
        init: shape.default_init(),
        norm: NormKind::Batch,
        trainable: true,
    }
}

/// Atrous spatial pyramid pooling: a 1×1 convolution, three dilated 3×3 ones and the image's mean side
/// by side, then a 1×1 convolution over all of them.
#[derive(Clone, Debug)]
struct Aspp {
    /// 1×1, then by dilation.
    branches: Vec<ConvNorm>,
    pooled: ConvNorm,
    project: ConvNorm,
}

impl Aspp {
    fn new(builder: &mut Builder, inputs: usize, channels: usize, rates: [usize; 3]) -> Self {
        let mut add = |names: [&str; 2], shape| {
            let names = names.map(|name| format!("classifier.0.{name}"));
            let place = learned(Part::Neck, shape);
            builder.conv_norm([&names[0], &names[1]], shape, place)
        };
        let pointwise = ConvShape::new(inputs, channels, 1);
        let mut branches = vec![add(["convs.0.0", "convs.0.1"], pointwise)];
        for (i, dilation) in (1..).zip(rates) {
            let names = [0, 1].map(|layer| format!("convs.{i}.{layer}"));
            let shape = ConvShape {
                dilation,
                ..ConvShape::new(inputs, channels, 3)
            };
            branches.push(add([&names[0], &names[1]], shape));
        }
        let pooled = add(["convs.4.1", "convs.4.2"], pointwise);
        let all = (branches.len() + 1) * channels;
        let project = ConvShape::new(all, channels, 1);
        let project = add(["project.0", "project.1"], project);
        Aspp {
            branches,
            pooled,
            project,
        }
    }

    /// # Panics
    /// On a batch of one image while training: the pooled branch has one value a channel then.
    fn forward(&self, pass: &mut Pass<'_>, x: &Maps) -> Maps {
        let segment = x.segment();
        assert!(
            segment.n > 1 || !pass.training(),
            "the ASPP normalises the means of images over the batch, and a batch of one image has no \
             variance; set `data.batch_size` to 2 or more, or `deeplab.aspp = false`"
        );
        let mut parts: Vec<Tensor<2>> = Vec::new();
        for branch in &self.branches {
            let y = branch.forward(pass, x, None, Activation::Relu);
            parts.push(y.cells().clone());
        }
        let pooled = ops::image_means(x);
        let pooled = self.pooled.forward(pass, &pooled, None, Activation::Relu);
        parts.push(ops::spread(&pooled, segment).cells().clone());
        let all = Maps::new(Tensor::cat(parts, 1), [segment]);
        self.project.forward(pass, &all, None, Activation::Relu)
    }
}
