//! The schedule a method declares as data: stages made of phases.
//!
//! ```json
//! {"stages": [{"name": "train", "phases": [
//!   {"name": "warm", "until": {"fraction": 0.25}, "learn": {"backbone": false}},
//!   {"name": "joint", "lr_scale": {"method": 0.1}}
//! ]}]}
//! ```
//!
//! What a stage of several, or of another student or input size than the configured ones, says beside
//! its phases is in [`declared`]; the engine makes a run of each.
//!
//! A phase ends at `until` (`fraction` of the run, `iters` or `epochs` from the run's start); the
//! last has none. What is left out keeps its default: everything learns, every scale is 1,
//! `distill_gradient` is on, every loss counts.
//!
//! Phases with a `pretrain` come first and are not part of the run: see [`pretrain`].

pub mod declared;
pub mod pretrain;
mod selection;

use serde::{Deserialize, Serialize};

pub use pretrain::{Pretrain, PretrainPhase};
pub use selection::Selection;

use crate::config::StageConfig;
use crate::model::Part;

use declared::DeclaredPhase;

/// Which parts learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Learn {
    /// Everything up to `c5`.
    pub backbone: bool,
    /// The pyramid.
    pub neck: bool,
    /// The towers.
    pub head: bool,
    /// The method's own parameters.
    pub method: bool,
}

impl Default for Learn {
    fn default() -> Self {
        Learn {
            backbone: true,
            neck: true,
            head: true,
            method: true,
        }
    }
}

impl Learn {
    /// Whether `part` learns.
    #[must_use]
    pub fn part(&self, part: Part) -> bool {
        match part {
            Part::Backbone => self.backbone,
            Part::Neck => self.neck,
            Part::Head => self.head,
        }
    }
}

/// Factors on the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LrScale {
    /// Everything up to `c5`.
    pub backbone: f64,
    /// The pyramid.
    pub neck: f64,
    /// The towers.
    pub head: f64,
    /// The method's own parameters.
    pub method: f64,
}

impl Default for LrScale {
    fn default() -> Self {
        LrScale {
            backbone: 1.0,
            neck: 1.0,
            head: 1.0,
            method: 1.0,
        }
    }
}

impl LrScale {
    /// The factor of `part`.
    #[must_use]
    pub fn part(&self, part: Part) -> f64 {
        match part {
            Part::Backbone => self.backbone,
            Part::Neck => self.neck,
            Part::Head => self.head,
        }
    }
}

/// A phase with its place in the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// For messages.
    pub name: String,
    /// First optimizer step.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Which parts learn.
    pub learn: Learn,
    /// Factors on the learning rate.
    pub lr_scale: LrScale,
    /// Whether the method's gradient reaches the student. Its own parameters learn either way.
    pub distill_gradient: bool,
    /// Factor on the student's own task losses.
    pub task_weight: f64,
    /// Which of the method's losses count and which of its parameters learn.
    pub selection: Selection,
}

impl Phase {
    /// A run's only phase: everything learns.
    fn whole(total_steps: u64) -> Self {
        Phase {
            name: "train".into(),
            start: 0,
            end: total_steps,
            learn: Learn::default(),
            lr_scale: LrScale::default(),
            distill_gradient: true,
            task_weight: 1.0,
            selection: Selection::default(),
        }
    }
}

/// Phases of the method alone, then phases that cover a run without gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Index of the run among the stages that its method declares.
    stage: u32,
    pretrain: Vec<PretrainPhase>,
    phases: Vec<Phase>,
}

impl Schedule {
    /// One phase in which everything learns.
    #[must_use]
    pub fn single(total_steps: u64) -> Self {
        Schedule {
            stage: 0,
            pretrain: Vec::new(),
            phases: vec![Phase::whole(total_steps)],
        }
    }

    /// Places the `phases` of the stage `name`, the `index`-th of its method, in a run; without any,
    /// everything learns in it.
    ///
    /// # Errors
    /// A sentence that names the entry that is wrong.
    pub fn place(
        (name, stage): (&str, u32),
        phases: &[DeclaredPhase],
        total_steps: u64,
        steps_per_epoch: u64,
    ) -> Result<Self, String> {
        let (alone, joint) = pretrain::split(name, phases)?;
        let pretrain = pretrain::place(name, alone, joint, steps_per_epoch)?;
        if joint.is_empty() {
            return Ok(Schedule {
                stage,
                pretrain,
                phases: vec![Phase::whole(total_steps)],
            });
        }
        let last = joint.len() - 1;
        let mut placed = Vec::new();
        let mut start = 0;
        for (i, phase) in joint.iter().enumerate() {
            let at = || format!("stage `{name}`, phase `{}`", phase.name);
            let end = match (phase.until, i == last) {
                (None, true) => total_steps,
                (Some(_), true) => {
                    return Err(format!("{}: the last phase must have no `until`", at()));
                }
                (None, false) => {
                    return Err(format!("{}: every phase but the last needs `until`", at()));
                }
                (Some(until), false) => until
                    .step(total_steps, steps_per_epoch)
                    .map_err(|reason| format!("{}: {reason}", at()))?,
            }
            .min(total_steps);
            if end < start {
                return Err(format!(
                    "{}: ends at step {end}, before it starts ({start})",
                    at()
                ));
            }
            let scale = &phase.lr_scale;
            if [scale.backbone, scale.neck, scale.head, scale.method]
                .iter()
                .any(|s| !s.is_finite() || *s < 0.0)
            {
                return Err(format!(
                    "{}: `lr_scale` must be finite and not negative",
                    at()
                ));
            }
            if !(phase.task_weight.is_finite() && phase.task_weight >= 0.0) {
                return Err(format!(
                    "{}: `task_weight` is {}; it must be finite and not negative",
                    at(),
                    phase.task_weight
                ));
            }
            placed.push(Phase {
                name: phase.name.clone(),
                start,
                end,
                learn: phase.learn,
                lr_scale: phase.lr_scale,
                distill_gradient: phase.distill_gradient,
                task_weight: phase.task_weight,
                selection: phase.selection(),
            });
            start = end;
        }
        Ok(Schedule {
            stage,
            pretrain,
            phases: placed,
        })
    }

    /// Places the phases of a run that is a stage.
    ///
    /// # Errors
    /// A sentence that names the entry that is wrong.
    pub fn of_stage(
        stage: &StageConfig,
        total_steps: u64,
        steps_per_epoch: u64,
    ) -> Result<Self, String> {
        let phases = stage.phases.iter().cloned();
        let phases: Vec<DeclaredPhase> = phases
            .map(serde_json::from_value)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("`stage.phases` of stage `{}`: {error}", stage.name))?;
        let at = (stage.name.as_str(), stage.index);
        Self::place(at, &phases, total_steps, steps_per_epoch)
    }

    /// Index of the run among the stages that its method declares.
    #[must_use]
    pub fn stage(&self) -> u32 {
        self.stage
    }

    /// Phases of the method alone, before the run's first step.
    #[must_use]
    pub fn pretrain(&self) -> &[PretrainPhase] {
        &self.pretrain
    }

    /// The phases of the run.
    #[must_use]
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// Index among all that are declared, and phase, of an optimizer step.
    #[must_use]
    pub fn at(&self, step: u64) -> (u32, &Phase) {
        let index = self
            .phases
            .iter()
            .position(|p| step < p.end)
            .unwrap_or(self.phases.len() - 1);
        let declared = self.pretrain.len() + index;
        (declared as u32, &self.phases[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(json: &str) -> Result<Schedule, String> {
        let stages = declared::parse(json)?;
        let stage = &stages[0];
        Schedule::place((&stage.name, 0), &stage.phases, 100, 20)
    }

    #[test]
    fn phases_cover_the_run() {
        let json = r#"{"stages":[{"name":"s","phases":[
            {"name":"a","until":{"iters":10},"learn":{"backbone":false}},
            {"name":"b","until":{"epochs":2},"task_weight":0.1},
            {"name":"c","until":{"fraction":0.5},"distill_gradient":false},
            {"name":"d","lr_scale":{"method":0.1}}]}]}"#;
        let schedule = placed(json).unwrap();
        let ends: Vec<_> = schedule.phases.iter().map(|p| (p.start, p.end)).collect();
        assert_eq!(ends, [(0, 10), (10, 40), (40, 50), (50, 100)]);
        assert!(!schedule.at(9).1.learn.part(Part::Backbone));
        assert!(schedule.at(10).1.learn.part(Part::Backbone));
        assert_eq!(schedule.at(9).1.task_weight, 1.0);
        assert_eq!(schedule.at(10).1.task_weight, 0.1);
        assert!(!schedule.at(49).1.distill_gradient);
        assert_eq!(schedule.at(99).0, 3);
        assert_eq!(schedule.at(50).1.lr_scale.method, 0.1);
    }

    #[test]
    fn every_mistake_is_named() {
        for (json, needle) in [
            (
                r#"{"stages":[{"name":"s","phases":[{"name":"a","untill":null}]}]}"#,
                "untill",
            ),
            (
                r#"{"stages":[{"name":"s","phases":[{"name":"a"},{"name":"b"}]}]}"#,
                "phase `a`",
            ),
            (
                r#"{"stages":[{"name":"s","phases":[{"name":"a","until":{"iters":5}},{"name":"b","until":{"iters":2}},{"name":"c"}]}]}"#,
                "before it starts",
            ),
            (
                r#"{"stages":[{"name":"s","phases":[{"name":"a","until":{"fraction":1.5}},{"name":"b"}]}]}"#,
                "0..=1",
            ),
            (
                r#"{"stages":[{"name":"s","phases":[{"name":"a","task_weight":-1.0}]}]}"#,
                "`task_weight` is -1",
            ),
        ] {
            let message = placed(json).unwrap_err();
            assert!(message.contains(needle), "{message}");
        }
    }
}
