//! The folder of a comparison.
//!
//! ```text
//! ab.json                       what was fixed before the first run
//! ab.lock                       held while a process works here
//! runs/ARM/seed-N.toml          the configuration of a run
//! runs/ARM/seed-N/              its directory
//! runs/ARM/seed-N.log           what its process said; locked by it while it lives
//! runs/ARM/seed-N.failed.json   how it ended, where it has no result
//! report.html  report.json  report.md
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use kdhost_ab::report::RunState;
use serde::{Deserialize, Serialize};

use super::AbError;
use crate::config::Config;
use crate::engine::stages;
use crate::state::write_atomically;

/// The folder of a comparison, locked against other processes while this value lives.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    _lock: File,
}

/// Where the files of one run are.
#[derive(Clone, Debug)]
pub struct RunFiles {
    /// Its directory.
    pub folder: PathBuf,
    /// The same, below the folder of the comparison.
    pub relative: String,
}

/// How a run ended that has no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// `failed` or `killed`.
    pub state: RunState,
    /// What its process said, or which signal ended it.
    pub reason: String,
}

impl Store {
    /// Opens the folder, which is made where there is none.
    ///
    /// # Errors
    /// If another process works in it, or the file system says no.
    pub fn open(folder: &Path) -> Result<Self, AbError> {
        fs::create_dir_all(folder).map_err(|e| AbError::file(folder, e))?;
        let path = folder.join("ab.lock");
        let lock = File::create(&path).map_err(|e| AbError::file(&path, e))?;
        match lock.try_lock() {
            // Some network file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(AbError::Locked {
                    folder: folder.into(),
                });
            }
        }
        Ok(Store {
            folder: folder.into(),
            _lock: lock,
        })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The text of a file here; none where there is no such file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<String>, AbError> {
        read(&self.folder.join(name))
    }

    /// Writes a file here, whole or not at all.
    ///
    /// # Errors
    /// If the file system says no.
    pub fn write(&self, name: &str, text: &str) -> Result<(), AbError> {
        write(&self.folder.join(name), text)
    }

    /// The files of the run of an arm, by the name of its folder, and a seed.
    #[must_use]
    pub fn run(&self, arm: &str, seed: u64) -> RunFiles {
        let relative = format!("runs/{arm}/seed-{seed}");
        RunFiles {
            folder: self.folder.join(&relative),
            relative,
        }
    }
}

impl RunFiles {
    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.beside("toml")
    }

    /// Writes its configuration, whole or not at all.
    ///
    /// # Errors
    /// If the file system says no.
    pub fn write_config(&self, config: &Config) -> Result<(), AbError> {
        write(&self.config(), &config.to_toml())
    }

    /// What its process said.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.beside("log")
    }

    fn failure_file(&self) -> PathBuf {
        self.beside("failed.json")
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let name = self.folder.file_name().expect("it is named for a seed");
        let name = format!("{}.{extension}", name.to_string_lossy());
        self.folder.with_file_name(name)
    }

    /// Whether it was begun.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.folder.join("config.resolved.toml").is_file()
    }

    /// The log, open for more, and locked: the process that inherits it holds the lock as long as it
    /// lives, its starter's end notwithstanding. None while another process has it.
    ///
    /// # Errors
    /// If the file system says no.
    pub fn lock_log(&self) -> Result<Option<File>, AbError> {
        let path = self.log();
        let failed = |e: std::io::Error| AbError::file(&path, e);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(failed)?;
        match log.try_lock() {
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(log)),
            Err(TryLockError::WouldBlock) => Ok(None),
        }
    }

    /// How it ended, where it ended without a result.
    ///
    /// # Errors
    /// If the file is not one.
    pub fn failure(&self) -> Result<Option<Failure>, AbError> {
        let path = self.failure_file();
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        let failure = serde_json::from_str(&text).map_err(|e| AbError::file(&path, e))?;
        Ok(Some(failure))
    }

    /// Notes how it ended; none: it has not ended so.
    ///
    /// # Errors
    /// If the file system says no.
    pub fn note_failure(&self, failure: Option<&Failure>) -> Result<(), AbError> {
        let path = self.failure_file();
        match failure {
            Some(failure) => {
                let json = serde_json::to_string_pretty(failure).expect("plain data");
                write(&path, &(json + "\n"))
            }
            None => match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(AbError::file(&path, e)),
                _ => Ok(()),
            },
        }
    }

    /// The directories of its trainings, in order: those of its stages, begun or not, or its own.
    ///
    /// # Errors
    /// If the file that lists the stages cannot be read.
    pub fn trainings(&self) -> Result<Vec<PathBuf>, AbError> {
        match stages::is_job(&self.folder) {
            true => Ok(stages::folders(&self.folder)?),
            false => Ok(vec![self.folder.clone()]),
        }
    }

    /// The directory of the training that its student comes from: the last one's.
    ///
    /// # Errors
    /// As [`RunFiles::trainings`].
    pub fn of_student(&self) -> Result<PathBuf, AbError> {
        let last = self.trainings()?.pop();
        Ok(last.unwrap_or_else(|| self.folder.clone()))
    }
}

fn read(path: &Path) -> Result<Option<String>, AbError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(AbError::file(path, e)),
    }
}

fn write(path: &Path, text: &str) -> Result<(), AbError> {
    write_atomically(path, text.as_bytes()).map_err(|e| AbError::file(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_do_not_work_in_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/ab");
        let store = Store::open(&path).unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, AbError::Locked { .. }), "{error}");
        drop(store);
        Store::open(&path).unwrap();
    }

    #[test]
    fn a_log_is_held_by_the_process_that_inherits_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let run = store.run("x", 3);
        let log = run.lock_log().unwrap().expect("nobody has it");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .stderr(log)
            .spawn()
            .unwrap();
        assert!(run.lock_log().unwrap().is_none(), "the child has it");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(run.lock_log().unwrap().is_some());
    }

    #[test]
    fn failures_are_noted_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let run = Store::open(folder.path()).unwrap().run("x", 3);
        assert_eq!(run.failure().unwrap(), None);
        let failure = Failure {
            state: RunState::Killed,
            reason: "signal 9".into(),
        };
        run.note_failure(Some(&failure)).unwrap();
        assert_eq!(run.failure().unwrap(), Some(failure));
        run.note_failure(None).unwrap();
        run.note_failure(None).unwrap();
        assert_eq!(run.failure().unwrap(), None);
    }

    #[test]
    fn the_last_stage_trained_the_student() {
        let folder = tempfile::tempdir().unwrap();
        let run = Store::open(folder.path()).unwrap().run("x", 3);
        assert_eq!(run.of_student().unwrap(), run.folder);
        fs::create_dir_all(&run.folder).unwrap();
        let listed = r#"[{"name": "b"}, {"name": "a"}]"#;
        fs::write(run.folder.join("stages.json"), listed).unwrap();
        // The last one, though it has not begun.
        fs::create_dir_all(run.folder.join("stages/1-b")).unwrap();
        let stages = ["stages/1-b", "stages/2-a"].map(|stage| run.folder.join(stage));
        assert_eq!(run.trainings().unwrap(), stages);
        assert_eq!(run.of_student().unwrap(), stages[1]);
        fs::write(run.folder.join("stages.json"), "{").unwrap();
        let error = run.of_student().unwrap_err();
        assert!(error.to_string().contains("stages.json"), "{error}");
    }
}
