//! `tensorboard/events.out.tfevents.0000000000.kdhost`: what `metrics.jsonl` and `timing.jsonl` hold,
//! as TensorBoard reads it. Tags are the keys of those files, steps their `iter`.
//!
//! The file is TensorFlow's sequence of records (`record`), each an `Event` of scalars
//! (`message`). It is written here because a resumed run has to cut it back to its checkpoint, which
//! needs its length in bytes at any time; crates that write such files own them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value as Json};

use super::metrics_log::MetricsError;

mod message;
mod record;

/// TensorBoard shows a folder of event files as one run.
pub const FOLDER: &str = "tensorboard";
/// TensorBoard takes files whose names hold `tfevents`. Where other writers put the time there is 0,
/// because a resumed run continues the file.
pub const FILE: &str = "events.out.tfevents.0000000000.kdhost";

/// Writer of the event file. Every record is handed to the system at once.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl EventFile {
    /// Starts the file anew in the run directory `folder`.
    pub(super) fn create(folder: &Path) -> Result<Self, MetricsError> {
        let path = folder.join(FOLDER).join(FILE);
        let begun = fs::create_dir_all(folder.join(FOLDER)).and_then(|()| File::create(&path));
        let mut events = match begun {
            Ok(file) => EventFile {
                path,
                file,
                bytes: 0,
            },
            Err(source) => return Err(MetricsError::Io { path, source }),
        };
        events.write(&message::version(now()))?;
        Ok(events)
    }

    /// Continues the file in the run directory `folder` after so many bytes, and cuts off what
    /// follows them; none if no record ends there.
    pub(super) fn resume(folder: &Path, bytes: u64) -> Result<Option<Self>, MetricsError> {
        let path = folder.join(FOLDER).join(FILE);
        match cut(&path, bytes) {
            Ok(file) => Ok(file.map(|file| EventFile { path, file, bytes })),
            Err(source) => Err(MetricsError::Io { path, source }),
        }
    }

    /// Starts the file anew from what `logs` hold, files of one flat JSON object a line, in their
    /// order. Their times of writing are not known: it is now.
    pub(super) fn rebuild(folder: &Path, logs: [&Path; 2]) -> Result<Self, MetricsError> {
        let mut events = EventFile::create(folder)?;
        for log in logs {
            let failed = |source| MetricsError::Io {
                path: log.into(),
                source,
            };
            for line in BufReader::new(File::open(log).map_err(failed)?).lines() {
                let line: Map<String, Json> = serde_json::from_str(&line.map_err(failed)?)
                    .map_err(|error| failed(error.into()))?;
                // The first line has no `iter`: it says which file it is.
                let Some(iter) = line.get("iter").and_then(Json::as_u64) else {
                    continue;
                };
                let values = line.into_iter().filter(|(key, _)| key.contains('/'));
                let values: BTreeMap<String, f64> = values
                    .map(|(key, value)| (key, value.as_f64().unwrap_or(f64::NAN)))
                    .collect();
                events.scalars(iter, &values)?;
            }
        }
        Ok(events)
    }

    /// Writes `values` as they stand after step `iter`, as f32. What is not finite stays so.
    pub(super) fn scalars(
        &mut self,
        iter: u64,
        values: &BTreeMap<String, f64>,
    ) -> Result<(), MetricsError> {
        match values.is_empty() {
            true => Ok(()),
            false => self.write(&message::scalars(now(), iter, values)),
        }
    }

    /// Brings all records to the disk and says how long the file is.
    pub(super) fn sync(&mut self) -> Result<u64, MetricsError> {
        match self.file.sync_data() {
            Ok(()) => Ok(self.bytes),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn write(&mut self, message: &[u8]) -> Result<(), MetricsError> {
        let record = record::framed(message);
        if let Err(source) = self.file.write_all(&record) {
            return Err(self.failed(source));
        }
        self.bytes += record.len() as u64;
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> MetricsError {
        MetricsError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// Cuts the file at `bytes`; none if it is not there or no record ends there.
fn cut(path: &Path, bytes: u64) -> std::io::Result<Option<File>> {
    if bytes == 0 || !path.is_file() {
        return Ok(None);
    }
    let file = OpenOptions::new().read(true).append(true).open(path)?;
    if !record::ends_at(&file, bytes)? {
        return Ok(None);
    }
    file.set_len(bytes)?;
    Ok(Some(file))
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
pub(super) mod tests;
