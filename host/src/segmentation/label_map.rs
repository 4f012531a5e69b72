//! From logits on a model's grid to a class for every pixel of the original image.

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::data::LabelMap;
use crate::kernels::bilinear::Axis;

/// How an image came to be the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// `[height, width]` of the network input, padded at the right and the bottom.
    pub input_size: [usize; 2],
    /// `[height, width]` before padding.
    pub size: [usize; 2],
    /// `[height, width]` of the original image.
    pub original_size: [usize; 2],
    /// Mirrored left to right.
    pub flipped: bool,
}

/// Cells of the grid that make a pixel along one axis, and their weights.
type Sources = Vec<(usize, f32)>;

/// The class of every pixel of image `index` in the original image: its logits are brought to the size
/// of the network input, cut to the image, mirrored back, brought to the original size, each time
/// bilinearly (PyTorch's `align_corners = False`), and the largest is taken; of equal ones the first.
///
/// # Shapes
/// - `logits`: `[N, K, h, w]`, `K` at most 255
///
/// # Panics
/// If there is no such image, or the sizes do not fit each other.
#[must_use]
pub fn label_map(logits: &Tensor<4>, index: usize, view: &View) -> LabelMap {
    let [n, k, h, w] = logits.dims();
    assert!(index < n, "image {index} of {n}");
    assert!(k <= 255, "{k} classes do not fit a label map");
    let grid = logits.clone().detach().narrow(0, index, 1);
    let grid = grid.permute([0, 2, 3, 1]).into_data();
    let grid: Vec<f32> = grid.try_into_vec().expect("logits are f32");
    let along = |axis: usize, cells: usize, flipped: bool| {
        let sizes = [view.input_size, view.size, view.original_size].map(|size| size[axis]);
        sources(cells, sizes, flipped)
    };
    let (rows, columns) = (along(0, h, false), along(1, w, view.flipped));
    let [height, width] = view.original_size;
    let mut data = vec![0; height * width];
    let lines = data.par_chunks_exact_mut(width.max(1)).zip(&rows);
    lines.for_each(|(line, sources)| {
        let mut row = vec![0.0; w * k];
        for &(cell, weight) in sources {
            let cells = &grid[cell * w * k..][..w * k];
            row.iter_mut()
                .zip(cells)
                .for_each(|(r, c)| *r += weight * c);
        }
        let mut scores = vec![0.0; k];
        for (label, sources) in line.iter_mut().zip(&columns) {
            scores.fill(0.0);
            for &(cell, weight) in sources {
                let cell = &row[cell * k..][..k];
                scores
                    .iter_mut()
                    .zip(cell)
                    .for_each(|(s, c)| *s += weight * c);
            }
            *label = first_largest(&scores);
        }
    });
    LabelMap {
        size: view.original_size,
        data,
    }
}

/// Of each cell of the original axis: both interpolations and the cut between them, as one.
fn sources(cells: usize, [input, size, original]: [usize; 3], flipped: bool) -> Vec<Sources> {
    assert!(size <= input, "an image of {size} in an input of {input}");
    let onto_input = Axis::new(input, cells);
    let onto_original = Axis::new(original, size);
    let taps = onto_original.taps.iter().map(|outer| {
        let mut sources = Sources::new();
        for (at, share) in [(outer.low, 1.0 - outer.weight), (outer.high, outer.weight)] {
            let at = if flipped { size - 1 - at } else { at };
            let inner = onto_input.taps[at];
            for (cell, weight) in [(inner.low, 1.0 - inner.weight), (inner.high, inner.weight)] {
                let weight = share * weight;
                if weight == 0.0 {
                    continue;
                }
                match sources.iter_mut().find(|(known, _)| *known == cell) {
                    Some((_, sum)) => *sum += weight,
                    None => sources.push((cell, weight)),
                }
            }
        }
        sources
    });
    taps.collect()
}

fn first_largest(scores: &[f32]) -> u8 {
    let mut best = 0;
    for (class, &score) in scores.iter().enumerate() {
        if score > scores[best] {
            best = class;
        }
    }
    best as u8
}
