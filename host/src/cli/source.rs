//! Arguments that say which configuration is meant.

use std::path::PathBuf;

use clap::Args;
use toml::Value;

use crate::config::{ConfigError, Flag, Resolved, Sources};
use crate::device::ComputeDevice;

/// A configuration: files and single values.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Configuration")]
pub struct SourceArgs {
    /// What is learned: `detection`, `segmentation` or `classification`; each has defaults of its own.
    #[arg(long, value_name = "TASK", value_parser = ["detection", "segmentation", "classification"])]
    pub task: Option<String>,
    /// TOML file; may be repeated, later files win. Without one: the embedded default.
    #[arg(short, long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Sets one value, for example `train.lr=0.005`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// A configuration of a run: as above, and flags for what changes most often.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Configuration")]
pub struct RunSourceArgs {
    /// Files and values.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Plugin: a file name (searched), a path with a `/`, or `none`; may be repeated to distil with
    /// several methods at once, each an entry of `distill.methods` named after its file.
    #[arg(short, long, value_name = "FILE")]
    pub plugin: Vec<String>,
    /// The run directory, new or empty. Without it: a new one below `output_dir`.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Where to compute: `cpu` or, built with the feature `cuda`, `cuda:0`.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<ComputeDevice>,
    /// Seed of weights, order and augmentation.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub seed: Option<i64>,
}

impl SourceArgs {
    /// Merges and checks.
    ///
    /// # Errors
    /// See [`Sources::resolve`].
    pub fn resolve(&self) -> Result<Resolved, ConfigError> {
        self.sources().resolve()
    }

    fn sources(&self) -> Sources {
        let task = self.task.iter().map(|task| Flag {
            name: "--task",
            key: "task",
            value: Value::String(task.clone()),
        });
        Sources {
            files: self.config.clone(),
            set: self.set.clone(),
            flags: task.collect(),
            ..Sources::default()
        }
    }
}

impl RunSourceArgs {
    /// Merges and checks; flags win.
    ///
    /// # Errors
    /// See [`Sources::resolve`].
    pub fn resolve(&self) -> Result<Resolved, ConfigError> {
        let mut sources = self.source.sources();
        sources.plugins.clone_from(&self.plugin);
        let seed = self.seed.map(Value::Integer);
        let device = self.device.map(|device| Value::String(device.to_string()));
        for (name, key, value) in [("--seed", "seed", seed), ("--device", "device", device)] {
            if let Some(value) = value {
                sources.flags.push(Flag { name, key, value });
            }
        }
        sources.resolve()
    }

    /// Whether anything was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.source.task.is_none()
            && self.source.config.is_empty()
            && self.source.set.is_empty()
            && self.plugin.is_empty()
            && self.output.is_none()
            && self.seed.is_none()
            && self.device.is_none()
    }
}
