//! The training engine: from a configuration to trained weights and their evaluation.
//!
//! Reading order: [`step`] (one training step), [`train`] (one run), [`arm`] (a run that is reused
//! if it was done before), [`job`] (control, teachers, distilled student, table). [`restored`] opens
//! what a run left, to look at it.

pub mod arm;
mod assemble;
pub mod attribution;
pub mod bench;
pub mod checkpoint;
pub mod ema;
pub mod energy;
pub mod environment;
pub mod evaluate;
pub mod events;
pub mod export;
pub mod fingerprint;
pub mod grad_clip;
pub mod image_size;
pub mod interrupt;
pub mod job;
pub mod lr_schedule;
pub mod memory;
pub mod metrics_log;
pub mod optim;
pub mod pairs;
pub mod predict;
pub mod preflight;
pub mod pretrained;
pub mod progress;
pub mod restored;
pub mod run_dir;
pub mod stages;
pub mod step;
pub mod step_times;
pub mod table;
pub mod teacher;
pub mod train;
pub mod weights;

use std::path::PathBuf;

use crate::data::DatasetError;
use crate::distill::DistillError;
use crate::eval::coco::EvalError;
use crate::model::ModelError;
use crate::state::StateError;

/// A run cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// Device.
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// Data set.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// Model or its weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A weight file.
    #[error(transparent)]
    State(#[from] StateError),
    /// Checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::CheckpointError),
    /// Run directory.
    #[error(transparent)]
    RunDir(#[from] run_dir::RunDirError),
    /// Gradient.
    #[error(transparent)]
    Gradient(#[from] grad_clip::NonFiniteGradient),
    /// Optimizer state.
    #[error(transparent)]
    Optimizer(#[from] optim::OptimizerError),
    /// Method.
    #[error(transparent)]
    Distill(#[from] DistillError),
    /// Evaluation.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A task loss is NaN or infinite.
    #[error(
        "task loss `{term}` is {value} at step {step}; nothing of this step was applied. Lower `train.lr`, lengthen `train.warmup_iters`, or set `train.grad_clip_norm`"
    )]
    NonFiniteLoss {
        /// `loss_cls`, `loss_bbox`, `loss_ctrness`.
        term: String,
        /// NaN or inf.
        value: f32,
        /// Optimizer step.
        step: u64,
    },
    /// `eval.oracle` without maps.
    #[error(
        "the oracle scores the head on a method's maps, and method `{method}` makes none; leave `eval.oracle` and `--oracle` off"
    )]
    NoMaps {
        /// Labels of the methods.
        method: String,
    },
    /// No stage of that name.
    #[error("method `{method}` has no stage `{name}`; it has: {known}")]
    NoStage {
        /// As given.
        name: String,
        /// Label of the method.
        method: String,
        /// Its stages.
        known: String,
    },
    /// A run of stages has no checkpoints of its own.
    #[error(
        "`{}` is a job of stages, each a run of its own; name the folder of one: {stages}",
        run_dir.display()
    )]
    OfStages {
        /// The job's folder.
        run_dir: PathBuf,
        /// Folders of the stages that were begun.
        stages: String,
    },
    /// A stage is not good enough to go on with.
    #[error(
        "stage `{stage}` reached {reached}, so what comes after it would learn from a worse model than a plain one; what was trained is in `{}`; train it longer, or go on with `--set distill.gate=warn`",
        run_dir.display()
    )]
    Gate {
        /// The stage.
        stage: String,
        /// Its number, and plain training's.
        reached: String,
        /// The job's folder.
        run_dir: PathBuf,
    },
    /// One of several is meant, and it is not said which.
    #[error("{what}; choose one by `{option}`: {known}")]
    Choose {
        /// Why there is a choice, or that what was chosen does not exist.
        what: String,
        /// The option of the command line.
        option: &'static str,
        /// What exists.
        known: String,
    },
    /// Something wrote to the teacher.
    #[error(
        "the weights of teacher `{name}` changed while training (hash {before} before, {after} after)"
    )]
    TeacherChanged {
        /// Its name.
        name: String,
        /// Hash when it was frozen.
        before: String,
        /// Hash now.
        after: String,
    },
    /// Ctrl-C.
    #[error(
        "interrupted at step {step}{}; continue with `--resume {}`",
        of_phase(phase.as_deref()), run_dir.display()
    )]
    Interrupted {
        /// Optimizer steps done.
        step: u64,
        /// The phase of a method alone whose steps these are; none within the run.
        phase: Option<String>,
        /// Where the checkpoint lies.
        run_dir: PathBuf,
    },
    /// The splits disagree.
    #[error("training and evaluation sets have different classes: {train}; {val}")]
    Classes {
        /// Of the training set.
        train: String,
        /// Of the evaluation set.
        val: String,
    },
    /// Not a model that this program exported.
    #[error("`{}` is not an exported model: its header has no usable `{key}`; use a `student.safetensors` of a run", path.display())]
    NotExported {
        /// The file.
        path: PathBuf,
        /// Header entry.
        key: &'static str,
    },
    /// Weights that do not fit.
    #[error(transparent)]
    Weights(#[from] weights::WeightsError),
    /// Averaged weights.
    #[error(transparent)]
    Ema(#[from] ema::EmaError),
    /// Metrics files.
    #[error(transparent)]
    Metrics(#[from] metrics_log::MetricsError),
    /// Signal handler.
    #[error(transparent)]
    Interrupt(#[from] interrupt::InterruptError),
    /// A result file of an earlier run.
    #[error("`{}`: {reason}", path.display())]
    Result {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A reference case of the speed bench cannot be used.
    #[error("reference case `{}`: {reason}", path.display())]
    Case {
        /// `case.json`.
        path: PathBuf,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// The training set has no full batch.
    #[error(
        "the training set has {images} images, fewer than one batch of {batch_size}; lower `data.batch_size`"
    )]
    NoBatches {
        /// Usable images.
        images: usize,
        /// As configured.
        batch_size: usize,
    },
    /// The teacher of a run is gone.
    #[error(
        "`{}` learned from a teacher that is no longer in `{}` (`cache_dir` is relative to the working directory); `kdhost train --resume {}` in the folder where the run was started trains it again, and ends at once where the run is over",
        run_dir.display(), folder.display(), run_dir.display()
    )]
    NoTeacher {
        /// The run.
        run_dir: PathBuf,
        /// Where the cache would have it.
        folder: PathBuf,
    },
    /// What a method learned by itself, as the cache has it.
    #[error(
        "`{}` keeps what a method learned by itself, and cannot be used: {reason}; remove the folder, and the method learns again",
        folder.display()
    )]
    Pretrained {
        /// Of the cache.
        folder: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The plugin is not the one that a run was trained with.
    #[error(
        "method `{label}` of `{}` was trained with a plugin of SHA-256 {recorded}, but `{}` has {found}; put the file of that time there (`environment.json` of the run says where it lay), or train the run anew",
        run_dir.display(), path.display()
    )]
    PluginChanged {
        /// Of the method.
        label: String,
        /// The run.
        run_dir: PathBuf,
        /// The file that was found.
        path: PathBuf,
        /// In the checkpoint; `none` in plain training.
        recorded: String,
        /// Of the file.
        found: String,
    },
    /// No such tap.
    #[error("the student has no tap `{pattern}`; it has: {known}")]
    UnknownTap {
        /// As given.
        pattern: String,
        /// What exists.
        known: String,
    },
    /// The configuration of the run to resume differs.
    #[error("`{}` was started with another configuration ({what}); resume with the same, or start a new run", run_dir.display())]
    ResumeMismatch {
        /// The run.
        run_dir: PathBuf,
        /// What differs.
        what: String,
    },
}

fn of_phase(phase: Option<&str>) -> String {
    phase.map_or_else(String::new, |name| format!(" of phase `{name}`"))
}
