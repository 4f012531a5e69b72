//! What differences a number of pairs can show.

use statrs::distribution::{ChiSquared, ContinuousCDF};

use super::paired_t::critical_t;

/// Probability with which a true difference of the resolvable size is found.
pub const POWER: f64 = 0.8;

/// A standard normal variable is further out than this with a probability of 1e-15.
const FURTHEST: f64 = 8.0;

/// Panels of Simpson's rule to the width of the narrowest feature of the integrand: powers to 1e-9.
const PANELS: f64 = 20.0;

/// Relative width of the bracket of a root.
const TOLERANCE: f64 = 1e-12;

/// Steps after which the root is as near as rounding lets it come; ten are usual.
const MOST_STEPS: usize = 100;

/// Probability that the two-sided paired t test of `n` pairs at the level `alpha` finds a true mean
/// difference of `effect` standard deviations of the paired differences, in either direction: exact, by
/// the noncentral t distribution (as statsmodels' `TTestPower`).
///
/// # Panics
/// If there are fewer than two pairs, or `alpha` is not between 0 and 1.
#[must_use]
pub fn power(effect: f64, n: usize, alpha: f64) -> f64 {
    assert!(n >= 2, "{n} pairs");
    assert!(alpha > 0.0 && alpha < 1.0, "alpha {alpha}");
    let freedom = (n - 1) as f64;
    let spread = ChiSquared::new(freedom).expect("two pairs have one degree of freedom");
    let critical = critical_t(n, alpha);
    let shift = effect * (n as f64).sqrt();
    // T = (Z + shift) / √(χ²/ν) with ν = n − 1, so that the power P(|T| > critical) is
    // ∫ φ(z) P(χ² < ν ((z + shift) / critical)²) dz. In this order of integration the integrand is as
    // smooth for two pairs, whose critical value may be in the hundreds, as for a thousand; the usual
    // series (Lenth 1989) underflows for such shifts.
    let integrand = |z: f64| {
        let ratio = (z + shift) / critical;
        let density = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
        density * spread.cdf(freedom * ratio * ratio)
    };
    // Of an odd number of degrees of freedom it has a kink where z + shift changes sign.
    let kink = (-shift).clamp(-FURTHEST, FURTHEST);
    // The spread is χ²'s by its standard deviation, or the normal density's by a fifth of its own.
    let feature = (critical / (2.0 * freedom).sqrt()).min(0.2);
    let simpson = |from: f64, to: f64| simpson(integrand, from, to, feature / PANELS);
    simpson(-FURTHEST, kink) + simpson(kink, FURTHEST)
}

/// Composite Simpson's rule, in panels of at most `width`.
fn simpson(f: impl Fn(f64) -> f64, from: f64, to: f64, width: f64) -> f64 {
    let panels = 2 * ((to - from) / width / 2.0).ceil() as usize;
    if panels == 0 {
        return 0.0;
    }
    let width = (to - from) / panels as f64;
    let weight = |i: usize| if i % 2 == 1 { 4.0 } else { 2.0 };
    let inner = (1..panels).map(|i| weight(i) * f(from + width * i as f64));
    (f(from) + inner.sum::<f64>() + f(to)) * width / 3.0
}

/// The smallest true difference, in standard deviations of the paired differences, that `n` pairs find
/// with probability `wanted` at the two-sided level `alpha`; none with fewer than two pairs.
///
/// # Panics
/// If `alpha` is not between 0 and 1, or `wanted` not between `alpha` and 1.
#[must_use]
pub fn resolvable_in_sd(n: usize, alpha: f64, wanted: f64) -> Option<f64> {
    assert!(
        alpha < wanted && wanted < 1.0,
        "power {wanted}, alpha {alpha}"
    );
    if n < 2 {
        return None;
    }
    let excess = |effect: f64| power(effect, n, alpha) - wanted;
    let (mut low, mut high) = (0.0, 1.0);
    let (mut below, mut above) = (alpha - wanted, excess(high));
    while above < 0.0 {
        (low, below) = (high, above);
        high *= 2.0;
        above = excess(high);
    }
    // False position, Illinois: halving what is kept twice.
    let mut kept = 0;
    for _ in 0..MOST_STEPS {
        if high - low <= TOLERANCE * high {
            break;
        }
        let middle = (low * above - high * below) / (above - below);
        let value = excess(middle);
        if value == 0.0 || middle <= low || middle >= high {
            return Some(middle);
        }
        if value < 0.0 {
            (low, below) = (middle, value);
            above /= if kept == 1 { 2.0 } else { 1.0 };
            kept = 1;
        } else {
            (high, above) = (middle, value);
            below /= if kept == -1 { 2.0 } else { 1.0 };
            kept = -1;
        }
    }
    Some(high)
}

/// The smallest number of pairs that finds a true difference of `effect` standard deviations with
/// probability `wanted` at the two-sided level `alpha`; none if it is above `most`.
///
/// # Panics
/// As [`power`].
#[must_use]
pub fn pairs_needed(effect: f64, alpha: f64, wanted: f64, most: usize) -> Option<usize> {
    let enough = |n: usize| power(effect, n, alpha) >= wanted;
    if most < 2 || !enough(most) {
        return None;
    }
    let (mut low, mut high) = (1, most);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}
