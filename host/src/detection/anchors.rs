//! Anchors of a feature pyramid, as torchvision's `AnchorGenerator` lays them out.

use std::sync::Arc;

use crate::boxes::BoxXyxy;

/// Makes the anchors of every level of a pyramid.
#[derive(Clone, Debug, PartialEq)]
pub struct AnchorGenerator {
    /// Per level: the anchors of a cell, centred at the origin, rounded to whole pixels.
    cells: Vec<Vec<BoxXyxy>>,
}

impl AnchorGenerator {
    /// Anchors whose side on level `l` is `base_size * 2^l * scale`, truncated to a whole number as
    /// torchvision's RetinaNet does, for each ratio (height / width) and, within it, each scale.
    ///
    /// torchvision's own: base 32, scales `[1, 2^(1/3), 2^(2/3)]`, ratios `[0.5, 1, 2]`, 5 levels; for
    /// FCOS, whose anchors stand for locations, base 8, scale 1, ratio 1.
    #[must_use]
    pub fn new(base_size: usize, scales: &[f32], ratios: &[f32], num_levels: usize) -> Self {
        let cells = (0..num_levels)
            .map(|level| {
                let base = (base_size << level) as f64;
                let sides: Vec<f32> = scales
                    .iter()
                    .map(|&scale| (base * f64::from(scale)).trunc() as f32)
                    .collect();
                cell_anchors(&sides, ratios)
            })
            .collect();
        Self { cells }
    }

    /// Anchors of one cell, the same on every level.
    #[must_use]
    pub fn per_cell(&self) -> usize {
        self.cells.first().map_or(0, Vec::len)
    }

    /// All anchors of an input of `[height, width]` whose pyramid has `level_sizes`
    /// (`[height, width]`, finest first).
    ///
    /// Levels finest first; within a level row-major over cells; the anchors of a cell innermost.
    /// The anchors of cell `(i, j)` are centred at `(j * stride_x, i * stride_y)`, where a stride is
    /// the input's extent divided by the level's, rounded down.
    ///
    /// # Units
    /// Pixels of the network input; anchors reach beyond its border.
    ///
    /// # Panics
    /// If the number of levels is not the generator's, or a level is empty.
    #[must_use]
    pub fn anchors(&self, input_size: [usize; 2], level_sizes: &[[usize; 2]]) -> Arc<Vec<BoxXyxy>> {
        assert_eq!(
            level_sizes.len(),
            self.cells.len(),
            "one size for each level of the generator"
        );
        let cells: usize = level_sizes.iter().map(|[h, w]| h * w).sum();
        let mut anchors = Vec::with_capacity(cells * self.per_cell());
        for (&[height, width], cell) in level_sizes.iter().zip(&self.cells) {
            assert!(height > 0 && width > 0, "a level has at least one cell");
            let [stride_y, stride_x] = [input_size[0] / height, input_size[1] / width];
            for row in 0..height {
                let y = (row * stride_y) as f32;
                for column in 0..width {
                    let x = (column * stride_x) as f32;
                    anchors.extend(
                        cell.iter()
                            .map(|&[x1, y1, x2, y2]| [x + x1, y + y1, x + x2, y + y2]),
                    );
                }
            }
        }
        Arc::new(anchors)
    }
}

/// Ratio-major, as torchvision's `generate_anchors`; f32 steps in its order, because the rounding of
/// a half decides a whole pixel.
fn cell_anchors(sides: &[f32], ratios: &[f32]) -> Vec<BoxXyxy> {
    let mut cell = Vec::with_capacity(sides.len() * ratios.len());
    for &ratio in ratios {
        let h_ratio = ratio.sqrt();
        let w_ratio = 1.0 / h_ratio;
        for &side in sides {
            let (width, height) = (w_ratio * side, h_ratio * side);
            cell.push([-width, -height, width, height].map(|v| (v / 2.0).round_ties_even()));
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::golden::Golden;

    #[test]
    fn cells_are_ratio_major_and_sides_truncated() {
        let generator = AnchorGenerator::new(32, &[1.0, 1.259_921], &[0.5, 1.0], 2);
        assert_eq!(generator.per_cell(), 4);
        // Level 1: sides 64 and trunc(80.63) = 80. Ratio 0.5: h = s·√½, w = s·√2.
        // 64: w/2 = 45.25 -> 45, h/2 = 22.63 -> 23; 80: 56.57 -> 57, 28.28 -> 28. Ratio 1: 32, 40.
        assert_eq!(
            generator.cells[1],
            vec![
                [-45.0, -23.0, 45.0, 23.0],
                [-57.0, -28.0, 57.0, 28.0],
                [-32.0, -32.0, 32.0, 32.0],
                [-40.0, -40.0, 40.0, 40.0],
            ]
        );
    }

    #[test]
    fn halves_round_to_even() {
        // Side 5: 2.5 -> 2; side 7: 3.5 -> 4.
        assert_eq!(
            cell_anchors(&[5.0, 7.0], &[1.0]),
            vec![[-2.0, -2.0, 2.0, 2.0], [-4.0, -4.0, 4.0, 4.0]]
        );
    }

    #[test]
    fn strides_are_rounded_down_per_axis() {
        let generator = AnchorGenerator::new(4, &[1.0], &[1.0], 1);
        // Input 9 × 7 on a 2 × 3 level: strides 9/2 = 4 and 7/3 = 2.
        let anchors = generator.anchors([9, 7], &[[2, 3]]);
        let centres: Vec<[f32; 2]> = anchors.iter().map(|b| [b[0] + 2.0, b[1] + 2.0]).collect();
        assert_eq!(
            centres,
            vec![
                [0.0, 0.0],
                [2.0, 0.0],
                [4.0, 0.0],
                [0.0, 4.0],
                [2.0, 4.0],
                [4.0, 4.0]
            ]
        );
    }

    #[test]
    fn equal_to_torchvision() {
        let golden = Golden::load();
        for case in 0..3 {
            let base = golden.indices(&format!("anchors.{case}.base"))[0];
            let input_size = golden.sizes(&format!("anchors.{case}.input_size"))[0];
            let level_sizes = golden.sizes(&format!("anchors.{case}.level_sizes"));
            let generator =
                AnchorGenerator::new(base, &[1.0, 1.259_921, 1.587_401], &[0.5, 1.0, 2.0], 5);
            // Whole pixels: equal to the bit.
            assert_eq!(
                *generator.anchors(input_size, &level_sizes),
                golden.boxes(&format!("anchors.{case}.anchors")),
                "case {case}"
            );
        }
        let golden = Golden::fcos();
        for case in 0..3 {
            let base = golden.indices(&format!("anchors.{case}.base"))[0];
            let input_size = golden.sizes(&format!("anchors.{case}.input_size"))[0];
            let level_sizes = golden.sizes(&format!("anchors.{case}.level_sizes"));
            assert_eq!(
                *AnchorGenerator::new(base, &[1.0], &[1.0], 5).anchors(input_size, &level_sizes),
                golden.boxes(&format!("anchors.{case}.anchors")),
                "locations, case {case}"
            );
        }
    }
}
