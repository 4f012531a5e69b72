//! One term of the focal loss and its derivative, in operations that compile to vector code.
//!
//! The loss has a term for each anchor and class, millions an image, and the library's `exp` and
//! `ln_1p` are calls that keep a loop scalar. These two are good to about 2e-7 relative.

/// Terms evaluated together.
pub(super) const LANES: usize = 64;

/// Below it `e^x` is taken as `e^SMALLEST`, about 1.6e-38: the last before subnormal numbers.
const SMALLEST: f32 = -87.0;

/// `softplus(z) σ(z)^γ` and its derivative `σ(z)^γ (σ(z) + γ (1 − σ(z)) softplus(z))` of each `z`;
/// `modulate` is `σ ↦ σ^γ`.
///
/// No step overflows or cancels for finite `z`; NaN and infinities give non-finite terms.
#[inline(always)]
pub(super) fn focal_terms(
    z: &[f32; LANES],
    gamma: f32,
    modulate: impl Fn(f32) -> f32,
) -> ([f32; LANES], [f32; LANES]) {
    let mut losses = [0.0; LANES];
    let mut slopes = [0.0; LANES];
    for i in 0..LANES {
        let z = z[i];
        let tail = exp_of_negative(-z.abs());
        // Half sums instead of a maximum, which would swallow NaN.
        let softplus = (0.5 * z + 0.5 * z.abs()) + ln_1p_of_unit(tail);
        let near = 1.0 / (1.0 + tail);
        let far = tail * near;
        let (sigmoid, complement) = if z >= 0.0 { (near, far) } else { (far, near) };
        let modulation = modulate(sigmoid);
        losses[i] = softplus * modulation;
        slopes[i] = modulation * (sigmoid + gamma * complement * softplus);
    }
    (losses, slopes)
}

/// `e^x` for `x <= 0`: `2^n · e^r` with `|r| <= ln 2 / 2`, the coefficients of Cephes' `expf`.
#[inline(always)]
pub(in crate::kernels) fn exp_of_negative(x: f32) -> f32 {
    /// Adding it leaves `n` in the low bits of the sum: 1.5 · 2²³.
    const ROUNDER: f32 = 12_582_912.0;
    /// ln 2 in two parts, so that `n` times the first is exact.
    const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    // In this order NaN stays.
    let x = if x < SMALLEST { SMALLEST } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = (x - n * LN_2[0]) - n * LN_2[1];
    let mut series = 1.987_569_1e-4;
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        0.166_666_65,
        0.5,
        1.0,
        1.0,
    ] {
        series = series * r + coefficient;
    }
    // The exponent field: n + 127.
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUNDER.to_bits())
        .wrapping_add(127);
    series * f32::from_bits(exponent << 23)
}

/// `ln(1 + x)` for `x` in `[0, 1]`: `2 artanh(s)`, `s = x / (2 + x) <= 1/3`. Exact to the first
/// order, so that small `x` keep their digits; the first term left out is below 1e-8 of the sum.
#[inline(always)]
fn ln_1p_of_unit(x: f32) -> f32 {
    let s = x / (2.0 + x);
    let square = s * s;
    let mut series = 1.0 / 15.0;
    for coefficient in [
        1.0 / 13.0,
        1.0 / 11.0,
        1.0 / 9.0,
        1.0 / 7.0,
        1.0 / 5.0,
        1.0 / 3.0,
        1.0,
    ] {
        series = series * square + coefficient;
    }
    2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three or four roundings of 6e-8.
    const TOLERANCE: f64 = 3e-7;

    fn worst(values: impl Iterator<Item = f32>, f: fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        values
            .map(|x| {
                let want = exact(f64::from(x));
                ((f64::from(f(x)) - want) / want).abs()
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn exponential_is_accurate() {
        let error = worst(
            (0..=87_000).map(|i| -(i as f32) / 1000.0),
            exp_of_negative,
            f64::exp,
        );
        assert!(error < TOLERANCE, "{error:e}");
        assert_eq!(exp_of_negative(0.0), 1.0);
        assert!(exp_of_negative(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn logarithm_is_accurate() {
        let units = (1..=10_000).map(|i| i as f32 / 10_000.0);
        let tiny = (1..=126).map(|i| 2.0_f32.powi(-i));
        let error = worst(units.chain(tiny), ln_1p_of_unit, f64::ln_1p);
        assert!(error < TOLERANCE, "{error:e}");
        assert_eq!(ln_1p_of_unit(0.0), 0.0);
    }

    #[test]
    fn terms_equal_the_formula_in_double_precision() {
        let gamma = 1.5;
        let mut z = [0.0; LANES];
        for (i, z) in z.iter_mut().enumerate() {
            *z = (i as f32 - 32.0) * 0.75;
        }
        let (losses, slopes) = focal_terms(&z, gamma, |s| s.powf(gamma));
        for i in 0..LANES {
            let z = f64::from(z[i]);
            let softplus = z.max(0.0) + (-z.abs()).exp().ln_1p();
            let sigmoid = 1.0 / (1.0 + (-z).exp());
            let loss = softplus * sigmoid.powf(1.5);
            let slope = sigmoid.powf(1.5) * (sigmoid + 1.5 * softplus / (1.0 + z.exp()));
            for (got, want) in [(losses[i], loss), (slopes[i], slope)] {
                let error = (f64::from(got) - want).abs() / want;
                assert!(error < 2.0 * TOLERANCE, "z = {z}: {got} is not {want}");
            }
        }
    }

    #[test]
    fn non_finite_logits_are_not_hidden() {
        for z in [f32::NAN, f32::INFINITY] {
            let (losses, slopes) = focal_terms(&[z; LANES], 2.0, |s| s * s);
            assert!(!losses[0].is_finite() && !slopes[0].is_finite(), "{z}");
        }
    }
}
