//! Moments of a run, and weights that change between them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Moment {
    /// Share of the run, from 0 to 1.
    Fraction(f64),
    /// Optimizer steps from its start.
    Iters(u64),
    /// Epochs from its start.
    Epochs(u64),
    /// Optimizer steps before its end.
    ItersBeforeEnd(u64),
}

impl Moment {
    /// The optimizer step, in a run of `total_steps`; it may lie behind the run's end.
    ///
    /// # Errors
    /// A clause, if a fraction lies outside 0..=1.
    pub fn step(self, total_steps: u64, steps_per_epoch: u64) -> Result<u64, String> {
        Ok(match self {
            Moment::Fraction(share) if (0.0..=1.0).contains(&share) => {
                (share * total_steps as f64).round() as u64
            }
            Moment::Fraction(share) => {
                return Err(format!("`fraction` is {share}, expected 0..=1"));
            }
            Moment::Iters(count) => count,
            Moment::Epochs(count) => count.saturating_mul(steps_per_epoch),
            Moment::ItersBeforeEnd(count) => total_steps.saturating_sub(count),
        })
    }
}

/// A factor on the weight of a term, over the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightSchedule {
    /// How the factor changes.
    pub kind: WeightScheduleKind,
    /// The factor before `start` (`until`: before `end`). Left out: 0, of `until` 1.
    #[schemars(range(min = 0.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<f64>,
    /// The factor from `end` on. Left out: 1, of `until` 0.
    #[schemars(range(min = 0.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<f64>,
    /// Where the change begins. Left out: at the start of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Moment>,
    /// Where it ends; `until` needs it. Left out: at the end of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Moment>,
}

/// How a factor changes over the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightScheduleKind {
    /// `to` all along.
    Constant,
    /// A straight line from `from` to `to`.
    Linear,
    /// Half a cosine from `from` to `to`, level at both ends.
    Cosine,
    /// `from` until `end`, then `to`.
    Until,
}

impl WeightSchedule {
    /// The factor before the change.
    #[must_use]
    pub fn from(&self) -> f64 {
        let usual = match self.kind {
            WeightScheduleKind::Until => 1.0,
            _ => 0.0,
        };
        self.from.unwrap_or(usual)
    }

    /// The factor after the change.
    #[must_use]
    pub fn to(&self) -> f64 {
        let usual = match self.kind {
            WeightScheduleKind::Until => 0.0,
            _ => 1.0,
        };
        self.to.unwrap_or(usual)
    }
}
