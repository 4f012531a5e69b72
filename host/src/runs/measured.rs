//! What the logs of a run say.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::path::Path;

use serde_json::{Map, Value as Json};

use crate::config::Task;
use crate::engine::EngineError;
use crate::engine::metrics_log::{METRICS_FILE, TIMING_FILE};
use crate::engine::table::Row;
use crate::eval::Metrics;

/// An evaluation of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Optimizer steps done then; none: it is the one at the end.
    pub iter: Option<u64>,
    /// Every number by name: fractions, negative or NaN where undefined.
    pub values: Vec<(String, f64)>,
    /// Evaluator and settings that the numbers depend on; logs do not have it.
    pub protocol: Option<String>,
    /// Hash of the list of images; logs do not have it.
    pub image_list_hash: Option<String>,
}

impl Evaluation {
    /// The number of that name, or none.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        let found = self.values.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| *value)
    }

    pub(super) fn of_end(metrics: &Metrics) -> Evaluation {
        let (protocol, images) = match metrics {
            Metrics::Detection(m) => (&m.protocol, &m.image_list_hash),
            Metrics::Segmentation(m) => (&m.protocol, &m.image_list_hash),
            Metrics::Classification(m) => (&m.protocol, &m.image_list_hash),
        };
        Evaluation {
            iter: None,
            values: metrics.named(),
            protocol: Some(protocol.clone()),
            image_list_hash: Some(images.clone()),
        }
    }
}

/// The number by which runs of a task are compared, as logs call it.
#[must_use]
pub fn main_metric(task: Task) -> &'static str {
    match task {
        Task::Detection => "AP",
        Task::Segmentation => "mIoU",
        Task::Classification => "top1",
    }
}

/// Where the time of a step goes, and how much memory it takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Costs {
    /// Median seconds of each part of a step.
    pub parts: Vec<(String, f64)>,
    /// Highest resident memory, bytes.
    pub peak_bytes: Option<u64>,
}

impl Costs {
    /// Seconds of a step, or none where no step was timed.
    #[must_use]
    pub fn total(&self) -> Option<f64> {
        let seconds = self.parts.iter().map(|(_, seconds)| seconds);
        (!self.parts.is_empty()).then(|| seconds.sum())
    }

    pub(super) fn of_end(row: &Row) -> Costs {
        Costs {
            parts: row.step.named(),
            peak_bytes: Some(row.peak_bytes),
        }
    }
}

/// What `metrics.jsonl` says: the last step of training, and the last evaluation.
pub(super) fn metrics(folder: &Path) -> Result<(Option<u64>, Option<Evaluation>), EngineError> {
    let mut latest = None;
    let mut evaluation = None;
    each_line(&folder.join(METRICS_FILE), |line| {
        let iter = line.get("iter").and_then(Json::as_u64);
        // Phases of a method alone count steps of their own.
        if line.keys().any(|key| key.starts_with("train/")) {
            latest = iter;
        }
        let values: Vec<(String, f64)> = group(line, "val/").collect();
        if !values.is_empty() {
            evaluation = Some(Evaluation {
                iter,
                values,
                protocol: None,
                image_list_hash: None,
            });
        }
    })?;
    Ok((latest, evaluation))
}

/// What `timing.jsonl` says: the median of each part of a step.
pub(super) fn costs(folder: &Path) -> Result<Costs, EngineError> {
    let mut parts: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut peak_bytes = None;
    each_line(&folder.join(TIMING_FILE), |line| {
        let peak = line.get("memory/peak_bytes").and_then(Json::as_f64);
        peak_bytes = peak.map(|bytes| bytes as u64).or(peak_bytes);
        for (name, value) in group(line, "time/") {
            if name != "evaluation" {
                parts.entry(name).or_default().push(value);
            }
        }
    })?;
    let median = |(name, mut values): (String, Vec<f64>)| {
        values.sort_by(f64::total_cmp);
        let middle = values[values.len() / 2];
        (name, middle)
    };
    Ok(Costs {
        parts: parts.into_iter().map(median).collect(),
        peak_bytes,
    })
}

/// Values whose keys begin with `prefix`, without it.
fn group<'a>(
    line: &'a Map<String, Json>,
    prefix: &'static str,
) -> impl Iterator<Item = (String, f64)> + 'a {
    line.iter().filter_map(move |(key, value)| {
        let name = key.strip_prefix(prefix)?;
        Some((name.to_owned(), value.as_f64().unwrap_or(f64::NAN)))
    })
}

/// Hands each whole line of a log to `visit`. The last may be half written, by a process that goes on
/// or died; a log that is not there has no lines.
pub(crate) fn each_line(
    path: &Path,
    mut visit: impl FnMut(&Map<String, Json>),
) -> Result<(), EngineError> {
    let refuse = |reason: String| EngineError::Result {
        path: path.into(),
        reason: format!("{reason}; the file is damaged, restore it from a copy"),
    };
    let mut reader = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refuse(error.to_string())),
    };
    let mut line = String::new();
    for number in 1_u64.. {
        line.clear();
        let read = reader.read_line(&mut line);
        read.map_err(|error| refuse(format!("line {number}: {error}")))?;
        if !line.ends_with('\n') {
            break;
        }
        let values = serde_json::from_str(&line);
        visit(&values.map_err(|error| refuse(format!("line {number}: {error}")))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_last_evaluation_and_the_last_step_are_found() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(metrics(folder.path()).unwrap(), (None, None));
        let text = "{\"schema\":\"kdhost.metrics\",\"version\":1}\n\
                    {\"iter\":90,\"epoch\":0,\"pretrain/first/loss\":0.5}\n\
                    {\"iter\":1,\"epoch\":0,\"train/lr\":0.5}\n\
                    {\"iter\":2,\"epoch\":1,\"val/AP\":0.25,\"val/AP_S\":null,\"oracle/AP\":1}\n\
                    {\"iter\":3,\"epoch\":1,\"train/lr\":0.5}\n\
                    {\"iter\":4,\"epoch\":1,\"train/l";
        fs::write(folder.path().join(METRICS_FILE), text).unwrap();
        let (latest, evaluation) = metrics(folder.path()).unwrap();
        assert_eq!(latest, Some(3));
        let evaluation = evaluation.unwrap();
        assert_eq!(evaluation.iter, Some(2));
        assert_eq!(evaluation.value("AP"), Some(0.25));
        assert!(evaluation.value("AP_S").unwrap().is_nan());
        assert_eq!(
            (evaluation.value("AP50"), evaluation.values.len()),
            (None, 2)
        );
    }

    #[test]
    fn costs_are_medians_without_evaluations() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(costs(folder.path()).unwrap().total(), None);
        let lines = [(0.1, 5.0), (0.9, 6.0), (0.2, 4.0)].map(|(data, peak)| {
            format!("{{\"iter\":1,\"time/data\":{data},\"time/maps\":0.5,\"memory/peak_bytes\":{peak}}}\n")
        });
        let text = lines.concat() + "{\"iter\":3,\"time/evaluation\":7}\n";
        fs::write(folder.path().join(TIMING_FILE), text).unwrap();
        let costs = costs(folder.path()).unwrap();
        assert_eq!(costs.parts, [("data".into(), 0.2), ("maps".into(), 0.5)]);
        assert_eq!((costs.total(), costs.peak_bytes), (Some(0.7), Some(4)));
    }

    #[test]
    fn a_broken_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(METRICS_FILE), "{\"iter\":1}\nnoise\n").unwrap();
        let message = metrics(folder.path()).unwrap_err().to_string();
        for part in ["metrics.jsonl", "line 2", "restore it"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn the_main_metric_is_the_first_that_an_evaluation_names() {
        let classes = serde_json::json!({
            "top1": 0.5, "top5": 0.75, "mean_class": 0.5, "per_class": [], "images": 4,
            "protocol": "p", "image_list_hash": "h",
        });
        let labels = serde_json::json!({
            "miou": 0.5, "macc": 0.5, "aacc": 0.5, "fwiou": 0.5, "per_class": [], "pixels": 4,
            "protocol": "p", "image_list_hash": "h",
        });
        for (task, json) in [
            (Task::Classification, classes),
            (Task::Segmentation, labels),
        ] {
            let metrics: Metrics = serde_json::from_value(json).unwrap();
            let evaluation = Evaluation::of_end(&metrics);
            assert_eq!(evaluation.values[0].0, main_metric(task));
            assert_eq!(evaluation.protocol.as_deref(), Some("p"));
        }
    }
}
