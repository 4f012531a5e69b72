//! Feature maps as models pass them on: channels last, maps of several sizes packed together.

use std::sync::Arc;

use burn::tensor::Tensor;

pub use crate::kernels::maps::Segment;

/// Maps of one or several sizes and equal channels: a pyramid, or one map.
///
/// Rows are cells: size by size, image by image, row-major. Layers that all levels share run on all
/// of them at once, and a level's own part is a range of rows.
#[derive(Clone, Debug)]
pub struct Maps {
    /// `[cells, channels]`.
    cells: Tensor<2>,
    segments: Arc<[Segment]>,
}

impl Maps {
    /// Maps whose `cells` `[cells, channels]` are those of `segments`.
    ///
    /// # Panics
    /// If the number of cells is another.
    #[must_use]
    pub fn new(cells: Tensor<2>, segments: impl Into<Arc<[Segment]>>) -> Self {
        let segments = segments.into();
        let expected: usize = segments.iter().map(Segment::cells).sum();
        assert_eq!(cells.dims()[0], expected, "a row for each cell of the maps");
        Maps { cells, segments }
    }

    /// One map `[N, C, H, W]`. Differentiable.
    #[must_use]
    pub fn from_nchw(map: Tensor<4>) -> Self {
        let [n, c, h, w] = map.dims();
        let cells = map.permute([0, 2, 3, 1]).reshape([n * h * w, c]);
        Maps::new(cells, [Segment::new(n, h, w)])
    }

    /// Maps `[N, C, H, W]` of equal channels, packed. Differentiable.
    #[must_use]
    pub fn pack_nchw(maps: &[Tensor<4>]) -> Self {
        Maps::pack(maps.iter().cloned().map(Maps::from_nchw).collect())
    }

    /// Several maps of equal channels as one pyramid. Differentiable.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn pack(mut levels: Vec<Maps>) -> Self {
        if levels.len() == 1 {
            return levels.remove(0);
        }
        let segments: Vec<Segment> = levels
            .iter()
            .flat_map(|level| level.segments.iter().copied())
            .collect();
        let cells = levels.into_iter().map(|level| level.cells).collect();
        Maps::new(Tensor::cat(cells, 0), segments)
    }

    /// Sizes, in order.
    #[must_use]
    pub fn segments(&self) -> &Arc<[Segment]> {
        &self.segments
    }

    /// `[cells, channels]`.
    #[must_use]
    pub fn cells(&self) -> &Tensor<2> {
        &self.cells
    }

    /// Channels of every map.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.cells.dims()[1]
    }

    /// The rows of size `level`.
    #[must_use]
    pub fn rows(&self, level: usize) -> std::ops::Range<usize> {
        let start = self.segments[..level].iter().map(Segment::cells).sum();
        start..start + self.segments[level].cells()
    }

    /// The size of a single map.
    ///
    /// # Panics
    /// If there are several.
    #[must_use]
    pub fn segment(&self) -> Segment {
        assert_eq!(self.segments.len(), 1, "one map, not a pyramid");
        self.segments[0]
    }

    /// The map of size `level` as `[N, C, H, W]`: a strided view of the same memory. Differentiable.
    #[must_use]
    pub fn nchw(&self, level: usize) -> Tensor<4> {
        let Segment { n, h, w } = self.segments[level];
        let cells = match self.segments.len() {
            1 => self.cells.clone(),
            _ => self.cells.clone().slice([self.rows(level)]),
        };
        cells
            .reshape([n, h, w, self.channels()])
            .permute([0, 3, 1, 2])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn packing_keeps_every_map_and_its_gradient() {
        let plain = Device::flex();
        let device = plain.clone().autodiff();
        let map = |shape: [usize; 4]| {
            Tensor::<4>::random(shape, Distribution::Default, &device).require_grad()
        };
        let maps = [map([2, 3, 4, 5]), map([2, 3, 2, 3]), map([2, 3, 1, 1])];
        let packed = Maps::pack_nchw(&maps);
        assert_eq!(packed.cells().dims(), [2 * (20 + 6 + 1), 3]);
        assert_eq!(packed.segments()[1], Segment::new(2, 2, 3));
        assert_eq!(packed.rows(1), 40..52);
        for (level, map) in maps.iter().enumerate() {
            let back = packed.nchw(level);
            assert_eq!(back.dims(), map.dims());
            assert_eq!(back.into_data(), map.clone().into_data());
        }
        // Each level weighs its own gradient.
        let upstream: Vec<Tensor<4>> = maps
            .iter()
            .map(|map| Tensor::random(map.dims(), Distribution::Default, &plain))
            .collect();
        let gradients = upstream
            .iter()
            .enumerate()
            .map(|(level, upstream)| (packed.nchw(level) * upstream.clone()).sum())
            .reduce(|a, b| a + b)
            .unwrap()
            .backward();
        for (map, upstream) in maps.iter().zip(upstream) {
            assert_eq!(
                map.grad(&gradients).unwrap().into_data(),
                upstream.into_data()
            );
        }
    }
}
