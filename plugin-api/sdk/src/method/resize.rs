//! Maps of another stride brought to one size.

use burn::tensor::{Device, Tensor, TensorData};

/// Where the cells of one map lie on another of the same image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ResizeGrid {
    /// The centres of cells of equal maps coincide: `(i + ½) h / H − ½`, at least 0; PyTorch's
    /// `align_corners = False`.
    Centres,
    /// The corners of both coincide: `i (h − 1) / (H − 1)`, PyTorch's `align_corners = True`.
    Corners,
    /// Cell `i` of either lies at pixel `i · stride` of its image, as convolutions with stride place
    /// them, and the large image has a side this many times the small one's: `i / ratio`, at most `h − 1`.
    Cells(f64),
}

impl ResizeGrid {
    /// Position of cell `cell` of `to` among `from` cells.
    fn position(self, cell: usize, from: usize, to: usize) -> f64 {
        let last = (from - 1) as f64;
        match self {
            ResizeGrid::Centres => {
                let ratio = from as f64 / to as f64;
                ((cell as f64 + 0.5) * ratio - 0.5).max(0.0)
            }
            ResizeGrid::Corners if to == 1 => 0.0,
            ResizeGrid::Corners => cell as f64 * last / (to - 1) as f64,
            ResizeGrid::Cells(ratio) => (cell as f64 / ratio).min(last),
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

/// `x` `[N, C, h, w]` at `size` `[H, W]`: bilinear with half-pixel centres, without antialiasing;
/// PyTorch's `interpolate(mode = "bilinear", align_corners = False)`. Itself where it has the size.
///
/// # Gradients
/// As [`resize_bilinear_on`].
#[must_use]
pub fn resize_bilinear(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    resize_bilinear_on(x, size, ResizeGrid::Centres)
}

/// `x` `[N, C, h, w]` at `size` `[H, W]`, bilinear on `grid`, without antialiasing. Itself where it has
/// the size.
///
/// # Gradients
/// With respect to `x`, on every backend: two products with constant matrices, `rows · x · columnsᵀ`.
#[must_use]
pub fn resize_bilinear_on(x: Tensor<4>, size: [usize; 2], grid: ResizeGrid) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    if [h, w] == size {
        return x;
    }
    let device = x.device().without_autodiff();
    let rows = grid.weights(h, size[0], &device).unsqueeze::<3>();
    let columns = (grid.weights(w, size[1], &device))
        .transpose()
        .unsqueeze::<3>();
    let x: Tensor<3> = x.reshape([n * c, h, w]);
    // The smaller product first.
    let y = match size[0] * w <= h * size[1] {
        true => rows.matmul(x).matmul(columns),
        false => rows.matmul(x.matmul(columns)),
    };
    y.reshape([n, c, size[0], size[1]])
}
