//! Student's t test of paired differences.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::summary::mean_sd;
use crate::report::Interval;

/// What Student's t says of the mean of paired differences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedT {
    /// Number of pairs, at least 2.
    pub n: usize,
    /// Mean difference.
    pub mean: f64,
    /// Standard deviation of the differences (n − 1).
    pub sd: f64,
    /// `mean / (sd / √n)`; infinite if all differences are the same and not 0, 0 if all are 0.
    pub t: f64,
    /// Two-sided, with n − 1 degrees of freedom.
    pub p: f64,
}

/// The test of `differences` against a mean of 0 (Student 1908); none with fewer than two.
///
/// # Panics
/// If a difference is NaN or infinite.
#[must_use]
pub fn paired_t(differences: &[f64]) -> Option<PairedT> {
    assert!(
        differences.iter().all(|d| d.is_finite()),
        "differences are finite: {differences:?}"
    );
    let summary = mean_sd(differences)?;
    let (n, mean, sd) = (summary.n, summary.mean, summary.sd?);
    let t = match (mean == 0.0, sd == 0.0) {
        (true, _) => 0.0,
        (false, true) => f64::INFINITY.copysign(mean),
        (false, false) => mean / (sd / (n as f64).sqrt()),
    };
    let p = if t.is_infinite() {
        0.0
    } else {
        (2.0 * student(n).sf(t.abs())).min(1.0)
    };
    Some(PairedT { n, mean, sd, t, p })
}

impl PairedT {
    /// Whether every difference is exactly 0.
    #[must_use]
    pub fn is_of_identical(&self) -> bool {
        self.mean == 0.0 && self.sd == 0.0
    }

    /// Student's interval of the mean difference; `[mean, mean]` without spread.
    ///
    /// # Panics
    /// If `level` is not between 0 and 1.
    #[must_use]
    pub fn interval(&self, level: f64) -> Interval {
        assert!(level > 0.0 && level < 1.0, "level {level}");
        let half = critical_t(self.n, 1.0 - level) * self.sd / (self.n as f64).sqrt();
        Interval {
            low: self.mean - half,
            high: self.mean + half,
        }
    }
}

/// What |t| of `n` pairs exceeds with probability `alpha` where there is no difference.
pub(super) fn critical_t(n: usize, alpha: f64) -> f64 {
    // The lower tail, where α/2 is exact.
    -student(n).inverse_cdf(alpha / 2.0)
}

fn student(n: usize) -> StudentsT {
    StudentsT::new(0.0, 1.0, (n - 1) as f64).expect("two pairs have one degree of freedom")
}
