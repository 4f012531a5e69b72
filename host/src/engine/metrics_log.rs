//! `metrics.jsonl` and `timing.jsonl`: what a run measured, one flat JSON object a line.
//!
//! Equal runs write equal bytes into `metrics.jsonl`; whatever depends on the machine's mood (keys
//! `time/…` and `memory/…`) goes into `timing.jsonl`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Version of both files, in their first line.
pub const SCHEMA: u32 = 1;
const METRICS_FILE: &str = "metrics.jsonl";
const TIMING_FILE: &str = "timing.jsonl";

/// Lengths of both files at a checkpoint; later lines are cut off on resume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPosition {
    /// Bytes of `metrics.jsonl`.
    pub metrics_bytes: u64,
    /// Bytes of `timing.jsonl`.
    pub timing_bytes: u64,
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

/// Writer of both files. Every line is handed to the system at once.
#[derive(Debug)]
pub struct MetricsLog {
    metrics: LineFile,
    timing: LineFile,
}

impl MetricsLog {
    /// Starts both files anew in `folder`.
    ///
    /// # Errors
    /// If the file system says no.
    pub fn create(folder: &Path) -> Result<Self, MetricsError> {
        Ok(MetricsLog {
            metrics: LineFile::create(folder.join(METRICS_FILE), "kdhost.metrics")?,
            timing: LineFile::create(folder.join(TIMING_FILE), "kdhost.timing")?,
        })
    }

    /// Continues both files in `folder` at a checkpoint's position; lines written after it go.
    ///
    /// # Errors
    /// If a file is shorter than that or was cut within a line.
    pub fn resume(folder: &Path, position: LogPosition) -> Result<Self, MetricsError> {
        Ok(MetricsLog {
            metrics: LineFile::resume(folder.join(METRICS_FILE), position.metrics_bytes)?,
            timing: LineFile::resume(folder.join(TIMING_FILE), position.timing_bytes)?,
        })
    }

    /// Writes `values` as they stand after optimizer step `iter` of `epoch`: `time/…` and
    /// `memory/…` into the one file, all others into the other. What is not finite becomes `null`.
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
        Ok(())
    }

    /// Brings all lines to the disk and says how long the files are; for a checkpoint.
    ///
    /// # Errors
    /// If the file system says no.
    pub fn sync(&mut self) -> Result<LogPosition, MetricsError> {
        Ok(LogPosition {
            metrics_bytes: self.metrics.sync()?,
            timing_bytes: self.timing.sync()?,
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
