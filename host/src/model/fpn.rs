//! Feature pyramid (arXiv 1612.03144) on `c3..c5` with RetinaNet's and FCOS's extra levels, as
//! torchvision's `FeaturePyramidNetwork` with `LastLevelP6P7`.

use super::layers::{Builder, Conv, ConvShape};
use super::ops;
use super::pass::Pass;
use super::{Init, Part};
use crate::maps::Maps;

/// Levels of the pyramid; level `l` has stride `2^l`.
pub(super) const LEVELS: [usize; 5] = [3, 4, 5, 6, 7];

/// Five maps of one width.
#[derive(Clone, Debug)]
pub(super) struct Fpn {
    /// 1×1 on `c3, c4, c5`.
    inner: [Conv; 3],
    /// 3×3 to `p3, p4, p5`.
    layer: [Conv; 3],
    /// From `p5`: torchvision takes `c5` only where `LastLevelP6P7` is given two widths, which
    /// neither its RetinaNet (v1) nor its FCOS does.
    p6: Conv,
    p7: Conv,
}

impl Fpn {
    /// `inputs` are the channels of `c3, c4, c5`.
    pub(super) fn new(builder: &mut Builder, inputs: [usize; 3], channels: usize) -> Self {
        let mut conv = |name: String, inputs, kernel, stride| {
            let shape = ConvShape {
                inputs,
                outputs: channels,
                kernel,
                stride,
                dilation: 1,
                groups: 1,
            };
            let name = format!("backbone.fpn.{name}");
            builder.conv(&name, shape, Part::Neck, Init::KaimingUniformFanIn, 0.0)
        };
        Fpn {
            inner: [0, 1, 2].map(|i| conv(format!("inner_blocks.{i}.0"), inputs[i], 1, 1)),
            layer: [0, 1, 2].map(|i| conv(format!("layer_blocks.{i}.0"), channels, 3, 1)),
            p6: conv("extra_blocks.p6".into(), channels, 3, 2),
            p7: conv("extra_blocks.p7".into(), channels, 3, 2),
        }
    }

    /// `c3, c4, c5` to `p3..p7`; a level that the pass does not need is `None`. Taps are for the caller
    /// to offer.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, stages: [Maps; 3]) -> [Option<Maps>; 5] {
        let needs = LEVELS.map(|level| pass.needs_level(level));
        // What feeds another level is needed for its sake.
        let needs_p6 = needs[3] || needs[4];
        let outputs = [needs[0], needs[1], needs[2] || needs_p6];

        let mut pyramid = [const { None }; 5];
        let mut coarser: Option<Maps> = None;
        // Top down; below the finest wanted level nothing is left to do.
        let finest = outputs.iter().position(|&needed| needed).unwrap_or(3);
        for i in (finest..3).rev() {
            let lateral = self.inner[i].forward(pass, &stages[i], false);
            let merged = match coarser {
                Some(coarser) => ops::upsample_add(&lateral, &coarser),
                None => lateral,
            };
            if outputs[i] {
                pyramid[i] = Some(self.layer[i].forward(pass, &merged, false));
            }
            coarser = Some(merged);
        }
        if let (true, Some(p5)) = (needs_p6, &pyramid[2]) {
            let p6 = self.p6.forward(pass, p5, false);
            if needs[4] {
                pyramid[4] = Some(self.p7.forward(pass, &ops::relu(&p6), false));
            }
            pyramid[3] = Some(p6);
        }
        pyramid
    }
}

/// Name of the tap of the map on `level` that the head reads.
pub(super) fn tap_name(level: usize) -> String {
    format!("neck.p{level}")
}
