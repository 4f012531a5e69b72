//! Checkpoints: written whole or not at all, verified before they are used.
//!
//! ```text
//! checkpoints/
//!   latest                    name of the newest, for people and scripts
//!   iter_00000020/
//!     student.safetensors     loads in the plain detector and in torchvision
//!     optimizer.safetensors
//!     method_optimizer.safetensors  if the methods' parameters have an optimizer of their own
//!     pretrain_optimizer.safetensors  within a phase of a method alone
//!     method.safetensors      if there is a method: LABEL.param.NAME, LABEL.buffer.NAME
//!     ema.safetensors         if weights are averaged
//!     progress.json           where the run stands, and the SHA-256 of every file
//! ```
//!
//! All files are written into a folder with a temporary name and brought to the disk before the
//! folder is renamed. A folder named `iter_…` is therefore whole, whenever the process dies.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::state::{StateDict, StateError, hex, write_atomically};

mod choice;
mod progress_file;

pub use choice::{Choice, find};
use progress_file::ProgressFile;
pub use progress_file::{Best, PretrainProgress, Progress, SCHEMA};

/// Checkpoints that are kept beside the final one.
pub const KEEP_LAST: usize = 2;

/// Holds the checkpoints of a run directory.
pub(crate) const FOLDER: &str = "checkpoints";
const LATEST_FILE: &str = "latest";
const PROGRESS_FILE: &str = "progress.json";
const STUDENT_FILE: &str = "student.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const METHOD_OPTIMIZER_FILE: &str = "method_optimizer.safetensors";
const PRETRAIN_OPTIMIZER_FILE: &str = "pretrain_optimizer.safetensors";
const METHOD_FILE: &str = "method.safetensors";
const EMA_FILE: &str = "ema.safetensors";
/// Being written or being removed: worthless.
const PARTIAL_PREFIX: &str = ".partial-";
/// Moved aside while a newer one of the same step takes its place.
const REPLACED_PREFIX: &str = ".replaced-";

/// All that a run needs to continue bit for bit.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Where the run stands.
    pub progress: Progress,
    /// The student's weights and buffers.
    pub student: StateDict,
    /// See [`crate::engine::optim::Optimizer::to_state`].
    pub optimizer: StateDict,
    /// State of the optimizer that the methods' parameters have for themselves, if any.
    pub method_optimizer: Option<StateDict>,
    /// State of the optimizer of a phase of a method alone, within one.
    pub pretrain_optimizer: Option<StateDict>,
    /// The methods' parameters and buffers.
    pub method: Option<StateDict>,
    /// See [`crate::engine::ema::Ema::to_state`].
    pub ema: Option<StateDict>,
}

/// A checkpoint cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system said no.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what was written. No other checkpoint is taken silently.
    #[error("checkpoint file `{}` is damaged: {reason}; {}", path.display(), advice(path, previous))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        reason: String,
        /// Name of the next older checkpoint.
        previous: Option<String>,
    },
    /// Not there.
    #[error("`{}` has no checkpoint `{wanted}`; it has: {known}", folder.display())]
    NoSuch {
        /// The folder of checkpoints.
        folder: PathBuf,
        /// As asked for.
        wanted: String,
        /// What exists, oldest first.
        known: String,
    },
    /// Written by another version of kdhost.
    #[error(
        "`{}` has schema {got}, this kdhost reads {SCHEMA}; continue with the kdhost that wrote it",
        path.display()
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        got: u64,
    },
}

fn advice(path: &Path, previous: &Option<String>) -> String {
    let folder = path.parent().unwrap_or(path).display();
    match previous {
        Some(previous) => format!("remove `{folder}` to continue from `{previous}`"),
        None => "no older checkpoint is left, start the run anew".into(),
    }
}

/// The checkpoints of one run directory.
#[derive(Debug)]
pub struct CheckpointStore {
    folder: PathBuf,
    keep_last: usize,
}

impl CheckpointStore {
    /// Opens (or makes) `checkpoints/` in a run directory and removes what an interrupted write left
    /// behind. The last `keep_last` (at least 1; usually [`KEEP_LAST`]) are kept.
    ///
    /// # Errors
    /// If the file system says no.
    pub fn open(run_dir: &Path, keep_last: usize) -> Result<Self, CheckpointError> {
        let folder = run_dir.join(FOLDER);
        at(&folder, fs::create_dir_all(&folder))?;
        let store = CheckpointStore {
            folder,
            keep_last: keep_last.max(1),
        };
        for name in store.names()? {
            let path = store.folder.join(&name);
            if name.starts_with(PARTIAL_PREFIX) {
                at(&path, fs::remove_dir_all(&path))?;
            } else if let Some(original) = name.strip_prefix(REPLACED_PREFIX) {
                let original = store.folder.join(original);
                if original.exists() {
                    at(&path, fs::remove_dir_all(&path))?;
                } else {
                    at(&path, fs::rename(&path, &original))?;
                }
            }
        }
        Ok(store)
    }

    /// Writes a checkpoint, points `latest` at it and removes those that are too old. Returns its
    /// folder. One of the same step is replaced.
    ///
    /// # Errors
    /// If the file system says no; earlier checkpoints are untouched then.
    pub fn save(&self, snapshot: &Snapshot) -> Result<PathBuf, CheckpointError> {
        let name = folder_name(snapshot.progress.iter);
        let partial = self.folder.join(format!("{PARTIAL_PREFIX}{name}"));
        let target = self.folder.join(&name);
        if partial.exists() {
            at(&partial, fs::remove_dir_all(&partial))?;
        }
        write_folder(&partial, snapshot)?;
        if target.exists() {
            let replaced = self.folder.join(format!("{REPLACED_PREFIX}{name}"));
            at(&target, fs::rename(&target, &replaced))?;
            at(&target, fs::rename(&partial, &target))?;
            at(&self.folder, sync_folder(&self.folder))?;
            at(&replaced, fs::remove_dir_all(&replaced))?;
        } else {
            at(&target, fs::rename(&partial, &target))?;
            at(&self.folder, sync_folder(&self.folder))?;
        }
        let latest = self.folder.join(LATEST_FILE);
        at(
            &latest,
            write_atomically(&latest, format!("{name}\n").as_bytes()),
        )?;
        self.remove_old()?;
        Ok(target)
    }

    /// The newest checkpoint and its folder, or none. Every file is verified.
    ///
    /// # Errors
    /// If the newest is damaged: the error names the file and the older checkpoint that remains, and
    /// leaves the choice to the caller.
    pub fn latest(&self) -> Result<Option<(PathBuf, Snapshot)>, CheckpointError> {
        let mut names = self.complete()?;
        let Some(name) = names.pop() else {
            return Ok(None);
        };
        let folder = self.folder.join(name);
        match load(&folder) {
            Ok(snapshot) => Ok(Some((folder, snapshot))),
            Err(CheckpointError::Damaged { path, reason, .. }) => Err(CheckpointError::Damaged {
                path,
                reason,
                previous: names.pop(),
            }),
            Err(other) => Err(other),
        }
    }

    /// Names of whole checkpoints, oldest first.
    fn complete(&self) -> Result<Vec<String>, CheckpointError> {
        let mut names = self.names()?;
        names.retain(|name| iter_of(name).is_some());
        names.sort_by_key(|name| iter_of(name));
        Ok(names)
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        let mut names = Vec::new();
        for entry in at(&self.folder, fs::read_dir(&self.folder))? {
            let entry = at(&self.folder, entry)?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    fn remove_old(&self) -> Result<(), CheckpointError> {
        let names = self.complete()?;
        let old = names.len().saturating_sub(self.keep_last);
        for name in &names[..old] {
            let folder = self.folder.join(name);
            // One that cannot be read is left for a person to look at.
            if !read_progress(&folder).is_ok_and(|file| !file.progress.finished) {
                continue;
            }
            // Renamed first: a process that dies while removing leaves no half checkpoint.
            let partial = self.folder.join(format!("{PARTIAL_PREFIX}{name}"));
            at(&folder, fs::rename(&folder, &partial))?;
            at(&partial, fs::remove_dir_all(&partial))?;
        }
        Ok(())
    }
}

/// Reads one checkpoint folder and verifies every file.
///
/// # Errors
/// If a file is missing or damaged, or the schema is another.
pub fn load(folder: &Path) -> Result<Snapshot, CheckpointError> {
    let file = read_progress(folder)?;
    let required = |name: &str| {
        read_state(folder, name, &file.files)?.ok_or_else(|| {
            let path = folder.join(name);
            damaged(&path, format!("`{PROGRESS_FILE}` does not list it"))
        })
    };
    Ok(Snapshot {
        student: required(STUDENT_FILE)?,
        optimizer: required(OPTIMIZER_FILE)?,
        method_optimizer: read_state(folder, METHOD_OPTIMIZER_FILE, &file.files)?,
        pretrain_optimizer: read_state(folder, PRETRAIN_OPTIMIZER_FILE, &file.files)?,
        method: read_state(folder, METHOD_FILE, &file.files)?,
        ema: read_state(folder, EMA_FILE, &file.files)?,
        progress: file.progress,
    })
}

/// Where the run stood at the checkpoint in `folder`; its other files are not looked at.
///
/// # Errors
/// If `progress.json` is missing or damaged, or its schema is another.
pub fn progress(folder: &Path) -> Result<Progress, CheckpointError> {
    Ok(read_progress(folder)?.progress)
}

fn write_folder(folder: &Path, snapshot: &Snapshot) -> Result<(), CheckpointError> {
    at(folder, fs::create_dir(folder))?;
    let states = [
        (STUDENT_FILE, Some(&snapshot.student)),
        (OPTIMIZER_FILE, Some(&snapshot.optimizer)),
        (METHOD_OPTIMIZER_FILE, snapshot.method_optimizer.as_ref()),
        (
            PRETRAIN_OPTIMIZER_FILE,
            snapshot.pretrain_optimizer.as_ref(),
        ),
        (METHOD_FILE, snapshot.method.as_ref()),
        (EMA_FILE, snapshot.ema.as_ref()),
    ];
    let mut files = BTreeMap::new();
    for (name, state) in states {
        let Some(state) = state else { continue };
        let bytes = state.to_bytes();
        write_synced(&folder.join(name), &bytes)?;
        files.insert(name.to_owned(), sha256(&bytes));
    }
    let mut file = ProgressFile {
        schema: SCHEMA,
        progress: snapshot.progress.clone(),
        files,
        digest: String::new(),
    };
    file.seal();
    write_synced(&folder.join(PROGRESS_FILE), file.json().as_bytes())?;
    at(folder, sync_folder(folder))
}

fn read_progress(folder: &Path) -> Result<ProgressFile, CheckpointError> {
    let path = folder.join(PROGRESS_FILE);
    let text = read_file(&path)?;
    let format = |error: serde_json::Error| damaged(&path, error.to_string());
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(format)?;
    match value["schema"].as_u64() {
        Some(schema) if schema == u64::from(SCHEMA) => {}
        Some(got) => return Err(CheckpointError::Schema { path, got }),
        None => return Err(damaged(&path, "it has no `schema`".into())),
    }
    let mut file: ProgressFile = serde_json::from_value(value).map_err(format)?;
    let expected = std::mem::take(&mut file.digest);
    file.seal();
    if file.digest == expected {
        Ok(file)
    } else {
        Err(damaged(&path, "its `digest` does not fit".into()))
    }
}

/// A state that `progress.json` lists, or none.
fn read_state(
    folder: &Path,
    name: &str,
    files: &BTreeMap<String, String>,
) -> Result<Option<StateDict>, CheckpointError> {
    let Some(expected) = files.get(name) else {
        return Ok(None);
    };
    let path = folder.join(name);
    let bytes = read_file(&path)?;
    let got = sha256(&bytes);
    if &got != expected {
        let reason = format!("expected SHA-256 {expected}, got {got}");
        return Err(damaged(&path, reason));
    }
    StateDict::from_bytes(&bytes, &path)
        .map(Some)
        .map_err(|error| match error {
            StateError::Io { path, source } => CheckpointError::Io { path, source },
            other => damaged(&path, other.to_string()),
        })
}

fn read_file(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(damaged(path, "it is missing".into()))
        }
        other => at(path, other),
    }
}

fn damaged(path: &Path, reason: String) -> CheckpointError {
    CheckpointError::Damaged {
        path: path.into(),
        reason,
        previous: None,
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    at(path, write())
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

fn folder_name(iter: u64) -> String {
    format!("iter_{iter:08}")
}

fn iter_of(name: &str) -> Option<u64> {
    name.strip_prefix("iter_")?.parse().ok()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn at<T>(path: &Path, result: std::io::Result<T>) -> Result<T, CheckpointError> {
    result.map_err(|source| CheckpointError::Io {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests;
