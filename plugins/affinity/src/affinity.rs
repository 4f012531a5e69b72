//! `L_aff`: how similar any two positions of a map are, in the student and in the code.
//!
//! With `X`, `Y` `[m, C]` the directions of both at all positions, `D = X Xᵀ − Y Yᵀ` is `m × m`, but its
//! norm needs only products of `C × C`. With `P = X + Y` and `M = X − Y`, `D = (P Mᵀ + M Pᵀ) / 2`, so
//!
//! ```text
//! ‖D‖²_F  = ½ Σ_ab [ (PᵀP)_ab (MᵀM)_ab + (PᵀM)_ab (PᵀM)_ba ]
//! ‖D_i‖²  = ¼ ( p_iᵀ(MᵀM)p_i + 2 p_iᵀ(MᵀP)m_i + m_iᵀ(PᵀP)m_i )
//! ```
//!
//! The form in `XᵀX`, `XᵀY`, `YᵀY` is the same number as a small difference of large ones; in this one
//! every term falls with `M`, and no f64 is needed. Gradients are those of the formula:
//! `∂‖D‖²_F / ∂X = 4 D X`.
//!
//! Nothing is masked: positions of padding and of pixels without a label count like others.

pub mod tiled;

use kd_plugin::burn::tensor::Tensor;

use crate::options::Reduction;
use crate::vectors::{direction, root};

/// `D` of each image reduced as the option says, mean over images.
///
/// # Shapes
/// - `student`, `code`: `[N, C, H, W]`, not normalised; the code is constant
/// - result: `[1]`
#[must_use]
pub fn loss(student: Tensor<4>, code: Tensor<4>, reduction: Reduction) -> Tensor<1> {
    let [n, c, h, w] = student.dims();
    let positions = h * w;
    let [x, y] = [student, code].map(|map| direction(map.reshape([n, c, positions]), 2));
    let pair = Sides {
        sum: x.clone() + y.clone(),
        difference: x - y,
        positions: positions as f64,
    };
    match reduction {
        Reduction::Mse => pair.mean_square().mean(),
        Reduction::Rms => root(pair.mean_square()).mean(),
        Reduction::Row => root(pair.row_mean_square()).mean() * (positions as f64).sqrt(),
    }
}

/// `P` and `M`, `[N, C, m]`.
struct Sides {
    sum: Tensor<3>,
    difference: Tensor<3>,
    positions: f64,
}

impl Sides {
    /// `A Bᵀ / m`, `[N, C, C]`.
    fn gram(&self, a: &Tensor<3>, b: &Tensor<3>) -> Tensor<3> {
        a.clone().matmul(b.clone().transpose()) / self.positions
    }

    /// `‖D‖²_F / m²`, `[N, 1, 1]`, not negative.
    fn mean_square(&self) -> Tensor<3> {
        let (p, m) = (&self.sum, &self.difference);
        let mixed = self.gram(p, m);
        let products = self.gram(p, p) * self.gram(m, m) + mixed.clone() * mixed.transpose();
        (products.sum_dim(2).sum_dim(1) * 0.5).clamp_min(0.0)
    }

    /// `‖D_i‖² / m`, `[N, 1, m]`.
    fn row_mean_square(&self) -> Tensor<3> {
        let (p, m) = (&self.sum, &self.difference);
        let of_sums = self.gram(m, m).matmul(p.clone()) + self.gram(m, p).matmul(m.clone()) * 2.0;
        let of_differences = self.gram(p, p).matmul(m.clone());
        (p.clone() * of_sums + m.clone() * of_differences).sum_dim(1) * 0.25
    }
}
