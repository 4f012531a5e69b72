//! Structural dissimilarity of two maps in [0, 1].
//!
//! ```text
//! μ_S = G∗S            σ_S² = max(G∗S² − μ_S², 0)      σ_ST = G∗(S·T) − μ_S μ_T
//! l = (2 μ_S μ_T + C1) / (μ_S² + μ_T² + C1)
//! c = (2 σ_S σ_T + C2) / (σ_S² + σ_T² + C2)
//! s = (σ_ST + C3) / (σ_S σ_T + C3)
//! L = (1 − l^α c^β s^γ) / 2      C1 = 0.01², C2 = 0.03², C3 = C2 / 2
//! ```

use kd_plugin::burn::tensor::{Device, Tensor, TensorData};

use crate::Config;

const C1: f64 = 0.01 * 0.01;
const C2: f64 = 0.03 * 0.03;
const C3: f64 = C2 / 2.0;
/// Under the square root of variances: its derivative is infinite at 0, and the variance of a
/// constant patch comes out within 4e-7 of 0 in f32.
const VARIANCE_EPS: f64 = 1e-6;
/// Smallest base of a power.
const POWER_FLOOR: f64 = 1e-6;

/// Powers of the three terms; 0 leaves a term out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponents {
    /// α.
    pub luminance: f64,
    /// β.
    pub contrast: f64,
    /// γ.
    pub structure: f64,
}

/// A separable Gaussian filter with reflecting border as two band matrices.
///
/// A matrix product is the filter's fastest form on the CPU for the maps of a feature pyramid, and
/// its gradient is the product with the transpose.
#[derive(Clone, Debug)]
pub struct Window {
    /// `[1, H, H]`.
    rows: Tensor<3>,
    /// `[1, W, W]`, transposed.
    columns: Tensor<3>,
}

impl Window {
    /// The window of `config` for maps of `[height, width]`.
    ///
    /// A border can reflect at most `side − 1` cells, so the window is `min(k, 2·min(H, W) − 1)`
    /// cells wide: the paper's for sides of 6 and more, and defined for every size. σ stays.
    #[must_use]
    pub fn new(config: &Config, [height, width]: [usize; 2], device: &Device) -> Self {
        let side = config
            .patch_size
            .min((2 * height.min(width)).saturating_sub(1));
        let taps = gaussian(side, config.sigma);
        let tensor = |matrix: Vec<f32>, n: usize| {
            Tensor::from_data(TensorData::new(matrix, [1, n, n]), device)
        };
        Window {
            rows: tensor(band(&taps, height), height),
            columns: tensor(band(&taps, width), width).swap_dims(1, 2),
        }
    }

    /// `G∗x` for `[N, C, H, W]`, each channel by itself.
    fn filter(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, c, h, w] = x.dims();
        let along_rows = x.reshape([1, n * c * h, w]).matmul(self.columns.clone());
        self.rows
            .clone()
            .matmul(along_rows.reshape([n * c, h, w]))
            .reshape([n, c, h, w])
    }
}

/// Map of `(1 − SSIM) / 2` for two maps in [0, 1].
///
/// # Shapes
/// - `student`, `teacher`, result: `[N, C, H, W]`.
///
/// # Gradients
/// With respect to the student; the teacher is a constant. With α free and β = γ = 1 contrast and
/// structure are computed as one fraction, without a square root.
#[must_use]
pub fn dissimilarity(
    student: Tensor<4>,
    teacher: Tensor<4>,
    window: &Window,
    exponents: Exponents,
) -> Tensor<4> {
    let mean_s = window.filter(student.clone());
    let mean_t = window.filter(teacher.clone());
    let mean_product = mean_s.clone() * mean_t.clone();
    let mean_squares = [mean_s.square(), mean_t.square()];

    let mut factors = Vec::new();
    if exponents.luminance > 0.0 {
        let [s2, t2] = mean_squares.clone();
        let luminance = (mean_product.clone() * 2.0 + C1) / (s2 + t2 + C1);
        factors.push(positive_power(luminance, exponents.luminance));
    }
    if exponents.contrast > 0.0 || exponents.structure > 0.0 {
        let [s2, t2] = mean_squares;
        let var_s = (window.filter(student.clone().square()) - s2).clamp_min(0.0);
        let var_t = (window.filter(teacher.clone().square()) - t2).clamp_min(0.0);
        let covariance = || window.filter(student * teacher) - mean_product;
        if exponents.contrast == 1.0 && exponents.structure == 1.0 {
            // c·s: the square roots cancel because C3 = C2 / 2.
            factors.push((covariance() * 2.0 + C2) / (var_s + var_t + C2));
        } else {
            let (var_s, var_t) = (var_s + VARIANCE_EPS, var_t + VARIANCE_EPS);
            let deviations = (var_s.clone() * var_t.clone()).sqrt();
            if exponents.contrast > 0.0 {
                let contrast = (deviations.clone() * 2.0 + C2) / (var_s + var_t + C2);
                factors.push(positive_power(contrast, exponents.contrast));
            }
            if exponents.structure > 0.0 {
                // ε is in numerator and denominator: a map compared with itself gives exactly 1.
                let structure = (covariance() + (VARIANCE_EPS + C3)) / (deviations + C3);
                factors.push(signed_power(structure, exponents.structure));
            }
        }
    }
    let similarity = { factors }.into_iter().reduce(|a, b| a * b);
    let similarity = similarity.expect("the configuration has a positive exponent");
    (similarity * -0.5 + 0.5).clamp(0.0, 1.0)
}

/// `x^e` of a term in (0, 1].
fn positive_power(x: Tensor<4>, exponent: f64) -> Tensor<4> {
    if exponent == 1.0 {
        return x;
    }
    x.clamp_min(POWER_FLOOR).powf_scalar(exponent)
}

/// `sign(x) |x|^e` of the structure term, which may be negative.
fn signed_power(x: Tensor<4>, exponent: f64) -> Tensor<4> {
    if exponent == 1.0 {
        return x;
    }
    let sign = x.clone().detach().sign();
    x.abs().clamp_min(POWER_FLOOR).powf_scalar(exponent) * sign
}

/// Normalised samples of a Gaussian, `side` of them.
fn gaussian(side: usize, sigma: f64) -> Vec<f64> {
    let center = (side / 2) as f64;
    let raw: Vec<f64> = (0..side)
        .map(|i| (-(i as f64 - center).powi(2) / (2.0 * sigma * sigma)).exp())
        .collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|value| value / sum).collect()
}

/// `[n, n]` matrix that filters a line of `n` cells; what leaves the line is reflected at its ends.
fn band(taps: &[f64], n: usize) -> Vec<f32> {
    let radius = taps.len() / 2;
    let mut matrix = vec![0.0f64; n * n];
    for (row, cells) in matrix.chunks_exact_mut(n.max(1)).enumerate() {
        for (tap, weight) in taps.iter().enumerate() {
            cells[reflect((row + tap) as isize - radius as isize, n)] += weight;
        }
    }
    matrix.into_iter().map(|value| value as f32).collect()
}

/// `…2 1 | 0 1 2 … n−1 | n−2…`.
fn reflect(index: isize, n: usize) -> usize {
    let last = n as isize - 1;
    let index = index.abs();
    (if index > last {
        2 * last - index
    } else {
        index
    }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_the_published_one() {
        // 11 taps, sigma 1.5, edge to center.
        let expected = [
            0.00102838, 0.00759876, 0.03600077, 0.10936069, 0.21300554, 0.26601172,
        ];
        for (got, expected) in gaussian(11, 1.5).iter().zip(expected) {
            assert!((got - expected).abs() < 5e-9, "{got} {expected}");
        }
    }

    #[test]
    fn every_row_of_a_band_sums_to_one_and_borders_reflect() {
        let taps = gaussian(11, 1.5);
        for n in [6, 7, 40] {
            for row in band(&taps, n).chunks_exact(n) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            }
        }
        assert_eq!(
            [-2, -1, 0, 3, 4, 5].map(|i| reflect(i, 4)),
            [2, 1, 0, 3, 2, 1]
        );
        // The first cell sees its right neighbour twice.
        let row = &band(&taps, 12)[..2];
        assert!((f64::from(row[0]) - taps[5]).abs() < 1e-7);
        assert!((f64::from(row[1]) - 2.0 * taps[4]).abs() < 1e-7);
    }
}
