//! RetinaNet (arXiv 1708.02002) on ResNet and FPN: torchvision's `retinanet_resnet50_fpn`, first
//! version, with any of the backbones.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::fpn::{Fpn, LEVELS};
use super::head::{Head, HeadShape};
use super::layers::Builder;
use super::pass::Pass;
use super::resnet::{ResNet, Variant};
use super::tap_table::map_size;
use super::validate::validate;
use super::{Detector, DetectorEntry, Forward, ForwardRequest, ModelError, ParamSpec, TapSpec};
use crate::boxes::BoxXyxy;
use crate::config::ModelConfig;
use crate::data::ImageTargets;
use crate::detection::{
    self, AnchorGenerator, Assignment, Detections, HeadOutput, LocationLosses, LossConfig,
    PostprocessConfig,
};
use crate::maps::Maps;

inventory::submit! {
    DetectorEntry { name: "retinanet", build }
}

fn build(config: &ModelConfig, num_classes: usize) -> Result<Box<dyn Detector>, ModelError> {
    let variant = Variant::from_config(config)?;
    Ok(Box::new(RetinaNet::new(config, variant, num_classes)?))
}

/// The architecture; weights come with each call.
#[derive(Clone, Debug)]
pub(super) struct RetinaNet {
    specs: Vec<ParamSpec>,
    taps: Vec<TapSpec>,
    backbone: ResNet,
    neck: Fpn,
    head: Head,
    num_classes: usize,
    anchors: AnchorGenerator,
    fg_iou_threshold: f32,
    bg_iou_threshold: f32,
    loss: LossConfig,
    postprocess: PostprocessConfig,
}

impl RetinaNet {
    /// The detector on a backbone `variant`, which stands for `config.backbone`.
    pub(super) fn new(
        config: &ModelConfig,
        variant: Variant,
        num_classes: usize,
    ) -> Result<Self, ModelError> {
        validate(config, num_classes)?;
        let mut builder = Builder::default();
        let backbone = ResNet::new(&mut builder, &variant, config.norm, config.trainable_layers);
        let [_, c3, c4, c5] = variant.channels();
        let neck = Fpn::new(&mut builder, [c3, c4, c5], config.fpn_channels);
        let anchors = AnchorGenerator::new(
            config.anchor_base_size,
            &config.anchor_scales,
            &config.anchor_ratios,
            LEVELS.len(),
        );
        let head_shape = HeadShape {
            channels: config.fpn_channels,
            convs: config.head_convs,
            anchors_per_cell: anchors.per_cell(),
            num_classes,
        };
        let head = Head::new(&mut builder, head_shape);

        let mut taps = ResNet::taps(&variant);
        taps.extend(Fpn::taps(config.fpn_channels));
        taps.extend(Head::taps(&head_shape));
        Ok(RetinaNet {
            specs: builder.finish(),
            taps,
            backbone,
            neck,
            head,
            num_classes,
            anchors,
            fg_iou_threshold: config.fg_iou_threshold,
            bg_iou_threshold: config.bg_iou_threshold,
            loss: LossConfig {
                num_classes,
                focal_alpha: config.focal_alpha,
                focal_gamma: config.focal_gamma,
                box_loss: config.box_loss,
                box_loss_weight: config.box_loss_weight,
            },
            postprocess: PostprocessConfig {
                num_classes,
                score_threshold: config.score_threshold,
                nms_threshold: config.nms_threshold,
                topk_candidates: config.topk_candidates,
                detections_per_image: config.detections_per_image,
            },
        })
    }
}

impl Detector for RetinaNet {
    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn taps(&self) -> &[TapSpec] {
        &self.taps
    }

    fn size_divisor(&self) -> usize {
        32
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
        let Some(stages) = self.backbone.forward(&mut pass, images) else {
            return pass.finish(Vec::new(), None);
        };
        let levels = self.neck.forward(&mut pass, stages);
        let levels = LEVELS.into_iter().zip(levels);
        let levels: Vec<(usize, Maps)> = levels
            .filter_map(|(level, map)| Some((level, map?)))
            .collect();
        if request.stop_at_taps {
            self.head.run_to_taps(&mut pass, &levels);
            return pass.finish(Vec::new(), None);
        }
        let pyramid = levels.iter().map(|(_, map)| map.nchw(0)).collect();
        let maps = levels.into_iter().map(|(_, map)| map).collect();
        let head = self.head.forward(&mut pass, maps);
        pass.finish(pyramid, Some(head))
    }

    fn head_taps(&self) -> Vec<String> {
        LEVELS.map(|level| format!("neck.p{level}")).to_vec()
    }

    fn head(&self, weights: &[Tensor<1>], pyramid: &[Tensor<4>]) -> HeadOutput {
        let maps = pyramid.iter().cloned().map(Maps::from_nchw).collect();
        self.head.forward(&mut Pass::untapped(weights), maps)
    }

    fn anchors(&self, input_size: [usize; 2]) -> Arc<Vec<BoxXyxy>> {
        let level_sizes = LEVELS.map(|level| map_size(input_size, 1 << level));
        self.anchors.anchors(input_size, &level_sizes)
    }

    fn decoded_boxes(&self, head: &HeadOutput, input_size: [usize; 2]) -> Vec<BoxXyxy> {
        let anchors = self.anchors(input_size);
        detection::decoded_boxes(head, &anchors, self.num_classes)
    }

    fn location_losses(&self, head: &HeadOutput, assignment: &Assignment) -> LocationLosses {
        detection::retinanet_location_losses(head, assignment, &self.loss)
    }

    fn assign(&self, input_size: [usize; 2], targets: &[ImageTargets]) -> Assignment {
        detection::assign(
            self.anchors(input_size),
            targets,
            self.fg_iou_threshold,
            self.bg_iou_threshold,
        )
    }

    fn losses(&self, head: &HeadOutput, assignment: &Assignment) -> Vec<(&'static str, Tensor<1>)> {
        detection::retinanet_losses(head, assignment, &self.loss)
    }

    fn detect(
        &self,
        head: &HeadOutput,
        input_size: [usize; 2],
        sizes: &[[usize; 2]],
    ) -> Vec<Detections> {
        let anchors = self.anchors(input_size);
        detection::detect(head, &anchors, sizes, &self.postprocess)
    }
}
