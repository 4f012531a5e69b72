//! The network that one-stage detectors share: ResNet, feature pyramid, a head on all its levels.

use burn::tensor::Tensor;

use super::fpn::{Fpn, LEVELS};
use super::head::Head;
use super::layers::Builder;
use super::pass::Pass;
use super::resnet::{ResNet, Variant};
use super::tap_table::map_size;
use super::{Forward, ForwardRequest, ParamSpec, TapSpec};
use crate::config::ModelConfig;
use crate::detection::HeadOutput;
use crate::maps::Maps;

/// Levels of the pyramid.
pub(super) const NUM_LEVELS: usize = LEVELS.len();

/// Inputs are padded to a multiple of this: torchvision's.
pub(super) const SIZE_DIVISOR: usize = 32;

/// The architecture; weights come with each call.
#[derive(Clone, Debug)]
pub(super) struct OneStage {
    pub(super) specs: Vec<ParamSpec>,
    pub(super) taps: Vec<TapSpec>,
    backbone: ResNet,
    neck: Fpn,
    head: Head,
}

impl OneStage {
    /// The network on a backbone `variant`, which stands for `config.backbone`, with what `head`
    /// builds.
    pub(super) fn new(
        config: &ModelConfig,
        variant: Variant,
        head: impl FnOnce(&mut Builder) -> Head,
    ) -> Self {
        let mut builder = Builder::default();
        let backbone = ResNet::new(&mut builder, &variant, config.norm, config.trainable_layers);
        let [_, c3, c4, c5] = variant.channels();
        let neck = Fpn::new(&mut builder, [c3, c4, c5], config.fpn_channels);
        let head = head(&mut builder);
        let mut taps = ResNet::taps(&variant);
        taps.extend(Fpn::taps(config.fpn_channels));
        taps.extend(head.taps());
        OneStage {
            specs: builder.finish(),
            taps,
            backbone,
            neck,
            head,
        }
    }

    /// See [`Detector::forward`](super::Detector::forward).
    pub(super) fn forward(
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

    /// See [`Detector::head_taps`](super::Detector::head_taps).
    pub(super) fn head_taps(&self) -> Vec<String> {
        LEVELS.map(|level| format!("neck.p{level}")).to_vec()
    }

    /// See [`Detector::head`](super::Detector::head).
    pub(super) fn head(&self, weights: &[Tensor<1>], pyramid: &[Tensor<4>]) -> HeadOutput {
        let maps = pyramid.iter().cloned().map(Maps::from_nchw).collect();
        self.head.forward(&mut Pass::untapped(weights), maps)
    }
}

/// `[height, width]` in cells of `p3..p7` of an input of `[height, width]` pixels.
pub(super) fn level_sizes(input_size: [usize; 2]) -> [[usize; 2]; NUM_LEVELS] {
    LEVELS.map(|level| map_size(input_size, 1 << level))
}
