//! Everything that the seeds say, of all comparisons at once.

use super::{POWER, Rule, holm, mean_sd, paired_t, reading, resolvable_in_sd, verdict};
use crate::report::{Interval, Verdict};

/// Level of the intervals that stand by themselves.
pub const INTERVAL_LEVEL: f64 = 0.95;

/// What the seeds say of one comparison: the numbers of a
/// [`Comparison`](crate::report::Comparison) under the same names.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// Mean of the paired differences; none without a pair.
    pub difference: Option<f64>,
    /// Their standard deviation (n − 1); none with one pair.
    pub sd: Option<f64>,
    /// Student's interval at [`INTERVAL_LEVEL`].
    pub interval: Option<Interval>,
    /// Student's interval at the level 1 − α/m.
    pub interval_together: Option<Interval>,
    /// Two-sided.
    pub p: Option<f64>,
    /// After Holm's correction.
    pub p_holm: Option<f64>,
    /// The difference that this many pairs of this spread find with [`POWER`].
    pub resolvable: Option<f64>,
    /// What it comes to.
    pub verdict: Verdict,
    /// The verdict in a sentence.
    pub reading: String,
}

/// Assesses `comparisons`, each the paired differences of one arm by seed, all against one control.
/// A comparison whose runs failed belongs in the list, with the pairs that it has or none.
///
/// # Panics
/// If a difference is NaN or infinite, `alpha` is not between 0 and 1 or `threshold` is negative.
#[must_use]
pub fn assess(comparisons: &[Vec<f64>], alpha: f64, threshold: f64) -> Vec<Assessment> {
    let rule = Rule {
        alpha,
        threshold,
        comparisons: comparisons.len(),
    };
    let tests: Vec<_> = comparisons.iter().map(|d| paired_t(d)).collect();
    let p: Vec<Option<f64>> = tests.iter().map(|test| test.map(|t| t.p)).collect();
    let corrected = holm(&p);
    comparisons
        .iter()
        .zip(tests)
        .zip(corrected)
        .map(|((differences, test), p_holm)| {
            let summary = mean_sd(differences);
            Assessment {
                difference: summary.map(|s| s.mean),
                sd: summary.and_then(|s| s.sd),
                interval: test.map(|t| t.interval(INTERVAL_LEVEL)),
                interval_together: test.map(|t| t.interval(rule.level_together())),
                p: test.map(|t| t.p),
                p_holm,
                resolvable: test.and_then(|t| {
                    let in_sd = resolvable_in_sd(t.n, rule.alpha_each(), POWER)?;
                    Some(in_sd * t.sd)
                }),
                verdict: verdict(differences, p_holm, &rule),
                reading: reading(differences, p_holm, &rule),
            }
        })
        .collect()
}
