//! Arms: runs without a method whose result serves many jobs. The plain student and the teacher are
//! trained once for each set of settings and images, then reused.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::info;

use crate::config::Config;
use crate::data::fingerprint;
use crate::state::{StateDict, hex, write_atomically};

use super::EngineError;
use super::interrupt::Interrupt;
use super::progress::ProgressMode;
use super::table::Row;
use super::teacher::Teachers;
use super::train::{self, Datasets, Outcome, Run, config_hash};

/// The file that marks a run as done, with its row of the table.
pub(crate) const RESULT: &str = "result.json";

/// An arm that is done.
#[derive(Clone, Debug)]
pub struct Arm {
    /// What came out.
    pub row: Row,
    /// The exported model.
    pub student: PathBuf,
    /// Hash of its weights.
    pub student_hash: String,
}

/// The file that marks a run as done.
#[derive(Serialize, Deserialize)]
struct ResultFile {
    schema: u32,
    student_hash: String,
    row: Row,
}

/// Content hash of an arm: its settings, its images, the version of this program, and the kind of
/// device: its times stand beside the method's, and its roundings should be the same.
#[must_use]
pub fn key(config: &Config, datasets: &Datasets) -> String {
    let mut hasher = Sha256::new();
    for part in [
        env!("CARGO_PKG_VERSION"),
        config.compute_device().kind(),
        &config_hash(config),
        &fingerprint(datasets.train.as_ref()),
        &fingerprint(datasets.val.as_ref()),
    ] {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hex(&hasher.finalize())[..16].to_owned()
}

/// Where the cache has, or would have, the arm that `config` describes.
#[must_use]
pub fn folder(label: &str, config: &Config, datasets: &Datasets) -> PathBuf {
    config
        .cache_dir
        .join(format!("{label}-{}", key(config, datasets)))
}

/// The arm in `folder`, if it was trained to its end.
///
/// # Errors
/// If its files are not those that were written.
pub fn done(folder: &Path) -> Result<Option<Arm>, EngineError> {
    if folder.join(RESULT).is_file() {
        reuse(folder).map(Some)
    } else {
        Ok(None)
    }
}

/// Gives the arm `config` describes: from the cache, by continuing it, or by training it.
///
/// # Errors
/// As a run.
pub fn run(
    label: &str,
    config: &Config,
    datasets: &Datasets,
    progress: ProgressMode,
    interrupt: &Interrupt,
) -> Result<Arm, EngineError> {
    let folder = folder(label, config, datasets);
    if let Some(arm) = done(&folder)? {
        info!("{label}: reusing `{}`", folder.display());
        return Ok(arm);
    }
    // Another process may be training it at this moment, for its own job.
    let _turn = Turn::wait(label, &folder, interrupt)?;
    if let Some(arm) = done(&folder)? {
        info!("{label}: reusing `{}`", folder.display());
        return Ok(arm);
    }
    let resume = folder.join("config.resolved.toml").is_file();
    let outcome = train::train(Run {
        label,
        config,
        datasets,
        chosen: &[],
        teachers: Teachers::new(),
        folder: &folder,
        resume,
        progress,
        interrupt,
    })?;
    let row = row(label, &outcome);
    write_result(&folder, row, &outcome.student)
}

/// The right to train an arm in the cache, held by one process at a time.
struct Turn(#[expect(dead_code, reason = "locked while it is open")] Option<File>);

impl Turn {
    /// Waits until no other process trains the arm of `folder`.
    fn wait(label: &str, folder: &Path, interrupt: &Interrupt) -> Result<Self, EngineError> {
        // Apart from the arms, so that the cache lists these alone.
        let name = folder.file_name().expect("an arm has a name");
        let locks = folder.with_file_name("locks");
        let path = locks.join(name).with_extension("lock");
        let failed = |error: std::io::Error| EngineError::Result {
            path: path.clone(),
            reason: error.to_string(),
        };
        fs::create_dir_all(&locks).map_err(failed)?;
        let file = File::create(&path).map_err(failed)?;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Turn(Some(file))),
                Err(TryLockError::WouldBlock) if interrupt.requested() => {
                    return Err(EngineError::Interrupted {
                        step: 0,
                        phase: None,
                        run_dir: folder.into(),
                    });
                }
                Err(TryLockError::WouldBlock) => {
                    if !said {
                        info!(
                            "{label}: another process trains it in `{}`; waiting",
                            folder.display()
                        );
                        said = true;
                    }
                    thread::sleep(Duration::from_millis(200));
                }
                // Some network file systems have no locks; the run's own says so.
                Err(TryLockError::Error(_)) => return Ok(Turn(None)),
            }
        }
    }
}

/// The table's row of a run.
#[must_use]
pub fn row(name: &str, outcome: &Outcome) -> Row {
    Row {
        name: name.into(),
        metrics: outcome.metrics.clone(),
        oracles: outcome.oracles.clone(),
        step: outcome.step.clone(),
        peak_bytes: outcome.peak_bytes,
        method_parameters: outcome.method_parameters,
        seconds: outcome.seconds,
        joules: outcome.joules,
        reused: false,
    }
}

/// Marks the run in `folder` as done.
///
/// # Errors
/// If a file cannot be read or written.
pub fn write_result(folder: &Path, row: Row, student: &Path) -> Result<Arm, EngineError> {
    let student_hash = StateDict::load(student)?.hash();
    let result = ResultFile {
        schema: 1,
        student_hash,
        row,
    };
    let json = serde_json::to_string_pretty(&result).expect("a result is plain data");
    let path = folder.join(RESULT);
    write_atomically(&path, json.as_bytes()).map_err(|e| EngineError::Result {
        path,
        reason: e.to_string(),
    })?;
    Ok(Arm {
        row: result.row,
        student: student.into(),
        student_hash: result.student_hash,
    })
}

fn reuse(folder: &Path) -> Result<Arm, EngineError> {
    let path = folder.join(RESULT);
    let refuse = |reason: String| EngineError::Result {
        path: path.clone(),
        reason: format!("{reason}; remove `{}` to train it again", folder.display()),
    };
    let text = fs::read_to_string(&path).map_err(|e| refuse(e.to_string()))?;
    let mut result: ResultFile = serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))?;
    let student = folder.join("student.safetensors");
    if StateDict::load(&student)?.hash() != result.student_hash {
        return Err(refuse(
            "`student.safetensors` is not the file that was written".into(),
        ));
    }
    result.row.reused = true;
    Ok(Arm {
        row: result.row,
        student,
        student_hash: result.student_hash,
    })
}
