//! Distillation: binds the taps of student and teacher to a method and turns its answer into
//! gradients of the training step.
//!
//! Reading order: [`roles`] (which teacher plays which role), [`taps`] (patterns to concrete taps),
//! [`targets`] (named ground truth), [`schedule`] (phases the method asks for), [`weights`] (of its
//! terms, over the run), [`maps`] (generated maps in place of taps), [`distiller`] (one method, bound),
//! `demand` (what a phase asks of it),
//! [`execution`] (who computes it), [`step`] (one call of it), [`methods`] (all of a run), [`inject`]
//! (a gradient from outside enters the tape).

mod demand;
pub mod distiller;
pub mod execution;
pub mod inject;
pub mod maps;
pub mod methods;
mod programs;
pub mod roles;
pub mod schedule;
pub mod step;
pub mod tap_view;
pub mod taps;
pub mod targets;
pub mod weights;

pub use distiller::Distiller;
pub use methods::Methods;
pub use step::DistillStep;

use crate::plugin::{PluginCallError, PluginLoadError};

/// A method cannot be bound, or failed while running.
#[derive(Debug, thiserror::Error)]
pub enum DistillError {
    /// The file could not be loaded.
    #[error(transparent)]
    Load(#[from] PluginLoadError),
    /// An entry of the plugin failed.
    #[error(transparent)]
    Call(#[from] PluginCallError),
    /// The method's configuration does not fit its schema.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// No such method, or a plugin with several and none chosen.
    #[error("plugin `{plugin}` has no method `{method}`; set `{key}` to one of: {known}")]
    UnknownMethod {
        /// The key to set.
        key: String,
        /// Plugin id.
        plugin: String,
        /// As configured.
        method: String,
        /// What exists.
        known: String,
    },
    /// A pattern matches nothing.
    #[error(
        "method `{method}` asks for tap `{pattern}` of the {role}, which has none such; it has: {known}"
    )]
    UnknownTap {
        /// Method id.
        method: String,
        /// Model.
        role: String,
        /// As in the manifest.
        pattern: String,
        /// What exists.
        known: String,
    },
    /// `taps` names something that the method does not tap.
    #[error("`{key}` names `{name}`, which method `{method}` does not tap; it taps: {known}")]
    UnusedTap {
        /// The key.
        key: String,
        /// Method id.
        method: String,
        /// As configured.
        name: String,
        /// What the method taps.
        known: String,
    },
    /// A role that no configured teacher plays.
    #[error(
        "method `{method}` asks for a model in the role `{role}`, and no teacher `{name}` is configured; {advice}"
    )]
    UnknownRole {
        /// Method id.
        method: String,
        /// As in the manifest.
        role: String,
        /// The teacher that would play it.
        name: String,
        /// What to add, or which key names one of those that are configured.
        advice: String,
    },
    /// A teacher is named for a role that the method does not have.
    #[error("`{key}`: method `{method}` has no such role of a teacher; it has: {known}")]
    UnusedRole {
        /// The key.
        key: String,
        /// Method id.
        method: String,
        /// What exists.
        known: String,
    },
    /// A target this host does not offer.
    #[error("method `{method}` asks for target `{target}`; this host offers: {known}")]
    UnknownTarget {
        /// Method id.
        method: String,
        /// As in the manifest.
        target: String,
        /// What exists.
        known: String,
    },
    /// A target that these models cannot give.
    #[error("method `{method}` reads target `{target}`: {reason}")]
    Target {
        /// Method id.
        method: String,
        /// As in the manifest.
        target: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A weight or its schedule is configured for a loss that does not exist.
    #[error("`{key}`: method `{method}` has no such loss; it has: {known}")]
    UnknownLoss {
        /// The key.
        key: String,
        /// Method id.
        method: String,
        /// What exists.
        known: String,
    },
    /// A schedule of a weight does not fit the run.
    #[error("`{key}` of method `{method}`: {reason}")]
    LossSchedule {
        /// The key.
        key: String,
        /// Method id.
        method: String,
        /// What is wrong.
        reason: String,
    },
    /// Two methods declare phases.
    #[error(
        "methods `{first}` and `{second}` both declare phases of the run, and a run has one schedule; train them in runs of their own, or configure one of them without phases"
    )]
    TwoSchedules {
        /// Label.
        first: String,
        /// Label.
        second: String,
    },
    /// Labels and names of terms that make the same text.
    #[error(
        "methods `{first}` and `{second}` would both report a term or metric as `{name}`; choose other labels under `distill.methods`"
    )]
    SameName {
        /// As it would be reported.
        name: String,
        /// Label.
        first: String,
        /// Label.
        second: String,
    },
    /// One of several methods failed.
    #[error("`distill.methods.{label}`: {source}")]
    OfEntry {
        /// Label.
        label: String,
        /// What happened.
        source: Box<DistillError>,
    },
    /// A method failed in a phase of its own.
    #[error(
        "phase `{phase}` of the method alone, in which the student does not run and its taps hold NaN: {source}"
    )]
    Alone {
        /// Its name.
        phase: String,
        /// What happened.
        source: Box<DistillError>,
    },
    /// A buffer took in what is no number.
    #[error("method `{method}` wrote NaN or infinity into its buffer `{buffer}`")]
    BrokenBuffer {
        /// Method id.
        method: String,
        /// As in the plan.
        buffer: String,
    },
    /// The method's schedule breaks the schema, or asks for what this host cannot do.
    #[error("schedule of method `{method}`: {reason}")]
    Schedule {
        /// Method id.
        method: String,
        /// What is wrong.
        reason: String,
    },
    /// The configuration of a run that is a stage is not one.
    #[error("configuration: {reason}; leave `[stage]` out, or take it from `kdhost show plan`")]
    Stage {
        /// What is wrong.
        reason: String,
    },
    /// The method's program cannot be had or is not sound.
    #[error("program of method `{method}`: {reason}")]
    Program {
        /// Method id.
        method: String,
        /// What is wrong.
        reason: String,
    },
    /// The device could not execute an operation of the method's program.
    #[error("plugin `{plugin}`, method `{method}`: {entry} of its program failed at {failure}")]
    Execution {
        /// Plugin id.
        plugin: String,
        /// Method id.
        method: String,
        /// `forward`, `backward` or `init_state`.
        entry: &'static str,
        /// Operation, shapes, and the device's words.
        failure: crate::graph::compiled::Failure,
    },
    /// The plan asks for what this host cannot do.
    #[error("plan of method `{method}`: {reason}")]
    Plan {
        /// Method id.
        method: String,
        /// What is wrong.
        reason: String,
    },
}
