//! A class for every pixel.

/// A pixel with this label has no class: it takes part in no loss and no metric. What annotation
/// files leave open, and what padding adds, becomes it.
pub const IGNORE_LABEL: u8 = 255;

/// The class of every pixel of an image, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    /// `[height, width]`.
    pub size: [usize; 2],
    /// `height * width` class indices, or [`IGNORE_LABEL`].
    pub data: Vec<u8>,
}

impl LabelMap {
    /// The map at another size, by the nearest pixel.
    ///
    /// Pixel centres stand at halves: position `p` of the result takes `floor((p + 1/2) · from / to)`,
    /// computed in whole numbers. That is PyTorch's `nearest-exact` (its plain `nearest` takes a pixel's
    /// corner) and Pillow's `NEAREST`, where a centre that falls between two pixels goes to either,
    /// by rounding; and the geometry of [`super::resize`], so that labels stay on the pixels that they
    /// describe.
    ///
    /// # Panics
    /// If an extent of either size is 0.
    #[must_use]
    pub fn resized(&self, size: [usize; 2]) -> LabelMap {
        if size == self.size {
            return self.clone();
        }
        let [rows, columns] = [0, 1].map(|axis| nearest(self.size[axis], size[axis]));
        let mut data = Vec::with_capacity(size[0] * size[1]);
        for row in rows {
            let row = &self.data[row * self.size[1]..][..self.size[1]];
            data.extend(columns.iter().map(|&column| row[column]));
        }
        LabelMap { size, data }
    }
}

/// The source position of each of `to` positions.
fn nearest(from: usize, to: usize) -> Vec<usize> {
    assert!(from > 0 && to > 0, "{from} pixels to {to}");
    (0..to).map(|p| (2 * p + 1) * from / (2 * to)).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Made by `tests/golden/data/make_label_maps.py`.
    const GOLDEN: &str = include_str!("../../../tests/golden/data/label_maps.json");

    #[derive(Deserialize)]
    struct Golden {
        nearest: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        size: [usize; 2],
        labels: Vec<u8>,
        out_size: [usize; 2],
        torch_nearest_exact: Vec<u8>,
        pillow_nearest: Vec<u8>,
    }

    #[test]
    fn resizing_equals_nearest_exact_and_pillow() {
        let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
        assert!(golden.nearest.len() >= 10);
        for case in golden.nearest {
            let map = LabelMap {
                size: case.size,
                data: case.labels,
            };
            let out = map.resized(case.out_size);
            assert_eq!(out.size, case.out_size);
            let name = format!("{:?} to {:?}", case.size, case.out_size);
            assert_eq!(out.data, case.torch_nearest_exact, "{name}");
            // Pillow adds up steps in floating point: on a tie it takes either pixel.
            let tie = |axis: usize, p: usize| {
                ((2 * p + 1) * case.size[axis]).is_multiple_of(2 * case.out_size[axis])
            };
            for (position, (a, b)) in out.data.iter().zip(&case.pillow_nearest).enumerate() {
                let [y, x] = [position / out.size[1], position % out.size[1]];
                assert!(a == b || tie(0, y) || tie(1, x), "{name}: {y}, {x}");
            }
        }
    }

    #[test]
    fn no_label_is_invented() {
        let map = LabelMap {
            size: [2, 2],
            data: vec![0, 255, 10, 255],
        };
        let out = map.resized([7, 5]);
        assert!(out.data.iter().all(|label| map.data.contains(label)));
        assert_eq!(map.resized([2, 2]), map);
    }
}
