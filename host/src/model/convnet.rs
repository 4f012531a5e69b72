//! Convolutional classifiers: torchvision's `resnet18` and its kin and `mobilenet_v2`, parameter names
//! included. The mean of the last map over the image goes into one linear layer.
//!
//! MobileNetV2's dropout before the linear layer is left out, unlike torchvision's: it has no
//! parameters, a pass has no random draws of its own, and student and teacher see the same features in
//! every pass.

use burn::tensor::Tensor;

use super::backbone::{Backbone, BackboneKind, Placement};
use super::layers::{Builder, ConvNorm, Linear};
use super::mobilenet;
use super::ops::{self, Activation};
use super::pass::Pass;
use super::validate::validate;
use super::{
    ClassifierEntry, Forward, ForwardRequest, Init, Model, ModelError, Output, ParamSpec, Part,
    TapSpec,
};
use crate::config::{ModelConfig, Task};
use crate::maps::Maps;

inventory::submit! {
    ClassifierEntry { name: "convnet", build }
}

fn build(config: &ModelConfig, num_classes: usize) -> Result<Box<dyn Model>, ModelError> {
    let kind = BackboneKind::from_config(config)?;
    Ok(Box::new(ConvNet::new(config, kind, num_classes)?))
}

/// Maps round their sizes up, so that images of any size fit.
const SIZE_DIVISOR: usize = 1;

/// Input pixels per cell of the last map: a classifier is not dilated.
const STRIDE: usize = 32;

/// The architecture; weights come with each call.
#[derive(Clone, Debug)]
pub(super) struct ConvNet {
    specs: Vec<ParamSpec>,
    taps: Vec<TapSpec>,
    backbone: Backbone,
    /// MobileNetV2's 1×1 convolution after its blocks.
    last: Option<ConvNorm>,
    classifier: Linear,
    num_classes: usize,
}

impl ConvNet {
    /// The classifier on a backbone `kind`, which stands for `config.backbone`.
    pub(super) fn new(
        config: &ModelConfig,
        kind: BackboneKind,
        num_classes: usize,
    ) -> Result<Self, ModelError> {
        validate(config, num_classes)?;
        let placement = Placement {
            prefix: match kind {
                BackboneKind::ResNet(_) => "",
                BackboneKind::MobileNetV2(_) => "features",
            },
            output_stride: STRIDE,
        };
        let (norm, layers) = (config.norm, config.trainable_layers);
        let mut builder = Builder::default();
        let backbone = Backbone::new(&mut builder, kind, placement, norm, layers);
        let (last, channels, classifier) = match kind {
            BackboneKind::ResNet(variant) => {
                let [.., channels] = variant.channels();
                let classifier = builder.default_linear("fc", [num_classes, channels], Part::Head);
                (None, channels, classifier)
            }
            BackboneKind::MobileNetV2(width) => {
                let last = mobilenet::last_layer(&mut builder, width, placement, norm, layers);
                let channels = mobilenet::last_channels(width);
                let classifier = builder.linear(
                    "classifier.1",
                    [num_classes, channels],
                    Part::Head,
                    [Init::Normal { std: 0.01 }, Init::Constant(0.0)],
                );
                (Some(last), channels, classifier)
            }
        };
        let mut taps = kind.taps(placement);
        for (name, channels, stride) in [
            ("feat.last", channels, STRIDE),
            // Of the whole image.
            ("logits", num_classes, 0),
        ] {
            taps.push(TapSpec {
                name: name.to_owned(),
                channels,
                stride,
            });
        }
        Ok(ConvNet {
            specs: builder.finish(),
            taps,
            backbone,
            last,
            classifier,
            num_classes,
        })
    }

    /// What is pooled; `None` if the pass stopped before.
    fn features(&self, pass: &mut Pass<'_>, images: Tensor<4>) -> Option<Maps> {
        let mut x = self.backbone.forward(pass, images)?;
        if let Some(last) = &self.last {
            x = last.forward(pass, &x, None, Activation::Relu6);
        }
        pass.offer("feat.last", || x.nchw(0));
        (!pass.done()).then_some(x)
    }
}

impl Model for ConvNet {
    fn task(&self) -> Task {
        Task::Classification
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
        let pooled = ops::image_means(&features);
        let logits = self.classifier.forward(&pass, pooled.cells().clone());
        let logits = ops::in_f32(logits);
        pass.offer("logits", || {
            let [images, classes] = logits.dims();
            logits.clone().reshape([images, classes, 1, 1])
        });
        if pass.done() {
            return pass.finish(Vec::new(), None);
        }
        pass.finish(Vec::new(), Some(Output::Classification(logits)))
    }
}
