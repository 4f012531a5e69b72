//! Who learns from whom, on images of which size, in which order.

use kd_plugin::MethodError;
use kd_plugin::schedule::{Gate, Learn, LrScale, Phase, Schedule, Stage};

use crate::options::{Active, Config, Mode};
use crate::task::Task;
use crate::{ATTN, FKD, ISRD, KD, KD_BBOX};

/// The configured teacher, and its architecture.
const TEACHER: &str = "teacher";
/// Stages.
const MODEL: &str = "model";
const INPUT: &str = "input";
const RETUNE: &str = "retune";
const VANILLA: &str = "vanilla";

/// The stages of a mode, task and order.
///
/// # Errors
/// If a detector's model is to be compressed first and that is not forced, or a stage would have no loss.
pub fn schedule(config: &Config, task: Task, active: Active) -> Result<Schedule, MethodError> {
    let plan = Stages {
        config,
        task,
        active,
    };
    let stages = match config.mode {
        Mode::Vanilla => vec![plan.vanilla()?],
        Mode::Tas if config.model_first(task) => plan.model_then_input()?,
        Mode::Tas => plan.input_then_model()?,
    };
    Ok(Schedule { stages })
}

struct Stages<'a> {
    config: &'a Config,
    task: Task,
    active: Active,
}

impl Stages<'_> {
    fn detects(&self) -> bool {
        self.task == Task::Detection
    }

    /// Side of the small images over the configured one.
    fn small(&self) -> f64 {
        1.0 / self.config.k
    }

    fn vanilla(&self) -> Result<Stage, MethodError> {
        Ok(Stage {
            input_scale: self.small(),
            epochs_scale: self.config.input_epochs_scale,
            phases: vec![self.phase(VANILLA, &[ISRD, KD, FKD, ATTN])?],
            ..Stage::new(VANILLA)
        })
    }

    /// The assistant has the student's architecture; then the student sees small images and it large ones.
    fn model_then_input(&self) -> Result<Vec<Stage>, MethodError> {
        if self.detects() && !self.config.force_order {
            return Err(MethodError::config(
                "`order = \"compress_model_first\"`: the stage `input` upsamples a detector's pyramid to \
                 the anchors of large images, so a detector must go through it before the model is \
                 compressed, else the student to deploy keeps the upsampled pyramid and its cost; leave \
                 `order` at \"auto\", or set `force_order = true` to measure that",
            ));
        }
        let model = Stage {
            epochs_scale: self.config.model_epochs_scale,
            phases: vec![self.phase(MODEL, self.model_losses())?],
            ..Stage::new(MODEL)
        };
        let input = Stage {
            teacher: Some(MODEL.to_owned()),
            ..self.input(MODEL)?
        };
        Ok(vec![model, input])
    }

    /// The assistant has the teacher's architecture and sees small images, as the student does.
    fn input_then_model(&self) -> Result<Vec<Stage>, MethodError> {
        let mut stages = vec![Stage {
            student: TEACHER.to_owned(),
            ..self.input(TEACHER)?
        }];
        let mut assistant = INPUT;
        if self.detects() {
            stages.push(self.retune());
            assistant = RETUNE;
        }
        stages.push(Stage {
            teacher: Some(assistant.to_owned()),
            input_scale: self.small(),
            teacher_input_scale: self.small(),
            epochs_scale: self.config.model_epochs_scale,
            phases: vec![self.phase(MODEL, self.model_losses())?],
            ..Stage::new(MODEL)
        });
        Ok(stages)
    }

    /// Small images learn from large ones, under one architecture.
    fn input(&self, teacher: &str) -> Result<Stage, MethodError> {
        let from_teacher = self.config.starts_from_teacher(self.task);
        Ok(Stage {
            init_from: from_teacher.then(|| teacher.to_owned()),
            input_scale: self.small(),
            pyramid_scale: if self.detects() { self.config.k } else { 1.0 },
            epochs_scale: self.config.input_epochs_scale,
            phases: vec![self.phase(INPUT, &[ISRD, KD, KD_BBOX, FKD, ATTN])?],
            ..Stage::new(INPUT)
        })
    }

    /// Without the upsampling a head reads levels that it was not trained on: it and the pyramid learn
    /// anew, from the labels alone.
    fn retune(&self) -> Stage {
        let scale = self.config.retune_lr_scale;
        let phase = Phase {
            learn: Learn {
                backbone: false,
                ..Learn::default()
            },
            lr_scale: LrScale {
                neck: scale,
                head: scale,
                ..LrScale::default()
            },
            ..Phase::new(RETUNE)
        };
        Stage {
            student: TEACHER.to_owned(),
            teacher: None,
            init_from: Some(INPUT.to_owned()),
            input_scale: self.small(),
            epochs_scale: self.config.retune_epochs_scale,
            method: false,
            gate: self.config.has_gate().then_some(Gate {
                tolerance: self.config.gate_tolerance,
            }),
            phases: vec![phase],
            ..Stage::new(RETUNE)
        }
    }

    /// Two architectures that see the same image: features are compared where necks have one width.
    fn model_losses(&self) -> &'static [&'static str] {
        match self.task {
            Task::Detection => &[KD, KD_BBOX, FKD],
            Task::Classification | Task::Segmentation => &[KD],
        }
    }

    /// The only phase of a stage: those of `losses` that there are.
    fn phase(&self, stage: &str, losses: &[&str]) -> Result<Phase, MethodError> {
        let there = |loss: &&&str| match **loss {
            ISRD => self.active.isrd,
            KD => self.active.kd,
            KD_BBOX => self.active.kd && self.detects(),
            FKD => self.active.fkd,
            _ => self.active.attn,
        };
        let counted: Vec<String> = (losses.iter().filter(there))
            .map(|&loss| loss.to_owned())
            .collect();
        if counted.is_empty() {
            return Err(MethodError::config(format!(
                "the stage `{stage}` would have no loss: it has {}, and these are off; set `kd = \"on\"`",
                losses.join(", ")
            )));
        }
        Ok(Phase {
            task_weight: match self.active.kd {
                true => self.config.task_weight(self.task),
                false => 1.0,
            },
            losses: counted,
            ..Phase::new("distill")
        })
    }
}
