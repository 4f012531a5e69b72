//! Position embeddings on another grid.

use super::MODEL_ENTRY;
use crate::config::ModelConfig;
use crate::kernels::bilinear::Axis;
use crate::state::{Array, StateDict};

/// The embedding `[1, 1 + cells, D]` of `file` on the `grid`, `[h, w]`, of a model: the class token's
/// row as it is, the cells bilinear with aligned centres and no filter. `None` where nothing is to be
/// resized: it has that grid, or none that is known.
pub(super) fn resized(file: &StateDict, embedding: &Array, grid: [usize; 2]) -> Option<Array> {
    let [1, tokens, dim] = embedding.shape[..] else {
        return None;
    };
    let own = own_grid(file, tokens.checked_sub(1)?)?;
    if own == grid {
        return None;
    }
    let (token, cells) = embedding.data.split_at(dim);
    let cell = |row: usize, column: usize| &cells[(row * own[1] + column) * dim..][..dim];
    let mut data = token.to_vec();
    let [rows, columns] = [0, 1].map(|axis| Axis::new(grid[axis], own[axis]).taps);
    for row in rows {
        for column in &columns {
            let (below, right) = (row.weight, column.weight);
            let corners = [
                (cell(row.low, column.low), (1.0 - below) * (1.0 - right)),
                (cell(row.low, column.high), (1.0 - below) * right),
                (cell(row.high, column.low), below * (1.0 - right)),
                (cell(row.high, column.high), below * right),
            ];
            data.extend((0..dim).map(|channel| {
                let terms = corners.iter().map(|(cell, share)| share * cell[channel]);
                terms.sum::<f32>()
            }));
        }
    }
    Some(Array {
        shape: vec![1, 1 + grid[0] * grid[1], dim],
        data,
    })
}

/// The grid that `cells` are of in `file`: the one of the model that its header names, or else a square.
fn own_grid(file: &StateDict, cells: usize) -> Option<[usize; 2]> {
    let named = file.metadata.get(MODEL_ENTRY).and_then(|text| {
        let vit = serde_json::from_str::<ModelConfig>(text).ok()?.vit;
        let size = <[usize; 2]>::try_from(vit.image_size).ok()?;
        let patch = vit.patch_size;
        (patch > 0).then(|| size.map(|extent| extent / patch))
    });
    let side = cells.isqrt();
    let known = named.into_iter().chain([[side, side]]);
    known
        .into_iter()
        .find(|grid| cells > 0 && grid[0] * grid[1] == cells)
}
