//! Feature maps of several sizes as one matrix.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::Tensor;

/// Extents of the maps of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapSize {
    /// Images.
    pub n: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

impl MapSize {
    /// Rows of the matrix that the level takes.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.n * self.h * self.w
    }
}

/// The maps of all levels as one matrix `[cells, channels]`: level by level, image by image,
/// row-major.
///
/// A layer that all levels share runs once on all of them, and a layer that mixes channels alone is
/// a matrix product. [`Self::range`] is where the maps of a level lie.
#[derive(Clone, Debug)]
pub struct Packed {
    cells: Tensor<2>,
    sizes: Arc<[MapSize]>,
}

impl Packed {
    /// Packs `[N, C, H, W]` maps of equal `C`. Differentiable.
    ///
    /// # Panics
    /// If there is none or channels differ.
    #[must_use]
    pub fn pack(levels: impl IntoIterator<Item = Tensor<4>>) -> Self {
        let mut sizes = Vec::new();
        let mut cells: Vec<Tensor<2>> = Vec::new();
        for map in levels {
            let [n, c, h, w] = map.dims();
            sizes.push(MapSize { n, h, w });
            cells.push(map.permute([0, 2, 3, 1]).reshape([n * h * w, c]));
        }
        let cells = match cells.len() {
            1 => cells.remove(0),
            _ => Tensor::cat(cells, 0),
        };
        Packed {
            cells,
            sizes: sizes.into(),
        }
    }

    /// The maps of each level, `[N, C, H, W]`. Differentiable.
    #[must_use]
    pub fn unpack(&self) -> Vec<Tensor<4>> {
        (0..self.sizes.len())
            .map(|level| self.level(level))
            .collect()
    }

    /// The maps of one level, `[N, C, H, W]`. Differentiable.
    #[must_use]
    pub fn level(&self, level: usize) -> Tensor<4> {
        let MapSize { n, h, w } = self.sizes[level];
        let c = self.channels();
        let cells = match self.sizes.len() {
            1 => self.cells.clone(),
            _ => self.cells.clone().slice([self.range(level)]),
        };
        cells.reshape([n, h, w, c]).permute([0, 3, 1, 2])
    }

    /// Other values for the same cells.
    ///
    /// # Panics
    /// If the number of rows differs.
    #[must_use]
    pub fn with(&self, cells: Tensor<2>) -> Self {
        assert_eq!(
            cells.dims()[0],
            self.cells.dims()[0],
            "one row for each cell of the maps"
        );
        Packed {
            cells,
            sizes: Arc::clone(&self.sizes),
        }
    }

    /// `[cells, channels]`.
    #[must_use]
    pub fn cells(&self) -> Tensor<2> {
        self.cells.clone()
    }

    /// Extents of each level.
    #[must_use]
    pub fn sizes(&self) -> &Arc<[MapSize]> {
        &self.sizes
    }

    /// Channels of every map.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.cells.dims()[1]
    }

    /// The rows of a level.
    #[must_use]
    pub fn range(&self, level: usize) -> Range<usize> {
        let start = self.sizes[..level].iter().map(MapSize::cells).sum();
        start..start + self.sizes[level].cells()
    }

    /// The same values, from which no gradient flows back.
    #[must_use]
    pub fn detach(&self) -> Self {
        self.with(self.cells.clone().detach())
    }
}
