//! The affinity matrices themselves, some rows at a time: what tests and the benchmark compare with.

use kd_plugin::burn::tensor::Tensor;

/// `‖X Xᵀ − Y Yᵀ‖²_F` and its gradient at `x`, from `rows` rows of the matrices at a time.
///
/// # Shapes
/// - `x`, `y`: `[m, C]`
/// - results: `[1]`, `[m, C]`
///
/// # Panics
/// If `rows` is 0.
#[must_use]
pub fn squared_distance(x: &Tensor<2>, y: &Tensor<2>, rows: usize) -> (Tensor<1>, Tensor<2>) {
    let positions = x.dims()[0];
    let mut total: Option<Tensor<1>> = None;
    let mut gradients = Vec::new();
    for start in (0..positions).step_by(rows) {
        let block = start..positions.min(start + rows);
        let affinity = |of: &Tensor<2>| {
            let rows = of.clone().slice([block.clone()]);
            rows.matmul(of.clone().transpose())
        };
        let difference = affinity(x) - affinity(y);
        // D is symmetric: the rows of a block give the whole gradient of its positions.
        gradients.push(difference.clone().matmul(x.clone()) * 4.0);
        let part = difference.square().sum();
        total = Some(match total {
            Some(total) => total + part,
            None => part,
        });
    }
    (
        total.expect("a map has a position"),
        Tensor::cat(gradients, 0),
    )
}
