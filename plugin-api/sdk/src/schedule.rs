//! Phases and stages that a method asks the host to carry out.
//!
//! The schema is in the crate documentation. What is left out takes the stated default.

use serde::{Deserialize, Serialize};

/// Stages of a run, in order. Each trains one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// At least one.
    pub stages: Vec<Stage>,
}

/// One stage: which model learns, which teaches, on images of which size, in which phases. Its student
/// is the result of the stage; that of the last stage is the result of the whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Unique in the schedule: letters, digits, `-` and `_`; the stage's folder is named for it.
    pub name: String,
    /// Whose architecture learns: `student`, or the name of a configured teacher.
    #[serde(default = "student")]
    pub student: String,
    /// Who teaches: a configured teacher, or the earlier stage whose result teaches; `None` for nobody.
    #[serde(default = "teacher")]
    pub teacher: Option<String>,
    /// Whose weights the student starts from, which must have its architecture: an earlier stage, or
    /// a configured teacher once trained; `None` for the configured start of its architecture.
    #[serde(default)]
    pub init_from: Option<String>,
    /// Side of the student's images relative to the configured one (`data.transform`), in `(0, 1]`;
    /// extents are rounded down.
    #[serde(default = "one")]
    pub input_scale: f64,
    /// Side of the teacher's images relative to the configured one, likewise.
    #[serde(default = "one")]
    pub teacher_input_scale: f64,
    /// The student is a detector whose pyramid is upsampled by this factor before its head, so that its
    /// locations are those of an input as many times larger; 1 for as it is.
    #[serde(default = "one")]
    pub pyramid_scale: f64,
    /// Length of the stage in units of the configured `train.epochs`, above 0; at least one epoch.
    #[serde(default = "one")]
    pub epochs_scale: f64,
    /// False: the student learns from its task losses alone, in the stage's phases.
    #[serde(default = "yes")]
    pub method: bool,
    /// What its result must reach, else the job stops after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// In order: those of the method alone (`pretrain`), then those of the run, of which the last one
    /// has no `until`. None of the run: one phase in which everything learns.
    #[serde(default)]
    pub phases: Vec<Phase>,
}

/// The result of a stage must be as good as plain training of the same architecture on images of the
/// same size, for the configured epochs: the host trains that model too, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// How much worse it may be, in the task's main metric (AP, mIoU, top-1), of 1.
    #[serde(default)]
    pub tolerance: f64,
}

/// A part of a stage with its own learning parts and rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Unique in the stage.
    pub name: String,
    /// Where the phase ends; `None` for the last one: with the stage.
    #[serde(default)]
    pub until: Option<Until>,
    /// What learns.
    #[serde(default)]
    pub learn: Learn,
    /// Multiplies the learning rate of each part.
    #[serde(default)]
    pub lr_scale: LrScale,
    /// Whether the method's gradient reaches the student's taps.
    #[serde(default = "yes")]
    pub distill_gradient: bool,
    /// Multiplies the student's own task losses; not negative.
    #[serde(default = "one")]
    pub task_weight: f64,
    /// Losses of the method that count in this phase, `maps` among them where it makes some; the
    /// others have weight 0. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<String>,
    /// Patterns of the method's parameters that learn in this phase, `*` stands for any text; the
    /// others keep their values. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<String>,
    /// Set: a phase of the method alone, with steps of its own before the run's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrain: Option<Pretrain>,
}

/// How a method learns in a phase of its own, in which the student does not run.
///
/// SGD with momentum and dampening 0. The learning rate at step `t` of `T` is
/// `lr * (1 - t/T)^poly_power`. Parameters of one extent or none (biases, norms) do not decay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pretrain {
    /// At the first step; above 0.
    pub lr: f64,
    /// Of the gradients, in `[0, 1)`.
    #[serde(default)]
    pub momentum: f64,
    /// Added to the gradient, times the parameter.
    #[serde(default)]
    pub weight_decay: f64,
    /// 0: the learning rate stays.
    #[serde(default)]
    pub poly_power: f64,
}

/// Where a phase ends, counted from the start of the stage; in a phase of the method alone from its
/// own start, and only in steps or epochs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Share of the stage's steps, in `(0, 1)`.
    Fraction(f64),
    /// Optimizer steps.
    Iters(u64),
    /// Epochs.
    Epochs(u64),
    /// Optimizer steps, counted back from the end of the stage.
    ItersBeforeEnd(u64),
}

/// Which parts learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Learn {
    /// Everything up to `c5`.
    pub backbone: bool,
    /// The feature pyramid.
    pub neck: bool,
    /// Classification and box towers.
    pub head: bool,
    /// The method's own parameters.
    pub method: bool,
}

/// Factors on the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LrScale {
    /// Everything up to `c5`.
    pub backbone: f64,
    /// The feature pyramid.
    pub neck: f64,
    /// Classification and box towers.
    pub head: f64,
    /// The method's own parameters.
    pub method: f64,
}

impl Schedule {
    /// One stage of the configured student and teacher with these phases.
    #[must_use]
    pub fn single(phases: Vec<Phase>) -> Self {
        Schedule {
            stages: vec![Stage {
                phases,
                ..Stage::new("train")
            }],
        }
    }
}

impl Stage {
    /// The configured student learns from the configured teacher, in one phase.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Stage {
            name: name.to_owned(),
            student: student(),
            teacher: teacher(),
            init_from: None,
            input_scale: 1.0,
            teacher_input_scale: 1.0,
            pyramid_scale: 1.0,
            epochs_scale: 1.0,
            method: true,
            gate: None,
            phases: Vec::new(),
        }
    }
}

impl Phase {
    /// Everything learns, to the end of the stage.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Phase {
            name: name.to_owned(),
            until: None,
            learn: Learn::default(),
            lr_scale: LrScale::default(),
            distill_gradient: true,
            task_weight: 1.0,
            losses: Vec::new(),
            params: Vec::new(),
            pretrain: None,
        }
    }

    /// A phase of the method alone, `until` so many steps or epochs from its own start.
    #[must_use]
    pub fn pretrain(name: &str, until: Until, pretrain: Pretrain) -> Self {
        Phase {
            until: Some(until),
            learn: Learn {
                backbone: false,
                neck: false,
                head: false,
                method: true,
            },
            pretrain: Some(pretrain),
            ..Phase::new(name)
        }
    }
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

fn student() -> String {
    "student".to_owned()
}

#[expect(clippy::unnecessary_wraps, reason = "default of an optional field")]
fn teacher() -> Option<String> {
    Some("teacher".to_owned())
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_takes_the_documented_default() {
        let text = json!({"stages": [{"name": "a", "phases": [{"name": "p"}]}]}).to_string();
        let read: Schedule = serde_json::from_str(&text).unwrap();
        let built = Schedule {
            stages: vec![Stage {
                phases: vec![Phase::new("p")],
                ..Stage::new("a")
            }],
        };
        assert_eq!(read, built);
    }

    #[test]
    fn the_json_has_the_documented_shape() {
        let schedule = Schedule::single(vec![Phase {
            until: Some(Until::Fraction(0.25)),
            learn: Learn {
                backbone: false,
                ..Learn::default()
            },
            distill_gradient: false,
            ..Phase::new("warm-up")
        }]);
        let value = serde_json::to_value(&schedule).unwrap();
        let phase = &value["stages"][0]["phases"][0];
        assert_eq!(phase["until"], json!({"fraction": 0.25}));
        assert_eq!(phase["learn"]["backbone"], json!(false));
        assert_eq!(phase["lr_scale"]["method"], json!(1.0));
        assert_eq!(phase["distill_gradient"], json!(false));
        assert_eq!(value["stages"][0]["teacher"], json!("teacher"));
    }

    #[test]
    fn a_phase_of_the_method_alone_has_the_documented_shape() {
        let recipe = Pretrain {
            lr: 0.1,
            momentum: 0.9,
            weight_decay: 1e-4,
            poly_power: 0.9,
        };
        let phase = Phase {
            losses: vec!["loss_code".into()],
            params: vec!["coder.*".into()],
            ..Phase::pretrain("code", Until::Epochs(3), recipe)
        };
        let value = serde_json::to_value(&phase).unwrap();
        let documented = json!({
            "name": "code",
            "until": {"epochs": 3},
            "learn": {"backbone": false, "neck": false, "head": false, "method": true},
            "lr_scale": {"backbone": 1.0, "neck": 1.0, "head": 1.0, "method": 1.0},
            "distill_gradient": true,
            "task_weight": 1.0,
            "losses": ["loss_code"],
            "params": ["coder.*"],
            "pretrain": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "poly_power": 0.9},
        });
        assert_eq!(value, documented);
        let read: Phase = serde_json::from_value(documented).unwrap();
        assert_eq!(read, phase);
        let short = json!({"lr": 0.5});
        let read: Pretrain = serde_json::from_value(short).unwrap();
        assert_eq!(
            (read.momentum, read.weight_decay, read.poly_power),
            (0.0, 0.0, 0.0)
        );
        assert!(serde_json::from_value::<Pretrain>(json!({"momentum": 0.9})).is_err());
    }

    #[test]
    fn unknown_keys_are_refused() {
        let text = r#"{"stages":[{"name":"a","phase":[]}]}"#;
        assert!(serde_json::from_str::<Schedule>(text).is_err());
    }
}
