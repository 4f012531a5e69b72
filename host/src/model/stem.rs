//! The first convolution of a backbone, and the taps in front of its stages.

use burn::tensor::Tensor;

use super::TapSpec;
use super::layers::ConvNorm;
use super::ops::Activation;
use super::pass::Pass;
use crate::maps::Maps;

/// The image.
const IMAGE: &str = "image";
/// What the convolution gives, before normalisation and activation.
const RAW: &str = "stem.conv";
/// After both.
const ACTIVATED: &str = "stem";

/// A convolution of stride 2, its normalisation and an activation.
#[derive(Clone, Debug)]
pub(super) struct Stem {
    pub(super) layer: ConvNorm,
    pub(super) activation: Activation,
}

impl Stem {
    /// `image` (the network's input), `stem.conv` and `stem`, of `channels`.
    pub(super) fn taps(channels: usize) -> Vec<TapSpec> {
        let tap = |name: &str, channels, stride| TapSpec {
            name: name.to_owned(),
            channels,
            stride,
        };
        vec![
            tap(IMAGE, 3, 1),
            tap(RAW, channels, 2),
            tap(ACTIVATED, channels, 2),
        ]
    }

    /// `[N, 3, H, W]` to maps of half the size, rounded up; `None` if the pass stopped before.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, images: Tensor<4>) -> Option<Maps> {
        pass.offer(IMAGE, || images.clone());
        if pass.done() {
            return None;
        }
        let images = Maps::from_nchw(images);
        let map = self
            .layer
            .forward_offering(RAW, pass, &images, self.activation)?;
        pass.offer(ACTIVATED, || map.nchw(0));
        (!pass.done()).then_some(map)
    }
}
