//! What a feature map shows of one image: numbers, no pictures.

use burn::tensor::Tensor;

/// Added to variances, as instance normalisation in PyTorch has it.
const EPSILON: f64 = 1e-5;

/// A map `[C, H, W]` of one image, cut to the cells that the image covers: what lies over the padding
/// says nothing of the image.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureMap {
    channels: usize,
    /// `[height, width]` in cells.
    size: [usize; 2],
    /// Pixels of the student's input a cell, down and across.
    stride: [f32; 2],
    values: Vec<f32>,
}

/// One value a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// `[height, width]` in cells.
    pub size: [usize; 2],
    /// Pixels of the student's input a cell, down and across.
    pub stride: [f32; 2],
    /// Row-major.
    pub values: Vec<f32>,
}

impl FeatureMap {
    /// The first image of `map` `[N, C, H, W]`; `image_size` is `[height, width]` of that image in
    /// pixels of the network input, without padding.
    ///
    /// # Panics
    /// If the map does not hold f32.
    #[must_use]
    pub fn new(map: &Tensor<4>, stride: usize, image_size: [usize; 2]) -> Self {
        let [_, channels, height, width] = map.dims();
        let size = [
            image_size[0].div_ceil(stride).min(height),
            image_size[1].div_ceil(stride).min(width),
        ];
        let covered = map
            .clone()
            .slice([0..1, 0..channels, 0..size[0], 0..size[1]]);
        FeatureMap {
            channels,
            size,
            stride: [stride as f32; 2],
            values: covered.into_data().try_to_vec().expect("maps hold f32"),
        }
    }

    /// The same over an image of `[height, width]` `image_size`, where the model saw it as `own_size`.
    #[must_use]
    pub fn over(self, own_size: [usize; 2], image_size: [usize; 2]) -> Self {
        let ratio = |axis: usize| image_size[axis] as f32 / own_size[axis] as f32;
        FeatureMap {
            stride: [self.stride[0] * ratio(0), self.stride[1] * ratio(1)],
            ..self
        }
    }

    /// `[channels, height, width]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.size[0], self.size[1]]
    }

    /// The L2 norm over the channels.
    #[must_use]
    pub fn norm(&self) -> Grid {
        self.grid(
            self.planes()
                .map(|plane| plane.iter().map(|v| f64::from(*v))),
        )
    }

    /// The L2 norm over the channels of `self` − `other`, each standardised before: every channel has
    /// mean 0 and variance 1 over the cells of the image. Scale and offset of a channel, which differ
    /// between models and mean nothing, fall out, as in the losses that compare normalised maps.
    ///
    /// # Panics
    /// If the shapes differ.
    #[must_use]
    pub fn difference(&self, other: &FeatureMap) -> Grid {
        assert_eq!(self.shape(), other.shape(), "maps of one shape");
        let planes = self.planes().zip(other.planes());
        self.grid(planes.map(|(own, other)| {
            let own = standardised(own, EPSILON).into_iter();
            own.zip(standardised(other, EPSILON)).map(|(a, b)| a - b)
        }))
    }

    /// Pearson's correlation with `other` over the cells of each channel, averaged over the channels
    /// that vary in both; none if there is no such channel, as in a map of one cell.
    ///
    /// # Panics
    /// If the shapes differ.
    #[must_use]
    pub fn correlation(&self, other: &FeatureMap) -> Option<f64> {
        assert_eq!(self.shape(), other.shape(), "maps of one shape");
        let (mut sum, mut count) = (0.0, 0usize);
        for (own, other) in self.planes().zip(other.planes()) {
            let (own, other) = (standardised(own, 0.0), standardised(other, 0.0));
            let products = own.iter().zip(&other).map(|(a, b)| a * b);
            let correlation = products.sum::<f64>() / own.len() as f64;
            // A constant channel was divided by 0.
            if correlation.is_finite() {
                sum += correlation;
                count += 1;
            }
        }
        (count > 0).then(|| sum / count as f64)
    }

    fn planes(&self) -> impl Iterator<Item = &[f32]> {
        self.values
            .chunks_exact((self.size[0] * self.size[1]).max(1))
    }

    /// The L2 norm over `planes`, one value a cell each.
    fn grid(&self, planes: impl Iterator<Item = impl Iterator<Item = f64>>) -> Grid {
        let mut squares = vec![0.0f64; self.size[0] * self.size[1]];
        for plane in planes {
            for (square, value) in squares.iter_mut().zip(plane) {
                *square += value * value;
            }
        }
        Grid {
            size: self.size,
            stride: self.stride,
            values: squares.iter().map(|s| s.sqrt() as f32).collect(),
        }
    }
}

impl Grid {
    /// Lowest and highest value.
    #[must_use]
    pub fn range(&self) -> [f32; 2] {
        let fold = |pick: fn(f32, f32) -> f32| self.values.iter().copied().reduce(pick);
        [fold(f32::min), fold(f32::max)].map(|value| value.unwrap_or(0.0))
    }

    /// The value at `[y, x]` in pixels of the network input, bilinear between the centers of the
    /// cells and constant beyond the outermost. A cell covers `stride` pixels.
    #[must_use]
    pub fn at(&self, position: [f32; 2]) -> f32 {
        let [rows, columns] = self.size;
        let place = |pixel: f32, stride: f32, cells: usize| {
            let cell = (pixel / stride - 0.5).clamp(0.0, (cells - 1) as f32);
            let first = cell as usize;
            (first, (first + 1).min(cells - 1), cell.fract())
        };
        let (y1, y2, fy) = place(position[0], self.stride[0], rows);
        let (x1, x2, fx) = place(position[1], self.stride[1], columns);
        let row = |y: usize| {
            let [left, right] = [x1, x2].map(|x| self.values[y * columns + x]);
            left + fx * (right - left)
        };
        let (upper, lower) = (row(y1), row(y2));
        upper + fy * (lower - upper)
    }
}

/// Mean 0 and variance 1 (population).
fn standardised(plane: &[f32], epsilon: f64) -> Vec<f64> {
    let count = plane.len() as f64;
    let mean = plane.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let centered = plane.iter().map(|v| f64::from(*v) - mean);
    let variance = centered.clone().map(|v| v * v).sum::<f64>() / count;
    let deviation = (variance + epsilon).sqrt();
    centered.map(|v| v / deviation).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn map(values: [[[f32; 2]; 2]; 2]) -> FeatureMap {
        let map = Tensor::<4>::from_data([values], &Device::flex());
        FeatureMap::new(&map, 8, [16, 16])
    }

    #[test]
    fn the_norm_is_over_channels() {
        let grid = map([[[3.0, 0.0], [0.0, 1.0]], [[4.0, 2.0], [0.0, 0.0]]]).norm();
        assert_eq!(grid.values, [5.0, 2.0, 0.0, 1.0]);
        assert_eq!(grid.range(), [0.0, 5.0]);
    }

    #[test]
    fn padding_is_cut_off() {
        let values = Tensor::<1>::from_data([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &Device::flex());
        let map = FeatureMap::new(&values.reshape([1, 1, 2, 3]), 8, [8, 9]);
        assert_eq!(map.shape(), [1, 1, 2]);
        assert_eq!(map.norm().values, [0.0, 1.0]);
    }

    #[test]
    fn standardised_channels_have_mean_0_and_variance_1() {
        let values = standardised(&[1.0, 3.0, 5.0, 7.0], 0.0);
        assert!(values.iter().sum::<f64>().abs() < 1e-12);
        assert!((values.iter().map(|v| v * v).sum::<f64>() - 4.0).abs() < 1e-12);
        assert_eq!(standardised(&[2.0; 3], EPSILON), [0.0; 3]);
    }

    #[test]
    fn scale_and_offset_of_a_channel_do_not_count() {
        let one = map([[[1.0, 2.0], [3.0, 5.0]], [[4.0, 4.0], [0.0, 1.0]]]);
        let other = map([[[10.0, 30.0], [50.0, 90.0]], [[-2.0, -2.0], [-6.0, -5.0]]]);
        assert!(one.difference(&other).range()[1] < 1e-4);
        assert!((one.correlation(&other).unwrap() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn opposite_channels_are_apart_by_twice_their_deviation() {
        let one = map([[[1.0, -1.0], [1.0, -1.0]], [[0.0; 2]; 2]]);
        let other = map([[[-1.0, 1.0], [-1.0, 1.0]], [[0.0; 2]; 2]]);
        // The constant channel adds nothing to either.
        assert!((one.correlation(&other).unwrap() + 1.0).abs() < 1e-12);
        let difference = one.difference(&other);
        assert!(difference.values.iter().all(|v| (v - 2.0).abs() < 1e-4));
        let flat = map([[[1.0; 2]; 2], [[0.0; 2]; 2]]);
        assert_eq!(one.correlation(&flat), None);
    }

    #[test]
    fn values_lie_between_the_centers_of_cells() {
        let grid = Grid {
            size: [1, 2],
            stride: [8.0; 2],
            values: vec![1.0, 3.0],
        };
        let row = [0.0, 4.0, 8.0, 12.0, 16.0].map(|x| grid.at([4.0, x]));
        assert_eq!(row, [1.0, 1.0, 2.0, 3.0, 3.0]);
    }
}
