//! Finding a checkpoint to look at. Nothing is written or cleared up: the run may be going on.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{CheckpointError, FOLDER, at, folder_name, iter_of};

/// Which checkpoint of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The newest.
    #[default]
    Latest,
    /// The one after so many optimizer steps.
    Step(u64),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, iter_of(text)) {
            ("latest", _) => Ok(Choice::Latest),
            (_, Some(step)) => Ok(Choice::Step(step)),
            _ => Err("expected `latest` or a folder's name, as in `iter_00000400`".to_owned()),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Latest => f.write_str("latest"),
            Choice::Step(step) => f.write_str(&folder_name(*step)),
        }
    }
}

/// The folder of a checkpoint, to be read with [`load`](super::load).
///
/// # Errors
/// If it is not there; the error lists what is.
pub fn find(run_dir: &Path, choice: Choice) -> Result<PathBuf, CheckpointError> {
    let folder = run_dir.join(FOLDER);
    let mut steps = Vec::new();
    // A run that was stopped before its first checkpoint may lack the folder.
    if folder.is_dir() {
        for entry in at(&folder, fs::read_dir(&folder))? {
            let name = at(&folder, entry)?.file_name();
            steps.extend(name.to_str().and_then(iter_of));
        }
    }
    steps.sort_unstable();
    let found = match choice {
        Choice::Latest => steps.last(),
        Choice::Step(step) => steps.iter().find(|s| **s == step),
    };
    match found {
        Some(step) => Ok(folder.join(folder_name(*step))),
        None => Err(CheckpointError::NoSuch {
            folder,
            wanted: choice.to_string(),
            known: if steps.is_empty() {
                "none; the run has to be trained further".into()
            } else {
                let names: Vec<String> = steps.iter().map(|s| folder_name(*s)).collect();
                names.join(", ")
            },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_the_one_of_the_highest_step() {
        let run = tempfile::tempdir().unwrap();
        let missing = find(run.path(), Choice::Latest).unwrap_err().to_string();
        assert!(missing.contains("`latest`; it has: none"), "{missing}");
        for name in ["iter_00000020", "iter_00000100", ".partial-iter_00000300"] {
            fs::create_dir_all(run.path().join(FOLDER).join(name)).unwrap();
        }
        let name = |choice: &str| {
            let path = find(run.path(), choice.parse().unwrap())?;
            Ok::<_, CheckpointError>(path.file_name().unwrap().to_str().unwrap().to_owned())
        };
        assert_eq!(name("latest").unwrap(), "iter_00000100");
        assert_eq!(name("iter_00000020").unwrap(), "iter_00000020");
        let message = name("iter_00000300").unwrap_err().to_string();
        assert!(
            message
                .ends_with("no checkpoint `iter_00000300`; it has: iter_00000020, iter_00000100"),
            "{message}"
        );
    }

    #[test]
    fn other_words_are_refused() {
        assert!("newest".parse::<Choice>().is_err());
        assert!("400".parse::<Choice>().is_err());
    }
}
