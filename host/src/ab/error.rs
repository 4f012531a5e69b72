//! Why a comparison cannot start, go on, or be read.

use std::path::PathBuf;

use kdhost_ab::report::SettingDifference;

use super::equal::is_in;
use crate::config::ConfigError;
use crate::data::DatasetError;
use crate::engine::EngineError;
use crate::eval::PredictionsError;
use crate::eval::coco::EvalError;

/// A comparison cannot start, go on, or be read.
#[derive(Debug, thiserror::Error)]
pub enum AbError {
    /// An arm, or a key of the file.
    #[error("{what}: {reason}")]
    Spec {
        /// `--arm …`, or a key of the file.
        what: String,
        /// Why, and how it is meant.
        reason: String,
    },
    /// The settings of an arm are refused.
    #[error("arm `{arm}`: {source}")]
    Arm {
        /// Its name.
        arm: String,
        /// Why.
        source: ConfigError,
    },
    /// Arms differ in more than their methods.
    #[error("{}", unequal(differences))]
    Unequal {
        /// Where.
        differences: Vec<SettingDifference>,
    },
    /// The folder holds another comparison.
    #[error(
        "`{}` holds another comparison: {what}; give the same command to go on with that one, or choose another `--out`",
        folder.display()
    )]
    Other {
        /// The folder.
        folder: PathBuf,
        /// What differs.
        what: String,
    },
    /// Another process works in the folder.
    #[error("another process runs the comparison in `{}`; wait for it or stop it", folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("`{}`: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Somebody asked it to stop.
    #[error("stopped with {done} of {total} runs done; the same command goes on from there")]
    Interrupted {
        /// Runs that have a result.
        done: usize,
        /// Runs.
        total: usize,
    },
    /// Configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Engine.
    #[error(transparent)]
    Engine(Box<EngineError>),
    /// Data set.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// Evaluation.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Predictions of a run.
    #[error(transparent)]
    Predictions(#[from] PredictionsError),
}

impl From<EngineError> for AbError {
    fn from(error: EngineError) -> Self {
        AbError::Engine(Box::new(error))
    }
}

impl AbError {
    /// A file that cannot be used.
    pub(super) fn file(path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        AbError::File {
            path: path.into(),
            reason: reason.to_string(),
        }
    }
}

fn unequal(differences: &[SettingDifference]) -> String {
    let mut text = "the arms differ in more than their methods:".to_owned();
    for difference in differences {
        let seed = difference
            .seed
            .map_or_else(String::new, |s| format!(", seed {s}"));
        text.push_str(&format!(
            "\n  {}: {} in arm `{}`{seed}, {} in the control",
            difference.key, difference.arm_value, difference.arm, difference.control_value
        ));
    }
    let mut keys: Vec<&str> = differences.iter().map(|d| d.key.as_str()).collect();
    keys.dedup();
    // Otherwise the runs would be refused as soon as they have begun.
    if keys.iter().any(|key| is_in(key, "data.transform")) {
        keys.extend(["first_batch", "last_batch"]);
    }
    let allow: Vec<String> = keys
        .iter()
        .map(|key| format!("--allow-diff {key}"))
        .collect();
    text.push_str(&format!(
        "\nmake them equal, or say that they may differ: {}",
        allow.join(" ")
    ));
    text
}
