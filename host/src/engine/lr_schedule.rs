//! The learning rate as a function of the optimizer step alone, so that resuming needs no state.

use std::f64::consts::PI;

use crate::config::{ScheduleKind, TrainConfig};

/// Linear warm-up, then the configured shape.
///
/// For step `i` of `total`, warm-up length `w`, start factor `f`, peak `lr`:
///
/// ```text
/// i < w:       lr · (f + (1 - f) · i / w)
/// constant:    lr
/// multi_step:  lr · gamma^(milestones ≤ epoch of i)
/// cosine:      lr · (1 + cos(π t)) / 2      t = (i - w) / (total - w)
/// poly:        lr · (1 - t)^power
/// ```
///
/// These are torch.optim.lr_scheduler's `LinearLR` followed (`SequentialLR`) by `ConstantLR`,
/// `CosineAnnealingLR` or `PolynomialLR` over the steps that remain after warm-up. `multi_step`
/// counts epochs from the start of the run and also acts during warm-up: torch's
/// `ChainedScheduler` of `LinearLR` and `MultiStepLR`, and what mmdet does.
///
/// mmdet 3's `LinearLR` reaches the peak one step earlier (it divides by `w - 1`); mmdet 2, torch
/// and this one divide by `w`.
#[derive(Clone, Debug, PartialEq)]
pub struct LrSchedule {
    lr: f64,
    warmup_iters: u64,
    warmup_factor: f64,
    total_iters: u64,
    shape: Shape,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Constant,
    /// Steps at which the rate is multiplied by `gamma`, ascending.
    MultiStep {
        milestones: Vec<u64>,
        gamma: f64,
    },
    Cosine,
    Poly {
        power: f64,
    },
}

impl LrSchedule {
    /// The schedule of `config` for a run of `total_iters` optimizer steps.
    #[must_use]
    pub fn new(config: &TrainConfig, iters_per_epoch: u64, total_iters: u64) -> Self {
        let shape = match config.schedule {
            ScheduleKind::Constant => Shape::Constant,
            ScheduleKind::MultiStep => {
                let mut milestones: Vec<u64> = config
                    .milestones
                    .iter()
                    .map(|&epoch| epoch as u64 * iters_per_epoch)
                    .collect();
                milestones.sort_unstable();
                Shape::MultiStep {
                    milestones,
                    gamma: config.gamma,
                }
            }
            ScheduleKind::Cosine => Shape::Cosine,
            ScheduleKind::Poly => Shape::Poly {
                power: config.poly_power,
            },
        };
        LrSchedule {
            lr: config.lr,
            warmup_iters: config.warmup_iters as u64,
            warmup_factor: config.warmup_factor,
            total_iters,
            shape,
        }
    }

    /// The learning rate of step `iter`, counted from 0. Past the end it stays where it ended.
    #[must_use]
    pub fn lr(&self, iter: u64) -> f64 {
        let warm = iter < self.warmup_iters;
        let warmup = if warm {
            let share = iter as f64 / self.warmup_iters as f64;
            self.warmup_factor + (1.0 - self.warmup_factor) * share
        } else {
            1.0
        };
        let decay = match &self.shape {
            Shape::MultiStep { milestones, gamma } => {
                let passed = milestones.partition_point(|&milestone| milestone <= iter);
                gamma.powf(passed as f64)
            }
            Shape::Cosine if !warm => (1.0 + (PI * self.progress(iter)).cos()) / 2.0,
            Shape::Poly { power } if !warm => (1.0 - self.progress(iter)).powf(*power),
            Shape::Constant | Shape::Cosine | Shape::Poly { .. } => 1.0,
        };
        self.lr * warmup * decay
    }

    /// Share of the steps after warm-up that are done.
    fn progress(&self, iter: u64) -> f64 {
        let length = self.total_iters.saturating_sub(self.warmup_iters).max(1);
        ((iter - self.warmup_iters) as f64 / length as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// torch multiplies the previous rate by a ratio each step; the roundings of f64 add up over 60
    /// steps. Relative to the peak.
    const TOLERANCE: f64 = 1e-12;

    #[derive(Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        config: toml::Table,
        iters_per_epoch: u64,
        total: u64,
        lrs: Vec<f64>,
    }

    fn train_config(changes: toml::Table) -> TrainConfig {
        let base: toml::Table = include_str!("../../../configs/base.toml").parse().unwrap();
        let mut train = base["train"].as_table().unwrap().clone();
        train.extend(changes);
        train.try_into().unwrap()
    }

    #[test]
    fn every_step_is_torchs() {
        let text = include_str!("../../../tests/golden/optim/lr_golden.json");
        let golden: Golden = serde_json::from_str(text).unwrap();
        assert_eq!(golden.cases.len(), 8);
        for case in golden.cases {
            let config = train_config(case.config);
            let schedule = LrSchedule::new(&config, case.iters_per_epoch, case.total);
            for (iter, &expected) in case.lrs.iter().enumerate() {
                let lr = schedule.lr(iter as u64);
                assert!(
                    (lr - expected).abs() <= TOLERANCE * config.lr,
                    "{} warm-up {} step {iter}: {lr} {expected}",
                    case.name,
                    config.warmup_iters
                );
            }
        }
    }

    #[test]
    fn a_run_shorter_than_its_warm_up_only_warms_up() {
        let changes = "lr = 1.0\nwarmup_iters = 10\nwarmup_factor = 0.5\nschedule = 'cosine'";
        let schedule = LrSchedule::new(&train_config(changes.parse().unwrap()), 5, 4);
        let lrs: Vec<f64> = (0..4).map(|i| schedule.lr(i)).collect();
        assert_eq!(lrs, [0.5, 0.55, 0.6, 0.65]);
    }

    #[test]
    fn the_end_is_the_end() {
        let changes = "lr = 1.0\nwarmup_iters = 0\nschedule = 'poly'\npoly_power = 2.0";
        let schedule = LrSchedule::new(&train_config(changes.parse().unwrap()), 5, 10);
        assert_eq!(
            [schedule.lr(5), schedule.lr(10), schedule.lr(99)],
            [0.25, 0.0, 0.0]
        );
    }
}
