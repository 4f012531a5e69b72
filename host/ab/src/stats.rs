//! What the seeds say: paired tests over them, corrected for several arms, and a verdict on each.
//!
//! Both arms of a seed start from the same weights and see the same images in the same order, so runs
//! are paired by seed. Differences are arm minus control, in points.
//!
//! # Rules of the verdict
//!
//! d is the mean of the paired differences, p its two-sided p value of Student's t after Holm's
//! correction over all m comparisons, α = 0.05, τ ≥ 0 the threshold. In this order:
//!
//! 1. *better*: p ≤ α, d > 0 and d ≥ τ; *worse*: the mirror image.
//! 2. *no difference shown*: the interval at the level 1 − α/m lies strictly inside (−τ, τ). Pairs that
//!    are all identical are this too, whatever τ (p = 1, interval \[0, 0\]).
//! 3. *underpowered*: everything else, and fewer than two pairs.
//!
//! Pairs that all differ by exactly the same d ≠ 0 have an infinite t, p = 0 and the interval \[d, d\].

mod assess;
mod holm;
mod paired_t;
mod power;
mod quantile;
mod reading;
mod summary;
#[cfg(test)]
mod tests;
mod verdict;

pub use assess::{Assessment, INTERVAL_LEVEL, assess};
pub use holm::holm;
pub use paired_t::{PairedT, paired_t};
pub use power::{POWER, pairs_needed, power, resolvable_in_sd};
pub use quantile::{percentile_interval, quantile};
pub use reading::reading;
pub use summary::mean_sd;
pub use verdict::{Rule, verdict};
