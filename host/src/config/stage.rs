//! Which stage of a method a run is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The stage of a method that a run carries out. The job that makes runs of a method's stages writes it;
/// in the configuration of a person it stays at its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// As the method calls it; empty: the run is no stage, and phases are the method's own.
    pub name: String,
    /// Its place among the method's stages, from 0.
    pub index: u32,
    /// Its phases, as the method declared them.
    pub phases: Vec<serde_json::Value>,
}
