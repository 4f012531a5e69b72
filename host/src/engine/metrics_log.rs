//! `metrics.jsonl` and `timing.jsonl`: what a run measured, one flat JSON object a line.
//!
//! Equal runs write equal bytes into `metrics.jsonl`; whatever depends on the machine's mood (keys
//! `time/…` and `memory/…`) goes into `timing.jsonl`. TensorBoard's file has all of it, see
//! [`events`](super::events).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::events::EventFile;

/// Version of both files, in their first line.
pub const SCHEMA: u32 = 1;
/// What training and evaluation gave.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// What it cost.
pub const TIMING_FILE: &str = "timing.jsonl";

/// Lengths of the files at a checkpoint; what came later is cut off on resume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPosition {
    /// Bytes of `metrics.jsonl`.
    pub metrics_bytes: u64,
    /// Bytes of `timing.jsonl`.
    pub timing_bytes: u64,
    /// Bytes of TensorBoard's file; 0 in checkpoints from before there was one, which hash as they did.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub event_bytes: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out a reference"
)]
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// A metrics file cannot be written or continued.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The file system said no.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not the one that the checkpoint saw.
    #[error(
        "`{}` does not hold {expected} bytes of whole lines, as the checkpoint says (it holds \
         {got}); restore the file, or start a new run",
        path.display()
    )]
    Position {
        /// The file.
        path: PathBuf,
        /// The checkpoint's length.
        expected: u64,
        /// The file's length.
        got: u64,
    },
}

/// Writer of all of them. Every line is handed to the system at once.
#[derive(Debug)]
pub struct MetricsLog {
    metrics: LineFile,
    timing: LineFile,
    events: EventFile,
}

impl MetricsLog {
    /// Starts the files anew in `folder`.
    ///
    /// # Errors
    /// If the file system says no.
    pub fn create(folder: &Path) -> Result<Self, MetricsError> {
        Ok(MetricsLog {
            metrics: LineFile::create(folder.join(METRICS_FILE), "kdhost.metrics")?,
            timing: LineFile::create(folder.join(TIMING_FILE), "kdhost.timing")?,
            events: EventFile::create(folder)?,
        })
    }

    /// Continues the files in `folder` at a checkpoint's position; lines written after it go.
    /// TensorBoard's file says nothing of its own: where it is not the one that the checkpoint saw, it
    /// is made anew from the others, with a warning.
    ///
    /// # Errors
    /// If one of the others is shorter than that or was cut within a line.
    pub fn resume(folder: &Path, position: LogPosition) -> Result<Self, MetricsError> {
        let metrics = LineFile::resume(folder.join(METRICS_FILE), position.metrics_bytes)?;
        let timing = LineFile::resume(folder.join(TIMING_FILE), position.timing_bytes)?;
        let events = match EventFile::resume(folder, position.event_bytes)? {
            Some(events) => events,
            None => {
                warn!(
                    "`{}`: TensorBoard's file is not the one that the checkpoint saw; it is made anew \
                     from `{METRICS_FILE}` and `{TIMING_FILE}`, and shows this moment as the time of \
                     all earlier steps",
                    folder.display()
                );
                EventFile::rebuild(folder, [&metrics.path, &timing.path])?
            }
        };
        Ok(MetricsLog {
            metrics,
            timing,
            events,
        })
    }

    /// Writes `values` as they stand after optimizer step `iter` of `epoch`: `time/…` and
    /// `memory/…` into the one file, all others into the other, everything into TensorBoard's. What is
    /// not finite becomes `null`, and stays as it is in the last.
    ///
    /// # Errors
    /// If the file system says no.
    ///
    /// # Panics
    /// If a key has no group (`train/loss_cls`).
    pub fn record(
        &mut self,
        iter: u64,
        epoch: u64,
        values: &BTreeMap<String, f64>,
    ) -> Result<(), MetricsError> {
        let of_machine = |key: &str| key.starts_with("time/") || key.starts_with("memory/");
        let (timing, metrics): (Vec<_>, Vec<_>) =
            values.iter().partition(|(key, _)| of_machine(key));
        for (file, values) in [(&mut self.metrics, metrics), (&mut self.timing, timing)] {
            if !values.is_empty() {
                file.write_line(&line(iter, epoch, &values))?;
            }
        }
        self.events.scalars(iter, values)
    }

    /// Brings everything to the disk and says how long the files are; for a checkpoint.
    ///
    /// # Errors
    /// If the file system says no.
    pub fn sync(&mut self) -> Result<LogPosition, MetricsError> {
        Ok(LogPosition {
            metrics_bytes: self.metrics.sync()?,
            timing_bytes: self.timing.sync()?,
            event_bytes: self.events.sync()?,
        })
    }
}

fn line(iter: u64, epoch: u64, values: &[(&String, &f64)]) -> String {
    let mut line = format!("{{\"iter\":{iter},\"epoch\":{epoch}");
    for (key, value) in values {
        assert!(key.contains('/'), "metric `{key}` has a group before a `/`");
        let key = serde_json::Value::from(key.as_str());
        // serde_json gives null for what is not finite.
        let value = serde_json::Value::from(**value);
        line.push_str(&format!(",{key}:{value}"));
    }
    line.push_str("}\n");
    line
}

#[derive(Debug)]
struct LineFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl LineFile {
    fn create(path: PathBuf, schema: &str) -> Result<Self, MetricsError> {
        let file = match File::create(&path) {
            Ok(file) => file,
            Err(source) => return Err(MetricsError::Io { path, source }),
        };
        let mut lines = LineFile {
            path,
            file,
            bytes: 0,
        };
        lines.write_line(&format!(
            "{{\"schema\":\"{schema}\",\"version\":{SCHEMA}}}\n"
        ))?;
        Ok(lines)
    }

    fn resume(path: PathBuf, bytes: u64) -> Result<Self, MetricsError> {
        match Self::cut(&path, bytes) {
            Ok(Ok(file)) => Ok(LineFile { path, file, bytes }),
            Ok(Err(got)) => Err(MetricsError::Position {
                path,
                expected: bytes,
                got,
            }),
            Err(source) => Err(MetricsError::Io { path, source }),
        }
    }

    /// Cuts the file at `bytes`, or gives back its length where no line ends there.
    fn cut(path: &Path, bytes: u64) -> std::io::Result<Result<File, u64>> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        if bytes == 0 || length < bytes {
            return Ok(Err(length));
        }
        file.seek(SeekFrom::Start(bytes - 1))?;
        let mut last = [0u8];
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            return Ok(Err(length));
        }
        file.set_len(bytes)?;
        Ok(Ok(file))
    }

    fn write_line(&mut self, line: &str) -> Result<(), MetricsError> {
        let result = self.file.write_all(line.as_bytes());
        self.bytes += line.len() as u64;
        self.named(result)
    }

    fn sync(&mut self) -> Result<u64, MetricsError> {
        let result = self.file.sync_data();
        self.named(result)?;
        Ok(self.bytes)
    }

    fn named<T>(&self, result: std::io::Result<T>) -> Result<T, MetricsError> {
        result.map_err(|source| MetricsError::Io {
            path: self.path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn events(folder: &Path) -> PathBuf {
        let folder = folder.join(crate::engine::events::FOLDER);
        folder.join(crate::engine::events::FILE)
    }

    fn values(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).into(), *value));
        pairs.collect()
    }

    #[test]
    fn lines_are_flat_json_and_timing_lies_apart() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::create(folder.path()).unwrap();
        let first = [
            ("train/loss_cls", 0.5),
            ("time/step", 0.25),
            ("memory/resident", 3.0),
        ];
        log.record(10, 1, &values(&first)).unwrap();
        log.record(20, 2, &values(&[("val/AP", f64::NAN)])).unwrap();
        let metrics = fs::read_to_string(folder.path().join(METRICS_FILE)).unwrap();
        assert_eq!(
            metrics,
            "{\"schema\":\"kdhost.metrics\",\"version\":1}\n\
             {\"iter\":10,\"epoch\":1,\"train/loss_cls\":0.5}\n\
             {\"iter\":20,\"epoch\":2,\"val/AP\":null}\n"
        );
        let timing = fs::read_to_string(folder.path().join(TIMING_FILE)).unwrap();
        assert_eq!(
            timing,
            "{\"schema\":\"kdhost.timing\",\"version\":1}\n\
             {\"iter\":10,\"epoch\":1,\"memory/resident\":3.0,\"time/step\":0.25}\n"
        );
        let position = log.sync().unwrap();
        let lengths = [position.metrics_bytes, position.timing_bytes];
        assert_eq!(lengths, [metrics.len() as u64, timing.len() as u64]);
        let events = events(folder.path());
        assert_eq!(position.event_bytes, events.metadata().unwrap().len());
    }

    #[test]
    fn resume_cuts_what_came_after_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::create(folder.path()).unwrap();
        let write = |log: &mut MetricsLog, iter| {
            log.record(iter, 0, &values(&[("train/loss", 1.0 / iter as f64)]))
                .unwrap();
        };
        write(&mut log, 1);
        let position = log.sync().unwrap();
        write(&mut log, 2);
        write(&mut log, 3);
        let path = folder.path().join(METRICS_FILE);
        let straight = fs::read(&path).unwrap();
        // The process died within a line.
        fs::write(&path, &straight[..straight.len() - 5]).unwrap();
        let mut log = MetricsLog::resume(folder.path(), position).unwrap();
        write(&mut log, 2);
        write(&mut log, 3);
        assert_eq!(fs::read(&path).unwrap(), straight);
    }

    #[test]
    fn every_step_is_once_in_the_event_file_of_a_resumed_run() {
        let folder = tempfile::tempdir().unwrap();
        let write = |log: &mut MetricsLog, iter: u64| {
            let first = [("train/loss", iter as f64), ("time/step", 0.5)];
            log.record(iter, 0, &values(&first)).unwrap();
        };
        let steps = || {
            let bytes = fs::read(events(folder.path())).unwrap();
            crate::engine::events::tests::steps(&bytes)
        };
        let mut log = MetricsLog::create(folder.path()).unwrap();
        (1..=3).for_each(|iter| write(&mut log, iter));
        let position = log.sync().unwrap();
        (4..=5).for_each(|iter| write(&mut log, iter));
        drop(log);
        // The process died within a record.
        let written = fs::read(events(folder.path())).unwrap();
        fs::write(events(folder.path()), &written[..written.len() - 7]).unwrap();
        let mut log = MetricsLog::resume(folder.path(), position).unwrap();
        (4..=6).for_each(|iter| write(&mut log, iter));
        assert_eq!(steps(), [1, 2, 3, 4, 5, 6]);

        // A checkpoint from before there were event files, or one whose file somebody removed.
        for event_bytes in [0, position.event_bytes] {
            fs::remove_dir_all(folder.path().join(crate::engine::events::FOLDER)).unwrap();
            let position = LogPosition {
                event_bytes,
                ..position
            };
            let mut log = MetricsLog::resume(folder.path(), position).unwrap();
            write(&mut log, 4);
            // Metrics, then times: no tag has a step twice.
            assert_eq!(steps(), [1, 2, 3, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn positions_of_old_checkpoints_are_read_and_written_as_they_were() {
        let old = r#"{"metrics_bytes":120,"timing_bytes":7}"#;
        let position: LogPosition = serde_json::from_str(old).unwrap();
        assert_eq!(position.event_bytes, 0);
        assert_eq!(serde_json::to_string(&position).unwrap(), old);
        let new = LogPosition {
            event_bytes: 9,
            ..position
        };
        let json = serde_json::to_string(&new).unwrap();
        assert_eq!(serde_json::from_str::<LogPosition>(&json).unwrap(), new);
    }

    #[test]
    fn a_file_that_lost_lines_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let position = MetricsLog::create(folder.path()).unwrap().sync().unwrap();
        for metrics_bytes in [position.metrics_bytes + 1, position.metrics_bytes - 3, 0] {
            let wrong = LogPosition {
                metrics_bytes,
                ..position
            };
            let error = MetricsLog::resume(folder.path(), wrong).unwrap_err();
            let MetricsError::Position { expected, got, .. } = error else {
                panic!("{error}");
            };
            assert_eq!((expected, got), (metrics_bytes, position.metrics_bytes));
        }
        assert!(MetricsLog::resume(folder.path(), position).is_ok());
    }
}
