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

/// One stage: which model learns, which teaches, in which phases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Unique in the schedule.
    pub name: String,
    /// The configured model that learns.
    #[serde(default = "student")]
    pub student: String,
    /// The configured model, or the earlier stage, that teaches; `None` for no teacher.
    #[serde(default = "teacher")]
    pub teacher: Option<String>,
    /// The earlier stage whose result the student starts from; `None` for its own start.
    #[serde(default)]
    pub init_from: Option<String>,
    /// Side of the student's input relative to the teacher's.
    #[serde(default = "one")]
    pub input_scale: f64,
    /// In order; the last one has no `until`. Empty: one phase in which everything learns.
    #[serde(default)]
    pub phases: Vec<Phase>,
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
}

/// Where a phase ends, counted from the start of the stage.
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
    fn unknown_keys_are_refused() {
        let text = r#"{"stages":[{"name":"a","phase":[]}]}"#;
        assert!(serde_json::from_str::<Schedule>(text).is_err());
    }
}
