//! What a comparison comes to.

use super::{PairedT, paired_t};
use crate::report::Verdict;

/// What verdicts go by, fixed before the first run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Two-sided error of the first kind of all comparisons together.
    pub alpha: f64,
    /// The smallest difference that matters, points; 0 or more.
    pub threshold: f64,
    /// How many comparisons there are.
    pub comparisons: usize,
}

impl Rule {
    /// α/m: Bonferroni's level of each test.
    #[must_use]
    pub fn alpha_each(&self) -> f64 {
        self.alpha / self.comparisons as f64
    }

    /// 1 − α/m: the level of intervals that hold together.
    #[must_use]
    pub fn level_together(&self) -> f64 {
        1.0 - self.alpha_each()
    }

    /// Whether there is a difference, of whatever size.
    pub(super) fn found(&self, test: &PairedT, p_holm: f64) -> bool {
        p_holm <= self.alpha && test.mean != 0.0
    }
}

/// The verdict on the paired `differences` of one comparison, whose p value after Holm's correction is
/// `p_holm`; [the rules](super#rules-of-the-verdict).
///
/// # Panics
/// If a difference is NaN or infinite, `p_holm` is missing with two pairs or more, `rule` has no
/// comparison, an α that is not between 0 and 1 or a negative threshold.
#[must_use]
pub fn verdict(differences: &[f64], p_holm: Option<f64>, rule: &Rule) -> Verdict {
    assert!(rule.comparisons > 0, "a comparison is one of them");
    assert!(rule.threshold >= 0.0, "threshold {}", rule.threshold);
    let Some(test) = paired_t(differences) else {
        return Verdict::Underpowered;
    };
    let p_holm = p_holm.expect("two pairs have a p value");
    if rule.found(&test, p_holm) && test.mean.abs() >= rule.threshold {
        return if test.mean > 0.0 {
            Verdict::Better
        } else {
            Verdict::Worse
        };
    }
    let together = test.interval(rule.level_together());
    let excluded = -rule.threshold < together.low && together.high < rule.threshold;
    if excluded || test.is_of_identical() {
        Verdict::NoDifferenceShown
    } else {
        Verdict::Underpowered
    }
}
