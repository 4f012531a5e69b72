//! A pyramid enlarged between neck and head, so that the head predicts at the locations of an input of
//! another size: a network on small images beside one on large images, location by location.

use std::sync::Arc;

use super::fpn::LEVELS;
use super::ops;
use super::tap_table::map_size;
use crate::boxes::BoxXyxy;
use crate::detection::AnchorGenerator;
use crate::maps::Maps;

/// `[height, width]` in cells of each level, finest first.
pub(super) type LevelSizes = [[usize; 2]; LEVELS.len()];

/// How many times the pyramid is enlarged; 1: it is left alone.
///
/// Everything after the neck lies on the grid of the *large* input, which is the network input times
/// this. Boxes stay in pixels of the network input, so anchors are those of the large input divided by
/// it. Box deltas are relative to anchors: they are the same numbers in both frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PyramidScale(pub(super) f64);

impl PyramidScale {
    /// `[height, width]` in pixels of the large input; the network input has `input_size`.
    fn large(self, input_size: [usize; 2]) -> [usize; 2] {
        if self.0 == 1.0 {
            return input_size;
        }
        input_size.map(|extent| ((extent as f64 * self.0).round() as usize).max(1))
    }

    /// Sizes of `p3..p7` as the head reads them.
    pub(super) fn level_sizes(self, input_size: [usize; 2]) -> LevelSizes {
        let large = self.large(input_size);
        LEVELS.map(|level| map_size(large, 1 << level))
    }

    /// Pixels of the network input per cell of a map of `stride` pixels of the large one, to the nearest
    /// whole number.
    pub(super) fn stride(self, stride: usize) -> usize {
        ((stride as f64 / self.0).round() as usize).max(1)
    }

    /// Anchors of an input of `input_size`, in its pixels.
    ///
    /// With a power of two they are the large input's to the bit, once multiplied; with another scale to
    /// the rounding of an f32.
    pub(super) fn anchors(
        self,
        generator: &AnchorGenerator,
        input_size: [usize; 2],
    ) -> Arc<Vec<BoxXyxy>> {
        let large = self.large(input_size);
        let mut anchors = generator.anchors(large, &self.level_sizes(input_size));
        if self.0 != 1.0 {
            for side in Arc::make_mut(&mut anchors).as_flattened_mut() {
                *side = (f64::from(*side) / self.0) as f32;
            }
        }
        anchors
    }

    /// A pixel of the large input in pixels of the network input.
    pub(super) fn pixel(self) -> f32 {
        (1.0 / self.0) as f32
    }

    /// The map of `level` as the head reads it, from that of the neck. Cell `i` of a map of stride 2ˡ
    /// stands for pixel `i · 2ˡ`, so cell `i` of the large grid reads at `i / scale`.
    pub(super) fn enlarge(self, map: &Maps, position: usize, input_size: [usize; 2]) -> Maps {
        if self.0 == 1.0 {
            return map.clone();
        }
        ops::enlarge(map, self.level_sizes(input_size)[position], self.0)
    }
}
