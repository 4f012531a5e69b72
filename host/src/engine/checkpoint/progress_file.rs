//! `progress.json`: where a run stands, and the hashes of the files beside it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::metrics_log::LogPosition;

/// Version of `progress.json`.
pub const SCHEMA: u32 = 2;

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Optimizer steps done.
    pub iter: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Batches of the current epoch that were used.
    pub batch_in_epoch: u64,
    /// Where the phases of a method alone stand, which come before the run's first step; none without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrain: Option<PretrainProgress>,
    /// The run's seed.
    pub seed: u64,
    /// Hash of the settings that decide the result.
    pub config_hash: String,
    /// SHA-256 of each method's plugin file, by the method's label; none in plain training.
    pub plugins: BTreeMap<String, String>,
    /// The run is over; this checkpoint is never removed.
    pub finished: bool,
    /// The last evaluation. What is not finite is stored as null and read as NaN.
    #[serde(with = "null_is_nan")]
    pub metrics: BTreeMap<String, f64>,
    /// The best evaluation.
    pub best: Option<Best>,
    /// Lengths of the metrics files.
    pub log: LogPosition,
}

/// Where the phases of a method alone stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainProgress {
    /// The phase that goes on, by its position among them; their number when all are over.
    pub phase: usize,
    /// Optimizer steps done in it.
    pub iter: u64,
    /// Epochs completed in it.
    pub epoch: u64,
    /// Batches of its current epoch that were used.
    pub batch_in_epoch: u64,
    /// Sum of its losses in its first step.
    pub first_loss: Option<f64>,
}

/// The best evaluation of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// By which metric.
    pub metric: String,
    /// Its value; finite.
    pub value: f64,
    /// Optimizer steps done then.
    pub iter: u64,
}

/// `progress.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProgressFile {
    pub(super) schema: u32,
    pub(super) progress: Progress,
    /// SHA-256 by file name.
    pub(super) files: BTreeMap<String, String>,
    /// SHA-256 of this file with this field empty.
    pub(super) digest: String,
}

impl ProgressFile {
    pub(super) fn json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("progress is plain JSON");
        json.push('\n');
        json
    }

    /// Fills in `digest`.
    pub(super) fn seal(&mut self) {
        self.digest.clear();
        self.digest = super::sha256(self.json().as_bytes());
    }
}

/// JSON has no NaN: null stands for it.
mod null_is_nan {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        values: &BTreeMap<String, f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let finite = values.iter().map(|(k, v)| (k, v.is_finite().then_some(v)));
        serializer.collect_map(finite)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, f64>, D::Error> {
        let values = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
        let values = values.into_iter();
        Ok(values.map(|(k, v)| (k, v.unwrap_or(f64::NAN))).collect())
    }
}
