//! `L_adapt`: normalised student vectors against normalised vectors of the code.

use kd_plugin::burn::tensor::Tensor;

use crate::options::{Config, NormScope};
use crate::vectors::{direction, root};

/// Mean over vectors `j` of the power mean over elements of `u_j/‖u_j‖_q − v_j/‖v_j‖_q`:
/// `mean |d|` for `p = 1`, `sqrt(mean d²)` for `p = 2`. A vector is the channels of a position, or a whole
/// map.
///
/// With `p = 1` this is the mean over all elements whatever a vector is. The paper's norm is a sum over
/// the elements of a vector: `C^(1/p)` times as much.
///
/// # Shapes
/// - `adapted`, `code`: `[N, C, H, W]`
/// - result: `[1]`
#[must_use]
pub fn loss(config: &Config, adapted: Tensor<4>, code: Tensor<4>) -> Tensor<1> {
    let [n, c, h, w] = adapted.dims();
    let shape = match config.norm_scope {
        NormScope::Location => [n, c, h * w],
        NormScope::Sample => [n, c * h * w, 1],
    };
    let [u, v] = [adapted, code].map(|x| direction(x.reshape(shape), config.q));
    let difference = u - v;
    match config.p {
        1 => difference.abs().mean(),
        2 => root(difference.square().mean_dim(1)).mean(),
        other => panic!("a checked configuration has no norm {other}"),
    }
}
