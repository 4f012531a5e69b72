//! Distillation: binds the taps of student and teacher to a method and turns its answer into
//! gradients of the training step.
//!
//! Reading order: [`taps`] (patterns to concrete taps), [`targets`] (named ground truth),
//! [`schedule`] (phases the method asks for), [`maps`] (generated maps in place of taps), [`distiller`]
//! (one method, bound), [`execution`] (who computes it), [`step`] (one call of it), [`inject`] (a
//! gradient from outside enters the tape).

pub mod distiller;
pub mod execution;
pub mod inject;
pub mod maps;
mod programs;
pub mod schedule;
pub mod step;
pub mod tap_view;
pub mod taps;
pub mod targets;

pub use distiller::Distiller;
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
    #[error("plugin `{plugin}` has no method `{method}`; set `distill.method` to one of: {known}")]
    UnknownMethod {
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
    /// `distill.taps` names something that the method does not tap.
    #[error(
        "`distill.taps` names `{name}`, which method `{method}` does not tap; it taps: {known}"
    )]
    UnusedTap {
        /// Method id.
        method: String,
        /// As configured.
        name: String,
        /// What the method taps.
        known: String,
    },
    /// A role that this host cannot fill.
    #[error(
        "method `{method}` asks for a model in the role `{role}`; this host has: student, teacher"
    )]
    UnknownRole {
        /// Method id.
        method: String,
        /// As in the manifest.
        role: String,
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
    /// A weight is configured for a loss that does not exist.
    #[error("`distill.loss_weights.{name}`: method `{method}` has no such loss; it has: {known}")]
    UnknownLoss {
        /// Method id.
        method: String,
        /// As configured.
        name: String,
        /// What exists.
        known: String,
    },
    /// The method's schedule breaks the schema, or asks for what this host cannot do.
    #[error("schedule of method `{method}`: {reason}")]
    Schedule {
        /// Method id.
        method: String,
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
