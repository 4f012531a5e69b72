//! Maps enlarged bilinearly, under the two grids that matter here.

use kd_plugin::burn::tensor::{Device, Tensor, TensorData};

/// Where the cells of a large map lie on a small one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Grid {
    /// The corners of both coincide: `i (h − 1) / (H − 1)`, PyTorch's `align_corners = True`.
    Corners,
    /// Cell `i` of either lies at pixel `i · stride` of its image, as convolutions with stride place
    /// them, and the large image has a side this many times the small one's: `i / ratio`, at most `h − 1`.
    Cells(f64),
}

impl Grid {
    /// Position of cell `cell` of `to` among `from` cells, in `[0, from − 1]`.
    fn position(self, cell: usize, from: usize, to: usize) -> f64 {
        let last = (from - 1) as f64;
        match self {
            Grid::Corners if to == 1 => 0.0,
            Grid::Corners => cell as f64 * last / (to - 1) as f64,
            Grid::Cells(ratio) => (cell as f64 / ratio).min(last),
        }
    }

    /// What each of `to` cells takes of each of `from`, `[to, from]`; rows sum to 1.
    #[must_use]
    pub fn weights(self, from: usize, to: usize, device: &Device) -> Tensor<2> {
        let mut values = vec![0.0f32; to * from];
        for (cell, row) in values.chunks_exact_mut(from).enumerate() {
            let at = self.position(cell, from, to);
            let low = (at.floor() as usize).min(from - 1);
            let high = (low + 1).min(from - 1);
            let share = (at - low as f64) as f32;
            row[low] += 1.0 - share;
            row[high] += share;
        }
        Tensor::from_data(TensorData::new(values, [to, from]), device)
    }
}

/// `x` `[N, C, h, w]` at `size` `[H, W]`, bilinear. Itself where it has the size.
///
/// # Gradients
/// With respect to `x`: two products with constant matrices, `rows · x · columnsᵀ`.
#[must_use]
pub fn enlarge(x: Tensor<4>, size: [usize; 2], grid: Grid) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    if [h, w] == size {
        return x;
    }
    let device = x.device().without_autodiff();
    let rows: Tensor<3> = grid.weights(h, size[0], &device).unsqueeze();
    let columns: Tensor<3> = grid.weights(w, size[1], &device).transpose().unsqueeze();
    let x: Tensor<3> = x.reshape([n * c, h, w]);
    rows.matmul(x)
        .matmul(columns)
        .reshape([n, c, size[0], size[1]])
}
