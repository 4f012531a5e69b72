//! Stages and phases as a method declares them.
//!
//! ```json
//! {"stages": [
//!   {"name": "compress", "student": "teacher", "init_from": "teacher", "input_scale": 0.5},
//!   {"name": "distill", "teacher": "compress", "input_scale": 0.5, "teacher_input_scale": 0.5,
//!    "phases": [{"name": "all", "losses": ["loss_kd"]}]}
//! ]}
//! ```
//!
//! What is left out takes the default that stands at the field.

use serde::{Deserialize, Serialize};

use super::{Learn, LrScale, Pretrain, Selection};
use crate::config::Moment;
use crate::distill::taps::{STUDENT, TEACHER};

/// The schedule as the plugin wrote it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    stages: Vec<Stage>,
}

/// A stage: a run of its own, whose student is its result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Unique; letters, digits, `-` and `_`.
    pub name: String,
    /// Whose architecture learns: `student`, or a configured teacher.
    #[serde(default = "student")]
    pub student: String,
    /// Who teaches: a configured teacher, or an earlier stage; none: nobody.
    #[serde(default = "teacher")]
    pub teacher: Option<String>,
    /// Whose weights the student starts from: an earlier stage, or a configured teacher; none: the
    /// configured start of its architecture.
    #[serde(default)]
    pub init_from: Option<String>,
    /// Side of the student's images relative to the configured one, in `(0, 1]`.
    #[serde(default = "one")]
    pub input_scale: f64,
    /// Side of the teacher's images relative to the configured one, in `(0, 1]`.
    #[serde(default = "one")]
    pub teacher_input_scale: f64,
    /// Upsampling of the student's pyramid.
    #[serde(default = "one")]
    pub pyramid_scale: f64,
    /// Length in units of the configured one.
    #[serde(default = "one")]
    pub epochs_scale: f64,
    /// Whether the method takes part.
    #[serde(default = "yes")]
    pub method: bool,
    /// What its result must reach.
    #[serde(default)]
    pub gate: Option<Gate>,
    /// In order.
    #[serde(default)]
    pub phases: Vec<DeclaredPhase>,
}

/// Plain training of the architecture at the same input size must not be better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// By more than this, in the task's main metric, of 1.
    #[serde(default)]
    pub tolerance: f64,
}

/// A phase of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredPhase {
    /// For messages.
    pub name: String,
    /// Where it ends; none: with the stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// Which parts learn.
    #[serde(default)]
    pub learn: Learn,
    /// Factors on their learning rates.
    #[serde(default)]
    pub lr_scale: LrScale,
    /// Whether the method's gradient reaches the student.
    #[serde(default = "yes")]
    pub distill_gradient: bool,
    /// Factor on the student's task losses.
    #[serde(default = "one")]
    pub task_weight: f64,
    /// The method's losses that count; empty: all.
    #[serde(default)]
    pub losses: Vec<String>,
    /// Patterns of the method's parameters that learn; empty: all.
    #[serde(default)]
    pub params: Vec<String>,
    /// Of a phase of the method alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrain: Option<Pretrain>,
}

impl DeclaredPhase {
    pub(super) fn selection(&self) -> Selection {
        Selection {
            losses: self.losses.clone(),
            params: self.params.clone(),
        }
    }
}

impl Stage {
    /// Whether it is the configured run, whatever its phases: the configured student at full size,
    /// with whoever plays the method's roles.
    #[must_use]
    pub fn is_the_configured_run(&self) -> bool {
        let whole = [
            self.input_scale,
            self.teacher_input_scale,
            self.pyramid_scale,
            self.epochs_scale,
        ];
        self.student == STUDENT
            && self.teacher.as_deref().is_none_or(|name| name == TEACHER)
            && self.init_from.is_none()
            && whole == [1.0; 4]
            && self.method
            && self.gate.is_none()
    }

    fn check(&self) -> Result<(), String> {
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || !self.name.chars().all(named) {
            return Err(
                "its name is that of a folder: give it one of letters, digits, `-` and `_`"
                    .to_owned(),
            );
        }
        for (key, scale, fits, expected) in [
            (
                "input_scale",
                self.input_scale,
                self.input_scale <= 1.0,
                "above 0 and at most 1",
            ),
            (
                "teacher_input_scale",
                self.teacher_input_scale,
                self.teacher_input_scale <= 1.0,
                "above 0 and at most 1",
            ),
            (
                "pyramid_scale",
                self.pyramid_scale,
                self.pyramid_scale >= 1.0,
                "1 or more",
            ),
            ("epochs_scale", self.epochs_scale, true, "above 0"),
        ] {
            if !(scale.is_finite() && scale > 0.0 && fits) {
                return Err(format!("`{key}` is {scale}; expected {expected}"));
            }
        }
        match self.gate {
            Some(Gate { tolerance }) if !(0.0..=1.0).contains(&tolerance) => Err(format!(
                "`gate.tolerance` is {tolerance}; expected 0..=1, as AP of 1"
            )),
            _ => Ok(()),
        }
    }
}

/// The stages of a schedule, at least one.
///
/// # Errors
/// A sentence that names the entry that is wrong.
pub fn parse(json: &str) -> Result<Vec<Stage>, String> {
    let Declared { stages } = serde_json::from_str(json).map_err(|e| e.to_string())?;
    if stages.is_empty() {
        return Err("it has no stages; leave the schedule out, or give it one".to_owned());
    }
    for (index, stage) in stages.iter().enumerate() {
        let refuse = |reason: String| format!("stage `{}`: {reason}", stage.name);
        stage.check().map_err(refuse)?;
        let is_this = |other: &Stage| other.name == stage.name;
        if stages[..index].iter().any(is_this) {
            return Err(refuse("another stage has this name".to_owned()));
        }
        let later = &stages[index..];
        let used = [&stage.teacher, &stage.init_from].into_iter().flatten();
        for name in used {
            if later.iter().any(|other| other.name == *name) {
                return Err(refuse(format!(
                    "`{name}` is no earlier stage; put it before this one"
                )));
            }
        }
    }
    Ok(stages)
}

fn student() -> String {
    STUDENT.into()
}

#[expect(clippy::unnecessary_wraps, reason = "default of an optional field")]
fn teacher() -> Option<String> {
    Some(TEACHER.into())
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_configured_run() {
        let stages = parse(r#"{"stages":[{"name":"train","phases":[{"name":"a"}]}]}"#).unwrap();
        assert!(stages[0].is_the_configured_run());
        for change in [
            r#""student":"teacher""#,
            r#""teacher":"big""#,
            r#""init_from":"teacher""#,
            r#""input_scale":0.5"#,
            r#""teacher_input_scale":0.5"#,
            r#""pyramid_scale":2.0"#,
            r#""epochs_scale":2.0"#,
            r#""method":false"#,
            r#""gate":{}"#,
        ] {
            let json = format!(r#"{{"stages":[{{"name":"train",{change}}}]}}"#);
            assert!(
                !parse(&json).unwrap()[0].is_the_configured_run(),
                "{change}"
            );
        }
        let json = r#"{"stages":[{"name":"train","teacher":null}]}"#;
        assert!(parse(json).unwrap()[0].is_the_configured_run());
    }

    #[test]
    fn a_later_stage_uses_an_earlier_one() {
        let json = r#"{"stages":[
            {"name":"a"},{"name":"b","teacher":"a","init_from":"a","gate":{"tolerance":0.01}}]}"#;
        let stages = parse(json).unwrap();
        assert_eq!(stages[1].teacher.as_deref(), Some("a"));
        assert_eq!(stages[1].gate, Some(Gate { tolerance: 0.01 }));
        assert_eq!(stages[0].teacher.as_deref(), Some("teacher"));
    }

    #[test]
    fn every_mistake_is_named() {
        for (stages, needle) in [
            ("", "no stages"),
            (r#"{"name":"a/b"}"#, "letters, digits"),
            (r#"{"name":"a"},{"name":"a"}"#, "another stage"),
            (
                r#"{"name":"a","teacher":"b"},{"name":"b"}"#,
                "`b` is no earlier",
            ),
            (r#"{"name":"a","init_from":"a"}"#, "`a` is no earlier"),
            (r#"{"name":"a","input_scale":0}"#, "`input_scale` is 0"),
            (r#"{"name":"a","input_scale":1.5}"#, "`input_scale` is 1.5"),
            (
                r#"{"name":"a","pyramid_scale":0.5}"#,
                "`pyramid_scale` is 0.5",
            ),
            (r#"{"name":"a","epochs_scale":-1}"#, "`epochs_scale` is -1"),
            (
                r#"{"name":"a","gate":{"tolerance":2}}"#,
                "`gate.tolerance` is 2",
            ),
            (r#"{"name":"a","stage":1}"#, "unknown field `stage`"),
        ] {
            let message = parse(&format!(r#"{{"stages":[{stages}]}}"#)).unwrap_err();
            assert!(message.contains(needle), "{message}");
        }
    }
}
