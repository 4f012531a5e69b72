//! Correction for several comparisons.

/// Holm's step-down adjusted p values, in the order given (Holm 1979): the family-wise error is at most α
/// when those at or below α are called differences, however the tests depend on each other.
///
/// A comparison without a test (`None`) still counts among the comparisons, as if its p were 1: the
/// family is fixed before the runs, and a failed run must not make the other tests easier.
///
/// # Panics
/// If a p value is NaN.
#[must_use]
pub fn holm(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<(f64, usize)> = p
        .iter()
        .enumerate()
        .filter_map(|(i, p)| Some(((*p)?, i)))
        .collect();
    order.sort_by(|a, b| a.0.partial_cmp(&b.0).expect("no p value is NaN"));
    let mut adjusted = vec![None; p.len()];
    let mut highest = 0.0f64;
    for (rank, (p_value, index)) in order.into_iter().enumerate() {
        highest = highest.max(((p.len() - rank) as f64 * p_value).min(1.0));
        adjusted[index] = Some(highest);
    }
    adjusted
}
