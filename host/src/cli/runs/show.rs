//! `kdhost runs show`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{methods, sized, summary};
use crate::cli::clock::Utc;
use crate::config::{KeyDifference, differences};
use crate::engine::EngineError;
use crate::eval::percent;
use crate::runs::compare::facts_of;
use crate::runs::read::{Run, default_of};

/// Settings that differ from the default of the run's task; `a` is the default's value.
fn settings(run: &Run) -> Vec<KeyDifference> {
    let config = run.config.as_ref();
    config.map_or_else(Vec::new, |config| differences(&default_of(config), config))
}

/// Everything about a run.
///
/// # Errors
/// If one of its files is broken.
pub(super) fn json(run: &Run) -> Result<Value, EngineError> {
    let evaluation = run.evaluation.as_ref();
    let continued: Vec<Value> = run
        .continued()?
        .into_iter()
        .map(|(iter, environment)| json!({"iter": iter, "environment": environment}))
        .collect();
    let files: Vec<Value> = run
        .files()?
        .into_iter()
        .map(|(name, bytes)| json!({"name": name, "bytes": bytes}))
        .collect();
    let parts: serde_json::Map<String, Value> = run
        .costs
        .parts
        .iter()
        .map(|(name, seconds)| (name.clone(), Value::from(*seconds)))
        .collect();
    let best = run.progress.as_ref().and_then(|p| p.best.as_ref());
    let mut json = summary(run);
    json["settings"] = json!(settings(run));
    json["environment"] = json!(run.environment);
    json["continued"] = json!(continued);
    json["best"] = json!(best);
    json["protocol"] = json!(evaluation.and_then(|e| e.protocol.as_ref()));
    json["image_list_hash"] = json!(evaluation.and_then(|e| e.image_list_hash.as_ref()));
    json["seconds_by_part"] = Value::Object(parts);
    json["peak_bytes"] = json!(run.costs.peak_bytes);
    json["files"] = Value::Array(files);
    Ok(json)
}

/// The same for people.
///
/// # Errors
/// If one of its files is broken.
pub(super) fn text(run: &Run) -> Result<String, EngineError> {
    let mut text = Text::default();
    let started = run.started.map(|time| Utc::of(time).to_string());
    text.line(&format!("{}: {}", run.folder.display(), run.state));
    text.fact("started", started.as_deref().unwrap_or("unknown"));
    if let Some(config) = &run.config {
        text.fact("task", config.task.name());
        text.fact("student", &run.student().unwrap_or_default());
        text.fact("methods", &methods(run));
        text.fact("seed", &config.seed.to_string());
    }

    text.head("settings that differ from the embedded default of the task");
    for KeyDifference { key, a, b } in settings(run) {
        let value = b.unwrap_or_else(|| "(left out)".to_owned());
        match a {
            Some(default) => text.fact(&key, &format!("{value}  (default {default})")),
            None => text.fact(&key, &value),
        }
    }
    text.head("environment");
    for (key, value) in run.environment.iter().flat_map(facts_of) {
        text.fact(&key, &value);
    }
    for (iter, environment) in run.continued()? {
        let facts = facts_of(&environment);
        let before = run.environment.as_ref().map(facts_of).unwrap_or_default();
        let other = facts
            .iter()
            .filter(|(key, value)| before.get(*key) != Some(value));
        let other: Vec<String> = other.map(|(key, value)| format!("{key} {value}")).collect();
        text.fact(
            &format!("continued at iter {iter}"),
            &match other.is_empty() {
                true => "there too".to_owned(),
                false => format!("with {}", other.join(", ")),
            },
        );
    }
    text.head("plugins");
    for (label, plugin) in run.environment.iter().flat_map(|e| &e.plugins) {
        let version = plugin.manifest["version"].as_str().unwrap_or("unknown");
        text.fact(
            label,
            &format!(
                "method {} {version}, `{}`, sha256 {}",
                plugin.method,
                plugin.path.display(),
                plugin.sha256
            ),
        );
    }
    text.head("last evaluation");
    if let Some(evaluation) = &run.evaluation {
        text.fact(
            "after",
            &match evaluation.iter {
                Some(iter) => format!("iter {iter}"),
                None => "the end".to_owned(),
            },
        );
        for (name, value) in &evaluation.values {
            text.fact(name, &percent(*value));
        }
        if let Some(best) = run.progress.as_ref().and_then(|p| p.best.as_ref()) {
            let value = percent(best.value);
            text.fact(
                "best",
                &format!("{} {value} after iter {}", best.metric, best.iter),
            );
        }
        if let Some(protocol) = &evaluation.protocol {
            text.fact("protocol", protocol);
        }
        if let Some(hash) = &evaluation.image_list_hash {
            text.fact("images", hash);
        }
    }
    text.head("median step");
    if let Some(total) = run.costs.total() {
        text.fact("total", &format!("{:.1} ms", 1e3 * total));
        for (name, seconds) in run.costs.parts.iter().filter(|(_, s)| *s > 0.0) {
            let share = 100.0 * seconds / total;
            text.fact(name, &format!("{:.1} ms ({share:.1} %)", 1e3 * seconds));
        }
    }
    if let Some(bytes) = run.costs.peak_bytes {
        text.fact("peak memory", &sized(bytes));
    }
    text.head("files");
    for (name, bytes) in run.files()? {
        text.fact(&name, &sized(bytes));
    }
    Ok(text.ended())
}

/// Headings with facts below them.
#[derive(Default)]
struct Text {
    text: String,
    /// Whether a heading has nothing below it yet.
    is_open: bool,
}

impl Text {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("strings grow");
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.line("  none");
        }
    }

    fn head(&mut self, heading: &str) {
        self.close();
        self.line(&format!("\n{heading}"));
        self.is_open = true;
    }

    fn fact(&mut self, name: &str, value: &str) {
        self.is_open = false;
        self.line(&format!("  {name:<18}  {value}"));
    }

    fn ended(mut self) -> String {
        self.close();
        self.text
    }
}
