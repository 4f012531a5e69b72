//! When the backbone learns and when the distillation loss reaches the student.

use kd_plugin::MethodError;
use kd_plugin::schedule::{Learn, Phase, Schedule, Until};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Config;

/// Unit of the three lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PhaseUnit {
    /// Share of the run.
    #[default]
    Fraction,
    /// Optimizer steps.
    Iters,
}

/// The schedule of a configuration. With `it` counted from 0: the backbone is frozen while
/// `it < pre_freeze_backbone`; the distillation loss stays off the student while
/// `it < pre_nondistill` or `it > total − post_nondistill`. The task loss on the instructive maps is
/// on throughout.
///
/// # Errors
/// If a length is negative, no whole number of steps, or together they leave no step for
/// distillation.
pub fn schedule(config: &Config) -> Result<Schedule, MethodError> {
    let (freeze, pre, post) = (
        config.pre_freeze_backbone,
        config.pre_nondistill,
        config.post_nondistill,
    );
    for (name, value) in [
        ("pre_freeze_backbone", freeze),
        ("pre_nondistill", pre),
        ("post_nondistill", post),
    ] {
        let fits = match config.phase_unit {
            PhaseUnit::Fraction => (0.0..=1.0).contains(&value),
            PhaseUnit::Iters => value >= 0.0 && value.fract() == 0.0 && value < 1e15,
        };
        if !fits {
            let expected = match config.phase_unit {
                PhaseUnit::Fraction => "a share of the run from 0 to 1",
                PhaseUnit::Iters => "a whole number of steps",
            };
            return Err(MethodError::config(format!(
                "`{name}` is {value}; with this `phase_unit` it must be {expected}"
            )));
        }
    }
    if config.phase_unit == PhaseUnit::Fraction && freeze.max(pre) + post > 1.0 {
        return Err(MethodError::config(format!(
            "`pre_freeze_backbone` {freeze}, `pre_nondistill` {pre} and `post_nondistill` {post} \
             overlap: the first two and the last must leave a part of the run"
        )));
    }
    let until = |length: f64| match config.phase_unit {
        PhaseUnit::Fraction => Until::Fraction(length),
        PhaseUnit::Iters => Until::Iters(length as u64),
    };
    let mut starts = [freeze, pre];
    starts.sort_by(f64::total_cmp);
    let mut phases = Vec::new();
    let mut from = 0.0;
    for end in starts {
        if end > from {
            phases.push(Phase {
                until: Some(until(end)),
                ..phase(from < freeze, from >= pre)
            });
            from = end;
        }
    }
    phases.push(phase(false, true));
    if post > 0.0 {
        let last = phases.len() - 1;
        phases[last].until = Some(match config.phase_unit {
            PhaseUnit::Fraction => Until::Fraction(1.0 - post),
            // The official comparison is `it > total - post`: step `total - post` still distils.
            PhaseUnit::Iters => Until::ItersBeforeEnd(post as u64 - 1),
        });
        phases.push(Phase {
            name: "after".into(),
            ..phase(false, false)
        });
    }
    Ok(Schedule::single(phases))
}

fn phase(frozen: bool, distill: bool) -> Phase {
    let name = match (frozen, distill) {
        (true, false) => "frozen backbone",
        (true, true) => "frozen backbone, distill",
        (false, false) => "before",
        (false, true) => "distill",
    };
    Phase {
        learn: Learn {
            backbone: !frozen,
            ..Learn::default()
        },
        distill_gradient: distill,
        ..Phase::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases(config: Config) -> Vec<(Option<Until>, bool, bool)> {
        let schedule = schedule(&config).unwrap();
        let phases = &schedule.stages[0].phases;
        phases
            .iter()
            .map(|p| (p.until, p.learn.backbone, p.distill_gradient))
            .collect()
    }

    #[test]
    fn the_default_is_the_long_schedule_in_shares() {
        assert_eq!(
            phases(Config::default()),
            [
                (Some(Until::Fraction(1.0 / 9.0)), false, false),
                (Some(Until::Fraction(1.0 / 6.0)), true, false),
                (None, true, true),
            ]
        );
    }

    #[test]
    fn lengths_may_come_in_any_order() {
        let iters = |freeze, pre, post| {
            phases(Config {
                phase_unit: PhaseUnit::Iters,
                pre_freeze_backbone: freeze,
                pre_nondistill: pre,
                post_nondistill: post,
                ..Config::default()
            })
        };
        assert_eq!(iters(0.0, 0.0, 0.0), [(None, true, true)]);
        assert_eq!(
            iters(7.0, 3.0, 0.0),
            [
                (Some(Until::Iters(3)), false, false),
                (Some(Until::Iters(7)), false, true),
                (None, true, true),
            ]
        );
        assert_eq!(
            iters(3.0, 3.0, 5.0),
            [
                (Some(Until::Iters(3)), false, false),
                (Some(Until::ItersBeforeEnd(4)), true, true),
                (None, true, false),
            ]
        );
    }

    #[test]
    fn lengths_that_make_no_sense_are_named() {
        for (config, needle) in [
            (
                Config {
                    pre_nondistill: 1.5,
                    ..Config::default()
                },
                "`pre_nondistill`",
            ),
            (
                Config {
                    phase_unit: PhaseUnit::Iters,
                    ..Config::default()
                },
                "whole number",
            ),
            (
                Config {
                    post_nondistill: 0.9,
                    ..Config::default()
                },
                "overlap",
            ),
        ] {
            let error = schedule(&config).unwrap_err();
            assert!(error.message().contains(needle), "{error}");
        }
    }
}
