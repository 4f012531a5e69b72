//! What one-stage detectors share: ResNet, feature pyramid, a head on all its levels, and everything
//! that is said of its locations. A detector adds its head and its [`Rules`].

use std::sync::Arc;

use burn::tensor::Tensor;

use super::backbone::Placement;
use super::fpn::{self, Fpn, LEVELS};
use super::head::Head;
use super::layers::Builder;
use super::pass::Pass;
use super::pyramid_scale::{LevelSizes, PyramidScale};
use super::resnet::{ResNet, Variant};
use super::{Detector, Forward, ForwardRequest, Model, Output, ParamSpec, TapSpec, map_size};
use crate::boxes::BoxXyxy;
use crate::config::{BoxLoss, ModelConfig, Task};
use crate::data::ImageTargets;
use crate::detection::{
    self, AnchorGenerator, Assignment, BoxCoder, Detections, HeadOutput, LocationLosses,
    LossConfig, PostprocessConfig,
};
use crate::maps::Maps;

/// Levels of the pyramid.
pub(super) const NUM_LEVELS: usize = LEVELS.len();

/// Inputs are padded to a multiple of this: torchvision's.
const SIZE_DIVISOR: usize = 32;

/// How a detector learns from ground truth.
pub(super) trait Rules: Send + Sync {
    /// Matches ground truth to `anchors`, which lie on `grid`.
    fn assign(
        &self,
        anchors: Arc<Vec<BoxXyxy>>,
        grid: Grid,
        targets: &[ImageTargets],
    ) -> Assignment;
    /// See [`Detector::losses`].
    fn losses(
        &self,
        head: &HeadOutput,
        assignment: &Assignment,
        config: &LossConfig,
    ) -> Vec<(&'static str, Tensor<1>)>;
}

/// What anchors lie on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// Cells of each level.
    pub(super) level_sizes: LevelSizes,
    /// Side of a pixel of the input for which anchors were laid out, in pixels of the network input.
    pub(super) pixel: f32,
}

/// What a detector's locations are, and its rules.
pub(super) struct Design<R> {
    pub(super) anchors: AnchorGenerator,
    pub(super) box_coder: BoxCoder,
    pub(super) box_loss: BoxLoss,
    pub(super) rules: R,
}

/// The architecture; weights come with each call.
#[derive(Clone, Debug)]
pub(super) struct OneStage<R> {
    specs: Vec<ParamSpec>,
    taps: Vec<TapSpec>,
    backbone: ResNet,
    neck: Fpn,
    head: Head,
    scale: PyramidScale,
    anchors: AnchorGenerator,
    loss: LossConfig,
    postprocess: PostprocessConfig,
    rules: R,
}

impl<R: Rules> OneStage<R> {
    /// The detector on a backbone `variant`, which stands for `config.backbone`, with what `head`
    /// builds.
    pub(super) fn build(
        config: &ModelConfig,
        variant: Variant,
        num_classes: usize,
        design: Design<R>,
        head: impl FnOnce(&mut Builder) -> Head,
    ) -> Self {
        let Design {
            anchors,
            box_coder,
            box_loss,
            rules,
        } = design;
        let mut builder = Builder::default();
        let backbone = ResNet::new(
            &mut builder,
            &variant,
            Placement::DETECTOR,
            config.norm,
            config.trainable_layers,
        );
        let [_, c3, c4, c5] = variant.channels();
        let neck = Fpn::new(&mut builder, [c3, c4, c5], config.fpn_channels);
        let head = head(&mut builder);
        let scale = PyramidScale(config.pyramid_scale);
        let mut taps = ResNet::taps(&variant, Placement::DETECTOR);
        let necks = LEVELS.map(|level| TapSpec {
            name: fpn::tap_name(level),
            channels: config.fpn_channels,
            stride: 1 << level,
        });
        let after_neck = necks.into_iter().chain(head.taps());
        taps.extend(after_neck.map(|tap| TapSpec {
            stride: scale.stride(tap.stride),
            ..tap
        }));
        OneStage {
            specs: builder.finish(),
            taps,
            backbone,
            neck,
            head,
            scale,
            anchors,
            loss: LossConfig {
                num_classes,
                focal_alpha: config.focal_alpha,
                focal_gamma: config.focal_gamma,
                box_coder,
                box_loss,
                box_loss_weight: config.box_loss_weight,
            },
            postprocess: PostprocessConfig {
                num_classes,
                box_coder,
                score_threshold: config.score_threshold,
                nms_threshold: config.nms_threshold,
                topk_candidates: config.topk_candidates,
                detections_per_image: config.detections_per_image,
            },
            rules,
        }
    }
}

impl<R: Rules + 'static> Model for OneStage<R> {
    fn task(&self) -> Task {
        Task::Detection
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
        self.loss.num_classes
    }

    fn forward(
        &self,
        weights: &[Tensor<1>],
        images: Tensor<4>,
        request: &ForwardRequest,
    ) -> Forward {
        let mut pass = Pass::new(weights, &self.taps, request);
        let [_, _, height, width] = images.dims();
        let Some(stages) = self.backbone.forward(&mut pass, images) else {
            return pass.finish(Vec::new(), None);
        };
        let levels = self.neck.forward(&mut pass, stages);
        let levels: Vec<(usize, Maps)> = LEVELS
            .into_iter()
            .zip(levels)
            .enumerate()
            .filter_map(|(position, (level, map))| {
                let map = self.scale.enlarge(&map?, position, [height, width]);
                pass.offer(&fpn::tap_name(level), || map.nchw(0));
                Some((level, map))
            })
            .collect();
        if request.stop_at_taps {
            self.head.run_to_taps(&mut pass, &levels);
            return pass.finish(Vec::new(), None);
        }
        let pyramid = levels.iter().map(|(_, map)| map.nchw(0)).collect();
        let maps = levels.into_iter().map(|(_, map)| map).collect();
        let head = self.head.forward(&mut pass, maps);
        pass.finish(pyramid, Some(Output::Detection(head)))
    }

    fn tap_size(&self, tap: &TapSpec, input_size: [usize; 2]) -> [usize; 2] {
        let on_level = |level: &usize| tap.name.ends_with(&format!(".p{level}"));
        match LEVELS.iter().position(on_level) {
            Some(position) => self.scale.level_sizes(input_size)[position],
            None => map_size(input_size, tap.stride),
        }
    }

    fn head_taps(&self) -> Vec<String> {
        LEVELS.map(fpn::tap_name).to_vec()
    }

    fn as_detector(&self) -> Option<&dyn Detector> {
        Some(self)
    }
}

impl<R: Rules + 'static> Detector for OneStage<R> {
    fn head(&self, weights: &[Tensor<1>], pyramid: &[Tensor<4>]) -> HeadOutput {
        let maps = pyramid.iter().cloned().map(Maps::from_nchw).collect();
        self.head.forward(&mut Pass::untapped(weights), maps)
    }

    fn anchors(&self, input_size: [usize; 2]) -> Arc<Vec<BoxXyxy>> {
        self.scale.anchors(&self.anchors, input_size)
    }

    fn decoded_boxes(&self, head: &HeadOutput, input_size: [usize; 2]) -> Vec<BoxXyxy> {
        let anchors = self.anchors(input_size);
        let LossConfig {
            box_coder,
            num_classes,
            ..
        } = self.loss;
        detection::decoded_boxes(head, &anchors, box_coder, num_classes)
    }

    fn location_losses(&self, head: &HeadOutput, assignment: &Assignment) -> LocationLosses {
        detection::location_losses(head, assignment, &self.loss)
    }

    fn assign(&self, input_size: [usize; 2], targets: &[ImageTargets]) -> Assignment {
        let anchors = self.anchors(input_size);
        let grid = Grid {
            level_sizes: self.scale.level_sizes(input_size),
            pixel: self.scale.pixel(),
        };
        self.rules.assign(anchors, grid, targets)
    }

    fn losses(&self, head: &HeadOutput, assignment: &Assignment) -> Vec<(&'static str, Tensor<1>)> {
        self.rules.losses(head, assignment, &self.loss)
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
