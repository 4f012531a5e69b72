//! What a student is distilled with: one method, or several by label.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WeightSchedule;

/// The distillation methods: the keys of [`MethodConfig`] for a single one, or `methods`.
///
/// Unknown keys are refused by the schema; serde cannot do it beside `flatten`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DistillConfig {
    /// A single method, labelled by its id.
    #[serde(flatten)]
    pub single: MethodConfig,
    /// Several methods at once, by the label that each has in logs, metrics and checkpoints.
    pub methods: BTreeMap<String, MethodConfig>,
}

/// One distillation method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MethodConfig {
    /// File name (searched) or path with a `/`; `none`: plain training.
    #[schemars(length(min = 1), extend("x-path" = "name-or-file"))]
    pub plugin: String,
    /// Method id, for a plugin with several; empty: its only one.
    pub method: String,
    /// Multiplies the weight of every term of the method.
    #[schemars(range(min = 0.0))]
    pub weight: f64,
    /// Weight per loss name, replacing the method's own; `maps` is that of the task losses on its maps.
    pub loss_weights: BTreeMap<String, f64>,
    /// Factor on the weight of a loss (or `maps`) over the run.
    pub loss_schedules: BTreeMap<String, WeightSchedule>,
    /// Restricts the method's taps to these names; empty: all it asks for.
    pub taps: Vec<String>,
    /// Which configured teacher plays which role of the method, as in `teacher = "big"`; a role that is
    /// left out is played by the teacher of its own name.
    pub teachers: BTreeMap<String, String>,
    /// Who computes the method.
    pub execution: Execution,
    /// Where what the method learns by itself, in phases before the run, comes from.
    pub pretrain: PretrainSource,
    /// What it means that a stage of the method does not reach what the method demands of it.
    pub gate: GatePolicy,
    /// The method's own configuration, checked against the schema in its manifest.
    pub config: BTreeMap<String, serde_json::Value>,
}

/// A method of a run, and where its settings stand.
#[derive(Clone, Copy, Debug)]
pub struct MethodEntry<'a> {
    /// Its label; none for a single method, which is labelled by its id.
    pub label: Option<&'a str>,
    /// Its settings.
    pub config: &'a MethodConfig,
}

impl DistillConfig {
    /// The methods of the run, by label; none: plain training.
    #[must_use]
    pub fn entries(&self) -> Vec<MethodEntry<'_>> {
        if self.single.plugin != MethodConfig::NO_PLUGIN {
            return vec![MethodEntry {
                label: None,
                config: &self.single,
            }];
        }
        let entries = self.methods.iter().map(|(label, config)| MethodEntry {
            label: Some(label),
            config,
        });
        entries.collect()
    }
}

impl MethodConfig {
    /// Value of `plugin` for plain training.
    pub const NO_PLUGIN: &str = "none";
}

impl MethodEntry<'_> {
    /// The table of its settings, as a path of keys: `distill`, or `distill.methods.LABEL`.
    #[must_use]
    pub fn path(&self) -> Vec<String> {
        let path = ["distill", "methods"].map(str::to_owned);
        match self.label {
            None => path[..1].to_vec(),
            Some(label) => [&path[..], &[label.to_owned()]].concat(),
        }
    }

    /// The key `name` of its settings, for messages: `distill.methods.LABEL.taps`.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.path().join("."))
    }
}

/// Who computes a method that offers its program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Execution {
    /// This host, where the plugin offers a program that it can read; else the plugin, with a warning.
    #[default]
    Auto,
    /// This host, on its device.
    Program,
    /// The plugin, on the CPU.
    Plugin,
}

/// Where what a method learns in phases of its own comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PretrainSource {
    /// `cache_dir`, if an earlier run did the same; else it is learned, and kept there.
    #[default]
    Reuse,
    /// It is learned, whatever the cache has, and not kept.
    Fresh,
}

/// What a stage whose result is below its gate does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GatePolicy {
    /// The job ends there, with what was trained.
    #[default]
    Stop,
    /// The job goes on, with a warning.
    Warn,
}
