//! Bilinear interpolation along one axis: where a cell reads, and with what weights.

/// Where a cell of the fine axis lies on the coarse one: `(1 - weight) low + weight high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tap {
    pub(crate) low: usize,
    pub(crate) high: usize,
    pub(crate) weight: f32,
}

/// An axis of `coarse` cells read at the centres of finer ones (or of coarser ones: no filter, as
/// PyTorch without `antialias`).
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) coarse: usize,
    /// One a cell of the fine axis.
    pub(crate) taps: Vec<Tap>,
}

impl Axis {
    /// Reads `coarse` cells at the centres of `fine` ones: PyTorch's `interpolate(mode = "bilinear",
    /// align_corners = False)`.
    ///
    /// # Panics
    /// If there is no coarse cell.
    pub(crate) fn new(fine: usize, coarse: usize) -> Self {
        assert!(coarse > 0, "an axis without cells cannot be read");
        let scale = coarse as f64 / fine as f64;
        // Centres before the first cell's read that cell.
        let at = (0..fine).map(|i| ((i as f64 + 0.5) * scale - 0.5).max(0.0));
        Self::at(coarse, at)
    }

    /// Reads `coarse` cells at `i / scale` for each `i` of `fine` ones: first cells coincide. What a
    /// map of layers of stride 2 needs, whose cell `i` stands for pixel `i · stride`. Places beyond the
    /// last cell read that cell.
    ///
    /// # Panics
    /// If there is no coarse cell.
    pub(crate) fn from_corner(fine: usize, coarse: usize, scale: f64) -> Self {
        assert!(coarse > 0, "an axis without cells cannot be read");
        let last = (coarse - 1) as f64;
        Self::at(coarse, (0..fine).map(|i| (i as f64 / scale).min(last)))
    }

    /// Reads `coarse` cells at these positions, none below 0.
    fn at(coarse: usize, positions: impl Iterator<Item = f64>) -> Self {
        let taps = positions.map(|at| {
            let low = (at as usize).min(coarse - 1);
            Tap {
                low,
                high: (low + 1).min(coarse - 1),
                weight: (at - low as f64) as f32,
            }
        });
        Axis {
            coarse,
            taps: taps.collect(),
        }
    }

    /// The weight of each coarse cell for each fine one, `[fine, coarse]` row-major.
    pub(crate) fn matrix(&self) -> Vec<f32> {
        let mut weights = vec![0.0; self.taps.len() * self.coarse];
        for (row, tap) in weights.chunks_exact_mut(self.coarse).zip(&self.taps) {
            row[tap.low] += 1.0 - tap.weight;
            row[tap.high] += tap.weight;
        }
        weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: centres of 4 cells on 2 lie at -0.25 (0), 0.25, 0.75, 1.25.
    #[test]
    fn centres_are_aligned() {
        let taps = Axis::new(4, 2).taps;
        let want = [(0, 1, 0.0), (0, 1, 0.25), (0, 1, 0.75), (1, 1, 0.25)];
        assert_eq!(
            taps,
            want.map(|(low, high, weight)| Tap { low, high, weight })
        );
    }

    /// By hand: 0, 2/3, 4/3 and 2, beyond the last of two cells.
    #[test]
    fn corners_coincide() {
        let taps = Axis::from_corner(4, 2, 1.5).taps;
        let want = [(0, 1, 0.0), (0, 1, 2.0 / 3.0), (1, 1, 0.0), (1, 1, 0.0)];
        assert_eq!(
            taps,
            want.map(|(low, high, weight)| Tap { low, high, weight })
        );
    }

    #[test]
    fn an_axis_of_the_same_size_is_read_as_it_is() {
        for axis in [Axis::new(5, 5), Axis::from_corner(5, 5, 1.0)] {
            for (i, tap) in axis.taps.into_iter().enumerate() {
                assert_eq!((tap.low, tap.weight), (i, 0.0));
            }
        }
    }
}
