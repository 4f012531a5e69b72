//! Maps of another stride brought to one size.

use burn::tensor::{Device, Tensor, TensorData};

/// `x` `[N, C, h, w]` at `size` `[H, W]`: bilinear with half-pixel centres, without antialiasing;
/// PyTorch's `interpolate(mode = "bilinear", align_corners = False)`. Itself where it has the size.
///
/// # Gradients
/// With respect to `x`, on every backend: two products with constant matrices, `rows · x · columnsᵀ`.
#[must_use]
pub fn resize_bilinear(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    if [h, w] == size {
        return x;
    }
    let device = x.device().without_autodiff();
    let rows = weights(h, size[0], &device).unsqueeze::<3>();
    let columns = weights(w, size[1], &device).transpose().unsqueeze::<3>();
    let x: Tensor<3> = x.reshape([n * c, h, w]);
    // The smaller product first.
    let y = match size[0] * w <= h * size[1] {
        true => rows.matmul(x).matmul(columns),
        false => rows.matmul(x.matmul(columns)),
    };
    y.reshape([n, c, size[0], size[1]])
}

/// `[to, from]`: what each of `to` cells takes of each of `from`; rows sum to 1.
fn weights(from: usize, to: usize, device: &Device) -> Tensor<2> {
    let mut values = vec![0.0f32; to * from];
    let ratio = from as f64 / to as f64;
    for (cell, row) in values.chunks_exact_mut(from).enumerate() {
        let at = ((cell as f64 + 0.5) * ratio - 0.5).max(0.0);
        let low = (at.floor() as usize).min(from - 1);
        let high = (low + 1).min(from - 1);
        let share = (at - low as f64) as f32;
        row[low] += 1.0 - share;
        row[high] += share;
    }
    Tensor::from_data(TensorData::new(values, [to, from]), device)
}
