//! Lengths and directions, finite at 0.

use kd_plugin::burn::tensor::Tensor;

/// Added to a squared length, or as its root to a sum of absolute values: a vector of zeros has a length
/// to be divided by.
const LENGTH_EPS: f64 = 1e-12;
/// What [`root`] takes for 0.
const ROOT_FLOOR: f64 = 1e-14;

/// `x / ‖x‖_q` along the middle axis; `‖x‖_2 = sqrt(Σ x² + 1e-12)`, `‖x‖_1 = Σ |x| + 1e-6`. Zeros stay
/// zeros, with a finite gradient.
///
/// # Shapes
/// - `x`, result: `[N, C, m]`.
///
/// # Panics
/// If `q` is neither 1 nor 2.
#[must_use]
pub fn direction(x: Tensor<3>, q: u32) -> Tensor<3> {
    let length = match q {
        1 => x.clone().abs().sum_dim(1) + LENGTH_EPS.sqrt(),
        2 => (x.clone().square().sum_dim(1) + LENGTH_EPS).sqrt(),
        other => panic!("a checked configuration has no norm {other}"),
    };
    x / length
}

/// The square root, and 0 with the gradient 0 where `x` is below 1e-14.
#[must_use]
pub fn root<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let is_zero = x.clone().lower_elem(ROOT_FLOOR);
    x.clamp_min(ROOT_FLOOR).sqrt().mask_fill(is_zero, 0.0)
}
