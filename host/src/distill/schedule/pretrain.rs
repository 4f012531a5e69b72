//! Phases of a method alone, before the run's first step.
//!
//! ```json
//! {"stages": [{"name": "train", "phases": [
//!   {"name": "code", "until": {"epochs": 3},
//!    "learn": {"backbone": false, "neck": false, "head": false},
//!    "losses": ["loss_code"], "params": ["coder.*"],
//!    "pretrain": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "poly_power": 0.9}},
//!   {"name": "joint", "losses": ["loss_distill"], "params": ["adapter.*"]}
//! ]}]}
//! ```
//!
//! Such a phase counts its own steps. The run that follows is the run without it: as long, with the
//! same learning rates and the same images in the same order.

use serde::{Deserialize, Serialize};

use super::declared::DeclaredPhase;
use super::{Learn, LrScale, Selection};
use crate::config::Moment;
use crate::model::Part;

/// SGD with momentum and dampening 0; the learning rate at step `t` of `T` is
/// `lr * (1 - t/T)^poly_power`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pretrain {
    /// At the first step; above 0.
    pub lr: f64,
    /// In `[0, 1)`.
    #[serde(default)]
    pub momentum: f64,
    /// Of parameters of two extents and more; the others do not decay.
    #[serde(default)]
    pub weight_decay: f64,
    /// 0: the learning rate stays.
    #[serde(default)]
    pub poly_power: f64,
}

impl Pretrain {
    /// The learning rate at `step` of `steps`.
    #[must_use]
    pub fn lr(&self, step: u64, steps: u64) -> f64 {
        let left = 1.0 - step as f64 / steps as f64;
        self.lr * left.powf(self.poly_power)
    }

    fn check(&self) -> Result<(), String> {
        let not_negative = |value: f64| value.is_finite() && value >= 0.0;
        for (key, value, fits, expected) in [
            (
                "lr",
                self.lr,
                not_negative(self.lr) && self.lr > 0.0,
                "above 0",
            ),
            (
                "momentum",
                self.momentum,
                (0.0..1.0).contains(&self.momentum),
                "in [0, 1)",
            ),
            (
                "weight_decay",
                self.weight_decay,
                not_negative(self.weight_decay),
                "not negative",
            ),
            (
                "poly_power",
                self.poly_power,
                not_negative(self.poly_power),
                "not negative",
            ),
        ] {
            if !fits {
                return Err(format!(
                    "`pretrain.{key}` is {value}, expected a number {expected}"
                ));
            }
        }
        Ok(())
    }
}

/// A phase of the method alone.
#[derive(Clone, Debug, PartialEq)]
pub struct PretrainPhase {
    /// In messages and keys of the log.
    pub name: String,
    /// Index among all that are declared.
    pub index: u32,
    /// Optimizer steps.
    pub steps: u64,
    /// How it learns.
    pub recipe: Pretrain,
    /// Which losses count and which parameters learn.
    pub selection: Selection,
}

/// The phases of the method alone, and those of the run.
///
/// # Errors
/// If one of the first comes after one of the second.
pub(super) fn split<'a>(
    stage: &str,
    phases: &'a [DeclaredPhase],
) -> Result<(&'a [DeclaredPhase], &'a [DeclaredPhase]), String> {
    let alone = phases.iter().take_while(|p| p.pretrain.is_some()).count();
    let (alone, joint) = phases.split_at(alone);
    match joint.iter().find(|phase| phase.pretrain.is_some()) {
        None => Ok((alone, joint)),
        Some(late) => Err(format!(
            "stage `{stage}`, phase `{}`: a phase with `pretrain` is over before the run begins; put \
             it before every phase without",
            late.name
        )),
    }
}

/// Gives each phase its length.
///
/// # Errors
/// A sentence that names stage and phase.
pub(super) fn place(
    stage: &str,
    alone: &[DeclaredPhase],
    joint: &[DeclaredPhase],
    steps_per_epoch: u64,
) -> Result<Vec<PretrainPhase>, String> {
    let mut placed = Vec::new();
    for (index, phase) in alone.iter().enumerate() {
        let refuse = |reason: String| format!("stage `{stage}`, phase `{}`: {reason}", phase.name);
        let recipe = phase.pretrain.expect("these have one");
        recipe.check().map_err(refuse)?;
        let steps = length(phase, steps_per_epoch).map_err(refuse)?;
        check(phase).map_err(refuse)?;
        let all = alone.iter().chain(joint);
        if all.filter(|other| other.name == phase.name).count() > 1 {
            return Err(refuse("another phase has this name".to_owned()));
        }
        placed.push(PretrainPhase {
            name: phase.name.clone(),
            index: index as u32,
            steps,
            recipe,
            selection: phase.selection(),
        });
    }
    Ok(placed)
}

fn length(phase: &DeclaredPhase, steps_per_epoch: u64) -> Result<u64, String> {
    let steps = match phase.until {
        Some(Moment::Iters(steps)) => steps,
        Some(Moment::Epochs(epochs)) => epochs.saturating_mul(steps_per_epoch),
        None => {
            return Err("a phase with `pretrain` needs `until`, in `iters` or `epochs`".to_owned());
        }
        Some(Moment::Fraction(_) | Moment::ItersBeforeEnd(_)) => {
            return Err(
                "a phase with `pretrain` is no part of the run, so its `until` cannot be told by the \
                 run's length; give it in `iters` or `epochs`"
                    .to_owned(),
            );
        }
    };
    match steps {
        0 => Err("it has no steps; leave it out, or give it some in `until`".to_owned()),
        steps => Ok(steps),
    }
}

fn check(phase: &DeclaredPhase) -> Result<(), String> {
    let DeclaredPhase {
        name,
        learn,
        lr_scale,
        ..
    } = phase;
    if name.is_empty() || name.contains('/') {
        return Err("its name stands in keys of the log: give it one without `/`".to_owned());
    }
    let student = [Part::Backbone, Part::Neck, Part::Head];
    if let Some(part) = student.into_iter().find(|part| learn.part(*part)) {
        return Err(format!(
            "`learn.{}` is true, but the student does not run in a phase with `pretrain`; set it, and \
             every other part of the student, to false",
            part.name()
        ));
    }
    let Learn { method, .. } = learn;
    if !method {
        return Err(
            "`learn.method` is false, and nothing else learns in a phase with `pretrain`"
                .to_owned(),
        );
    }
    if *lr_scale != LrScale::default() {
        return Err(
            "`lr_scale` is about the run's learning rate; a phase with `pretrain` has its own, \
             `pretrain.lr`"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Schedule, declared};
    use super::*;

    fn alone(changes: Value) -> Value {
        let mut phase = json!({
            "name": "code",
            "until": {"iters": 7},
            "learn": {"backbone": false, "neck": false, "head": false},
            "pretrain": {"lr": 0.1},
        });
        for (key, value) in changes.as_object().unwrap() {
            phase[key] = value.clone();
        }
        phase
    }

    fn parse(phases: &[Value]) -> Result<Schedule, String> {
        let json = json!({"stages": [{"name": "s", "phases": phases}]}).to_string();
        let stages = declared::parse(&json)?;
        Schedule::place(("s", 0), &stages[0].phases, 100, 20)
    }

    #[test]
    fn they_come_first_and_leave_the_run_as_it_is() {
        let second = alone(json!({"name": "more", "until": {"epochs": 3}, "losses": ["loss_a"]}));
        let frozen = json!({"name": "frozen", "until": {"fraction": 0.25}, "params": ["a.*"]});
        let schedule =
            parse(&[alone(json!({})), second, frozen, json!({"name": "joint"})]).unwrap();
        let steps: Vec<_> = schedule.pretrain().iter().map(|p| p.steps).collect();
        assert_eq!(steps, [7, 60]);
        assert!(schedule.pretrain()[1].selection.counts("loss_a"));
        assert!(!schedule.pretrain()[1].selection.counts("loss_b"));
        // The run's phases keep their place; their index is that in the whole list.
        let (index, phase) = schedule.at(0);
        assert_eq!((index, phase.start, phase.end), (2, 0, 25));
        assert!(!phase.selection.learns("b.weight"));
        assert_eq!(schedule.at(25).0, 3);
    }

    #[test]
    fn without_a_phase_of_the_run_everything_learns_in_it() {
        let schedule = parse(&[alone(json!({}))]).unwrap();
        let (index, phase) = schedule.at(99);
        assert_eq!((index, phase.start, phase.end), (1, 0, 100));
        assert!(phase.learn.method && phase.learn.backbone);
    }

    #[test]
    fn the_learning_rate_follows_the_power() {
        let recipe = Pretrain {
            lr: 0.2,
            momentum: 0.9,
            weight_decay: 0.0,
            poly_power: 0.9,
        };
        assert_eq!(recipe.lr(0, 10), 0.2);
        assert!((recipe.lr(5, 10) - 0.2 * 0.5f64.powf(0.9)).abs() < 1e-15);
        assert!(recipe.lr(9, 10) > 0.0);
        let constant = Pretrain {
            poly_power: 0.0,
            ..recipe
        };
        assert_eq!(constant.lr(9, 10), 0.2);
    }

    #[test]
    fn every_mistake_is_named_with_its_phase() {
        let joint = json!({"name": "joint"});
        for (phases, needle) in [
            (vec![joint.clone(), alone(json!({}))], "put it before"),
            (vec![alone(json!({"until": null}))], "needs `until`"),
            (
                vec![alone(json!({"until": {"fraction": 0.5}}))],
                "run's length",
            ),
            (
                vec![alone(json!({"until": {"iters_before_end": 5}}))],
                "run's length",
            ),
            (vec![alone(json!({"until": {"iters": 0}}))], "no steps"),
            (
                vec![alone(json!({"learn": {"backbone": false, "neck": false}}))],
                "`learn.head` is true",
            ),
            (
                vec![alone(json!({"learn": {
                    "backbone": false, "neck": false, "head": false, "method": false
                }}))],
                "`learn.method` is false",
            ),
            (
                vec![alone(json!({"lr_scale": {"method": 0.1}}))],
                "`pretrain.lr`",
            ),
            (
                vec![alone(json!({"name": "a/b"})), joint.clone()],
                "without `/`",
            ),
            (
                vec![alone(json!({"name": "joint"})), joint],
                "another phase",
            ),
            (
                vec![alone(json!({"pretrain": {"lr": 0.0}}))],
                "`pretrain.lr` is 0",
            ),
            (
                vec![alone(json!({"pretrain": {"lr": 0.1, "momentum": 1.0}}))],
                "`pretrain.momentum` is 1",
            ),
            (
                vec![alone(
                    json!({"pretrain": {"lr": 0.1, "weight_decay": -1.0}}),
                )],
                "`pretrain.weight_decay` is -1",
            ),
            (
                vec![alone(json!({"pretrain": {"lr": 0.1, "poly_power": -1.0}}))],
                "`pretrain.poly_power` is -1",
            ),
        ] {
            let message = parse(&phases).unwrap_err();
            assert!(
                message.contains(needle) && message.contains("stage `s`, phase `"),
                "{message}"
            );
        }
        let message = parse(&[alone(json!({"pretrain": {"lr": 0.1, "nesterov": true}}))]);
        assert!(message.unwrap_err().contains("nesterov"));
    }
}
