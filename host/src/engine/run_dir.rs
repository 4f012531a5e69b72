//! The directory of one run: enough to understand and repeat it.
//!
//! ```text
//! config.resolved.toml          every setting, defaults included
//! environment.json              program, machine, plugin
//! environment.resume_<iter>.json  the same, where the run was continued
//! metrics.jsonl  timing.jsonl   see `metrics_log`
//! tensorboard/                  the same for TensorBoard, see `events`
//! checkpoints/                  see `checkpoint`
//! fingerprint.json              what was fed in, see `fingerprint`
//! predictions.json              the final evaluation by image, see `ByImage`
//! run.lock                      held while a process works here
//! ```

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::environment::Environment;
use crate::state::write_atomically;

const CONFIG_FILE: &str = "config.resolved.toml";
pub(crate) const ENVIRONMENT_FILE: &str = "environment.json";
const LOCK_FILE: &str = "run.lock";
/// A lock that is held is tried again so often, after such a pause.
const LOCK_TRIES: u32 = 4;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// The directory of one run, locked against other processes while this value lives.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

/// A run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The file system said no.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something is there already.
    #[error(
        "`{}` is not empty; continue that run with `--resume`, or choose another `output_dir`",
        path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing to continue.
    #[error(
        "`{}` holds no run: `{CONFIG_FILE}` is missing; start without `--resume`",
        path.display()
    )]
    NoRun {
        /// The directory.
        path: PathBuf,
    },
    /// Nothing to look at.
    #[error(
        "`{}` holds no run: `{CONFIG_FILE}` is missing; name the folder that `--output` of a run named, or one below `output_dir`",
        path.display()
    )]
    NotARun {
        /// The directory.
        path: PathBuf,
    },
    /// Another process works in it.
    #[error("another process is working in `{}`; wait for it or stop it", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
}

impl RunDir {
    /// Makes the directory, and writes the configuration and the environment.
    ///
    /// # Errors
    /// If it exists and is not empty, or the file system says no.
    pub fn create(
        path: &Path,
        resolved_toml: &str,
        environment: &Environment,
    ) -> Result<Self, RunDirError> {
        at(path, fs::create_dir_all(path))?;
        let entries = at(path, fs::read_dir(path))?;
        for entry in entries {
            // A lock alone is left where a process died before it wrote anything.
            if at(path, entry)?.file_name() != LOCK_FILE {
                return Err(RunDirError::NotEmpty { path: path.into() });
            }
        }
        let run = Self::lock(path)?;
        run.write_environment(ENVIRONMENT_FILE, environment)?;
        // Last, because its presence says that there is a run.
        let config = path.join(CONFIG_FILE);
        at(&config, write_atomically(&config, resolved_toml.as_bytes()))?;
        Ok(run)
    }

    /// Opens the directory of an earlier run.
    ///
    /// # Errors
    /// If there is none, or another process works in it.
    pub fn resume(path: &Path) -> Result<Self, RunDirError> {
        if !path.join(CONFIG_FILE).is_file() {
            return Err(RunDirError::NoRun { path: path.into() });
        }
        Self::lock(path)
    }

    /// Checks that `path` holds a run, which may be going on: nothing is locked or written.
    ///
    /// # Errors
    /// If there is none.
    pub fn require(path: &Path) -> Result<(), RunDirError> {
        if path.join(CONFIG_FILE).is_file() {
            Ok(())
        } else {
            Err(RunDirError::NotARun { path: path.into() })
        }
    }

    /// Whether a process works in `path`; nothing is written. The lock is shared for a moment, which a
    /// process that starts there waits for.
    #[must_use]
    pub fn is_locked(path: &Path) -> bool {
        let Ok(lock) = File::open(path.join(LOCK_FILE)) else {
            return false;
        };
        matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration the run was started with.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn resolved_toml(&self) -> Result<String, RunDirError> {
        let path = self.path.join(CONFIG_FILE);
        at(&path, fs::read_to_string(&path))
    }

    /// Notes where the run is continued, beside where it was started.
    ///
    /// # Errors
    /// If the file system says no.
    pub fn note_resume(&self, iter: u64, environment: &Environment) -> Result<(), RunDirError> {
        self.write_environment(&format!("environment.resume_{iter:08}.json"), environment)
    }

    fn write_environment(&self, name: &str, environment: &Environment) -> Result<(), RunDirError> {
        let path = self.path.join(name);
        let mut json = serde_json::to_string_pretty(environment).expect("facts are plain JSON");
        json.push('\n');
        at(&path, write_atomically(&path, json.as_bytes()))
    }

    fn lock(path: &Path) -> Result<Self, RunDirError> {
        let file = path.join(LOCK_FILE);
        let lock = at(&file, File::create(&file))?;
        let mut locked = lock.try_lock();
        for _ in 0..LOCK_TRIES {
            // Somebody may just be looking whether it is held.
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            thread::sleep(LOCK_PAUSE);
            locked = lock.try_lock();
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(RunDirError::Locked { path: path.into() });
            }
            // Some network file systems have no locks; a run there is still a run.
            Err(TryLockError::Error(source)) => {
                tracing::warn!("`{}` cannot be locked: {source}", file.display());
            }
        }
        Ok(RunDir {
            path: path.into(),
            _lock: lock,
        })
    }
}

fn at<T>(path: &Path, result: std::io::Result<T>) -> Result<T, RunDirError> {
    result.map_err(|source| RunDirError::Io {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_created_once_and_continued_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs/first");
        let environment = Environment::current(Default::default());
        let error = RunDir::resume(&path).unwrap_err();
        assert!(matches!(error, RunDirError::NoRun { .. }), "{error}");
        let error = RunDir::require(&path).unwrap_err();
        assert!(matches!(error, RunDirError::NotARun { .. }), "{error}");
        let run = RunDir::create(&path, "seed = 3\n", &environment).unwrap();
        let json = fs::read_to_string(path.join("environment.json")).unwrap();
        assert_eq!(
            serde_json::from_str::<Environment>(&json).unwrap(),
            environment
        );
        let error = RunDir::resume(&path).unwrap_err();
        assert!(matches!(error, RunDirError::Locked { .. }), "{error}");
        RunDir::require(&path).unwrap();
        assert!(RunDir::is_locked(&path));
        drop(run);
        assert!(!RunDir::is_locked(&path) && !RunDir::is_locked(folder.path()));
        let error = RunDir::create(&path, "seed = 4\n", &environment).unwrap_err();
        assert!(matches!(error, RunDirError::NotEmpty { .. }), "{error}");
        let run = RunDir::resume(&path).unwrap();
        assert_eq!(run.resolved_toml().unwrap(), "seed = 3\n");
        run.note_resume(20, &environment).unwrap();
        assert!(path.join("environment.resume_00000020.json").is_file());
    }

    #[test]
    fn somebody_elses_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "text").unwrap();
        let environment = Environment::current(Default::default());
        let error = RunDir::create(folder.path(), "", &environment).unwrap_err();
        assert!(matches!(error, RunDirError::NotEmpty { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
