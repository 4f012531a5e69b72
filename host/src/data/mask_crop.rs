//! The instance mask of an object, as much of it as a method may ask for.

const SIDE: usize = MaskCrop::SIDE;
/// Sample points along a side of a cell.
const POINTS: usize = 8;
/// Sample points along a side of the box; a row of them fits the bits of a `u64`.
const SAMPLES: usize = SIDE * POINTS;
/// A row of sample points, all of them inside.
const FULL_ROW: u64 = (1 << SAMPLES) - 1;

/// An instance mask inside its object's box: 7 by 7 cells, each covered or not.
///
/// - A cell is covered if at least half of it is, which 8 by 8 sample points decide. Where an edge
///   halves a cell exactly, rounding does. An object thinner than half a cell may cover none.
/// - Relative to the box, so that resizing the image does not change it. Make it from the box
///   clipped to the image, since that is the box which training sees.
/// - Cell `(row, column)` is bit `7 * row + column`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaskCrop(u64);

impl MaskCrop {
    /// Cells along a side.
    pub const SIDE: usize = 7;
    /// Number of cells.
    pub const CELLS: usize = SIDE * SIDE;

    /// The union of polygons, each a flat list `x, y, x, y, …` that closes by itself.
    ///
    /// Inside a polygon that crosses itself is what a ray leaves through an odd number of edges
    /// (even-odd). A hole therefore needs an outline that leads into it: as pycocotools does,
    /// polygons only ever add to each other.
    #[must_use]
    pub fn from_polygons(polygons: &[Vec<f64>], box_xyxy: [f32; 4]) -> Self {
        let [x1, y1, x2, y2] = box_xyxy.map(f64::from);
        let [scale_x, scale_y] = [x2 - x1, y2 - y1].map(|extent| SAMPLES as f64 / extent);
        // In these units sample `(row, column)` is the point `[column, row]`.
        let point = |xy: &[f64]| [(xy[0] - x1) * scale_x - 0.5, (xy[1] - y1) * scale_y - 0.5];
        let mut union = [0; SAMPLES];
        for polygon in polygons {
            let points = polygon.chunks_exact(2);
            let mut inside = [0; SAMPLES];
            if let Some(last) = points.clone().last() {
                let mut from = point(last);
                for to in points.map(point) {
                    cross(&mut inside, from, to);
                    from = to;
                }
            }
            for (all, row) in union.iter_mut().zip(inside) {
                *all |= row;
            }
        }
        Self::from_samples(&union)
    }

    /// What `covers(x, y)` says of points inside the box.
    #[must_use]
    pub fn from_coverage(covers: impl Fn(f64, f64) -> bool, box_xyxy: [f32; 4]) -> Self {
        let [x1, y1, x2, y2] = box_xyxy.map(f64::from);
        let at = |index: usize, from: f64, to: f64| {
            from + (index as f64 + 0.5) / SAMPLES as f64 * (to - from)
        };
        let samples = std::array::from_fn(|row| {
            (0..SAMPLES)
                .filter(|&column| covers(at(column, x1, x2), at(row, y1, y2)))
                .fold(0, |bits, column| bits | 1 << column)
        });
        Self::from_samples(&samples)
    }

    fn from_samples(samples: &[u64; SAMPLES]) -> Self {
        const CELL_ROW: u64 = (1 << POINTS) - 1;
        let mut bits = 0;
        for (row, lines) in samples.chunks_exact(POINTS).enumerate() {
            for column in 0..SIDE {
                let within = |line: &u64| (line >> (column * POINTS) & CELL_ROW).count_ones();
                let covered: u32 = lines.iter().map(within).sum();
                if 2 * covered as usize >= POINTS * POINTS {
                    bits |= 1 << (row * SIDE + column);
                }
            }
        }
        MaskCrop(bits)
    }

    /// The crop of the mirrored image: columns from right to left.
    #[must_use]
    pub fn mirrored(self) -> Self {
        let moved = (0..Self::CELLS).filter(|cell| self.0 >> cell & 1 == 1);
        MaskCrop(moved.fold(0, |bits, cell| {
            let (row, column) = (cell / SIDE, cell % SIDE);
            bits | 1 << (row * SIDE + (SIDE - 1 - column))
        }))
    }

    /// Row by row, 1 where covered, else 0.
    #[must_use]
    pub fn to_f32s(self) -> [f32; Self::CELLS] {
        std::array::from_fn(|cell| (self.0 >> cell & 1) as f32)
    }

    /// The cells as bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }
}

/// Inverts every sample to the right of the edge: after all edges of a polygon, those inside it are
/// set. The end of larger `y` is left out, so that a corner on a row counts once.
fn cross(inside: &mut [u64; SAMPLES], from: [f64; 2], to: [f64; 2]) {
    let [upper, lower] = if from[1] < to[1] {
        [from, to]
    } else {
        [to, from]
    };
    // Casts saturate: an edge far outside only meets the rows that there are.
    let rows = [upper[1], lower[1]].map(|y| (y.ceil() as usize).min(SAMPLES));
    let slope = (lower[0] - upper[0]) / (lower[1] - upper[1]);
    for (row, samples) in inside.iter_mut().enumerate().take(rows[1]).skip(rows[0]) {
        let x = upper[0] + (row as f64 - upper[1]) * slope;
        let first = (x.ceil() as usize).min(SAMPLES);
        *samples ^= FULL_ROW & (FULL_ROW << first);
    }
}

#[cfg(test)]
mod tests;
