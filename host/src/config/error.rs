//! What can be wrong with a configuration, in facts.

use std::fmt;
use std::path::{Path, PathBuf};

use super::layers::Origin;

/// A configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read the configuration {}{}", shown(path), said_by(from))]
    Read {
        /// The file.
        path: PathBuf,
        /// The file whose `extends` names it.
        from: Option<PathBuf>,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not TOML.
    #[error("{} is not valid TOML", shown(path))]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// `extends` is neither a path nor a list of paths.
    #[error(
        "`extends` in {}: expected a path or a list of paths, got {got}",
        shown(path)
    )]
    Extends {
        /// The file.
        path: PathBuf,
        /// What stands there.
        got: String,
    },
    /// Files extend each other in a circle.
    #[error(
        "configuration files extend each other in a circle: {}",
        chain_of(chain)
    )]
    Cycle {
        /// From the first file to its repetition.
        chain: Vec<PathBuf>,
    },
    /// An override does not have the form `key=value`.
    #[error("`--set {text}`: expected `key=value` with a dotted key, as in `--set train.lr=0.01`")]
    SetForm {
        /// As given.
        text: String,
    },
    /// `--plugin` several times, in a way that cannot be meant.
    #[error("{reason}")]
    PluginFlags {
        /// What stands where, and what to do.
        reason: String,
    },
    /// Keys or values that are not accepted; all that were found.
    #[error("{}", list_of(problems))]
    Invalid {
        /// At least one.
        problems: Vec<Problem>,
    },
    /// The schema in a plugin's manifest cannot be used: the plugin's fault, not the user's.
    #[error("the configuration schema of method `{method}` cannot be used: {reason}")]
    Schema {
        /// The method's id.
        method: String,
        /// What is wrong and what is supported.
        reason: String,
    },
}

/// One key that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Dotted path, with list positions as `[2]`.
    pub key: String,
    /// Who set it.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq)]
pub enum ProblemKind {
    /// No such key.
    UnknownKey {
        /// Full path of the nearest known key.
        nearest: Option<String>,
        /// What the table knows.
        known: Vec<String>,
    },
    /// A value of the wrong type or out of range.
    Value {
        /// What is accepted.
        expected: String,
        /// What stands there.
        got: String,
        /// The nearest accepted word.
        nearest: Option<String>,
    },
    /// A key that has no default and is not set.
    Missing {
        /// What is accepted.
        expected: String,
    },
    /// A value that contradicts another key.
    Rule {
        /// What must hold, with the values that break it.
        rule: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let place = self.origin.as_ref().map(|o| format!(" in {o}"));
        let place = place.unwrap_or_default();
        match &self.kind {
            ProblemKind::UnknownKey { nearest, known } => {
                write!(f, "unknown key `{key}`{place}")?;
                match nearest {
                    Some(name) => write!(f, "; did you mean `{name}`?"),
                    None if known.is_empty() => write!(f, "; no keys are accepted here"),
                    None => write!(f, "; known here: {}", known.join(", ")),
                }
            }
            ProblemKind::Value {
                expected,
                got,
                nearest,
            } => {
                write!(f, "`{key}`{place}: expected {expected}, got {got}")?;
                match nearest {
                    Some(word) => write!(f, "; did you mean `{word}`?"),
                    None => Ok(()),
                }
            }
            ProblemKind::Missing { expected } => {
                write!(f, "`{key}` is missing{place}: expected {expected}")
            }
            ProblemKind::Rule { rule } => write!(f, "`{key}`{place}: {rule}"),
        }
    }
}

/// Paths are shown as the shortest that the user can open: below the working directory without it.
pub(super) fn shown(path: &Path) -> String {
    let here = std::env::current_dir().and_then(|d| d.canonicalize());
    match here.as_deref().map(|here| path.strip_prefix(here)) {
        Ok(Ok(below)) => below.display().to_string(),
        _ => path.display().to_string(),
    }
}

fn said_by(from: &Option<PathBuf>) -> String {
    match from {
        Some(from) => format!(", which {} extends", shown(from)),
        None => String::new(),
    }
}

fn chain_of(chain: &[PathBuf]) -> String {
    let names: Vec<String> = chain.iter().map(|p| shown(p)).collect();
    names.join(" -> ")
}

fn list_of(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        many => {
            let mut text = format!("{} problems in the configuration:", many.len());
            for problem in many {
                text.push_str(&format!("\n  - {problem}"));
            }
            text
        }
    }
}
