//! Quantiles of a sample.

use crate::report::Interval;

/// The quantile `q` of `sorted`, by linear interpolation between the order statistics at `q · (n − 1)`:
/// numpy's default, type 7 of Hyndman and Fan (1996).
///
/// # Panics
/// If there is no value, or `q` is outside `[0, 1]`.
#[must_use]
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    assert!((0.0..=1.0).contains(&q), "quantile {q}");
    let last = sorted.len().checked_sub(1).expect("a value at least");
    let position = q * last as f64;
    let below = (position.floor() as usize).min(last);
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    let part = position - below as f64;
    // From the nearer end, as numpy does: exact at both.
    if part < 0.5 {
        low + (high - low) * part
    } else {
        high - (high - low) * (1.0 - part)
    }
}

/// The interval that leaves out `(1 − level) / 2` of `values` at each end; none of no value.
///
/// # Panics
/// If a value is NaN.
#[must_use]
pub fn percentile_interval(values: &[f64], level: f64) -> Option<Interval> {
    if values.is_empty() {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(|a, b| a.partial_cmp(b).expect("no value is NaN"));
    let tail = (1.0 - level) / 2.0;
    Some(Interval {
        low: quantile(&sorted, tail),
        high: quantile(&sorted, 1.0 - tail),
    })
}
