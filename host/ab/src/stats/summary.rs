//! Mean and standard deviation.

use crate::report::Summary;

/// Mean of `values` and their standard deviation (n − 1; none for one value); none of no value.
///
/// Of equal values the mean is that value and the standard deviation 0, both exactly.
#[must_use]
pub fn mean_sd(values: &[f64]) -> Option<Summary> {
    // Deviations from the first value: a sum of equal values divided by their number is not always that value.
    let &first = values.first()?;
    let n = values.len() as f64;
    let mean = first + values.iter().map(|x| x - first).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    Some(Summary {
        n: values.len(),
        mean,
        sd: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
    })
}
