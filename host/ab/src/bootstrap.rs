//! What the evaluated images say: how far a difference hangs on which images are evaluated.
//!
//! Images are drawn again with replacement, as many as there are, and both arms are evaluated on the
//! same draw (Efron 1979; the interval is the percentile one). An image that is drawn twice counts
//! twice: a bootstrap that drops repeated draws is one of m images out of n without replacement, with m
//! about 0.63 n, and its intervals are a quarter too narrow.

use rayon::prelude::*;

use crate::report::Bootstrap;
use crate::resampled::Resampled;
use crate::stats::{INTERVAL_LEVEL, mean_sd, percentile_interval};
use kdhost_rng::KeyedRng;

#[cfg(test)]
mod tests;

/// Draws of images, the same for every run that is evaluated on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resamples {
    num_images: usize,
    replicates: usize,
    seed: u64,
}

impl Resamples {
    /// `replicates` draws of `num_images` out of as many.
    #[must_use]
    pub fn new(num_images: usize, replicates: usize, seed: u64) -> Self {
        Resamples {
            num_images,
            replicates,
            seed,
        }
    }

    /// How many draws there are.
    #[must_use]
    pub fn replicates(&self) -> usize {
        self.replicates
    }

    /// How often each image is in draw `replicate`: multinomial, the sum is the number of images.
    ///
    /// A function of the seed and of `replicate` alone, the same in any order, on any thread and on every
    /// platform.
    ///
    /// # Panics
    /// If there is no such draw.
    #[must_use]
    pub fn counts(&self, replicate: usize) -> Vec<u32> {
        assert!(
            replicate < self.replicates,
            "draw {replicate} of {}",
            self.replicates
        );
        let mut rng = KeyedRng::new("resample images", &[self.seed, replicate as u64]);
        let mut counts = vec![0; self.num_images];
        for _ in 0..self.num_images {
            counts[rng.below(self.num_images)] += 1;
        }
        counts
    }

    /// The metric of `run` on every draw, points, in their order; computed on rayon's threads, whose
    /// number changes nothing. `None` where it is undefined: no ground truth was drawn.
    ///
    /// # Panics
    /// If `run` has another number of images.
    #[must_use]
    pub fn metric(&self, run: &Resampled) -> Vec<Option<f64>> {
        assert_eq!(run.num_images(), self.num_images, "images of the run");
        (0..self.replicates)
            .into_par_iter()
            .map(|replicate| run.metric(&self.counts(replicate)))
            .collect()
    }
}

/// A run of the arm and one of the control: what [`Resamples::metric`] gives for each.
#[derive(Clone, Copy, Debug)]
pub struct MetricPair<'a> {
    /// Of the arm.
    pub arm: &'a [Option<f64>],
    /// Of the control.
    pub control: &'a [Option<f64>],
}

/// Of the mean difference over `pairs` (arm minus control), over the draws on which every metric is
/// defined, and the number of draws that are left out because one is not. None with no pair or fewer than
/// two draws left.
///
/// # Panics
/// If the pairs differ in the number of draws.
#[must_use]
pub fn summarise(pairs: &[MetricPair<'_>]) -> (Option<Bootstrap>, usize) {
    let Some(first) = pairs.first() else {
        return (None, 0);
    };
    let draws = first.arm.len();
    let same = |pair: &MetricPair<'_>| pair.arm.len() == draws && pair.control.len() == draws;
    assert!(pairs.iter().all(same), "the same draws of every run");
    let difference = |draw: usize| {
        let of_pair = |pair: &MetricPair<'_>| Some(pair.arm[draw]? - pair.control[draw]?);
        let sum: Option<f64> = pairs.iter().map(of_pair).sum();
        Some(sum? / pairs.len() as f64)
    };
    let differences: Vec<f64> = (0..draws).filter_map(difference).collect();
    (describe(&differences), draws - differences.len())
}

/// Interval, standard error and sign of `differences` over draws; none of fewer than two.
#[must_use]
pub fn describe(differences: &[f64]) -> Option<Bootstrap> {
    let se = mean_sd(differences)?.sd?;
    let above = differences.iter().filter(|&&d| d > 0.0).count();
    Some(Bootstrap {
        interval: percentile_interval(differences, INTERVAL_LEVEL)?,
        se,
        share_above: above as f64 / differences.len() as f64,
    })
}
