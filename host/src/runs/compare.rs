//! Two runs side by side: what was set otherwise, what was different around them, what came out.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value as Json;

use crate::config::{KeyDifference, differences};
use crate::engine::environment::Environment;

use super::measured::Evaluation;
use super::read::Run;

/// Where two runs differ, group by group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Settings by dotted key.
    pub configuration: Vec<KeyDifference>,
    /// Those that cannot change a result: where files go, how often a line is logged.
    pub without_effect: Vec<KeyDifference>,
    /// Facts of `environment.json`, the plugins aside.
    pub environment: Vec<KeyDifference>,
    /// `LABEL.sha256`, `LABEL.method`, `LABEL.version` of each method's plugin.
    pub plugins: Vec<KeyDifference>,
    /// Task, and protocol and list of images of the evaluations.
    pub data: Vec<KeyDifference>,
    /// Every number of the last evaluations.
    pub metrics: Vec<Pair>,
    /// Seconds of a step, part by part, `total` last; then `peak_bytes`.
    pub costs: Vec<Pair>,
    /// Why the metrics do not compare, or may not.
    pub cautions: Vec<String>,
}

/// A number of two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// Its name.
    pub name: String,
    /// Of the first; none: undefined, or it has no such number.
    pub a: Option<f64>,
    /// Likewise of the second.
    pub b: Option<f64>,
    /// `b − a`.
    pub difference: Option<f64>,
}

/// Compares two runs.
#[must_use]
pub fn compare(a: &Run, b: &Run) -> Comparison {
    let settings = match (&a.config, &b.config) {
        (Some(a), Some(b)) => differences(a, b),
        _ => Vec::new(),
    };
    let (without_effect, configuration) = settings
        .into_iter()
        .partition(|difference| is_without_effect(&difference.key));
    let metrics = pairs(values(a), values(b), is_defined);
    let data = by_key(data(a), data(b));
    let cautions = cautions(a, b, &data);
    Comparison {
        configuration,
        without_effect,
        environment: by_key(facts(a), facts(b)),
        plugins: by_key(plugins(a), plugins(b)),
        data,
        metrics,
        costs: pairs(costs(a), costs(b), |_| true),
        cautions,
    }
}

/// Whether a setting cannot change what a run gives, as
/// [`config_hash`](crate::engine::train::config_hash) has it. The device is one of those there, because
/// a checkpoint of one is continued on another; here it is not: roundings and times differ.
fn is_without_effect(key: &str) -> bool {
    let of_method = key.strip_prefix("distill.").map(|key| {
        let own = key.strip_prefix("methods.").and_then(|entry| {
            // A label in quotes may hold dots.
            entry.rsplit_once('.').filter(|(label, _)| {
                !label.contains('.') || (label.starts_with('"') && label.ends_with('"'))
            })
        });
        own.map_or(key, |(_, key)| key)
    });
    match of_method {
        Some(key) => ["pretrain", "gate"].contains(&key),
        None => [
            "output_dir",
            "cache_dir",
            "data.workers",
            "train.log_interval_iters",
        ]
        .contains(&key),
    }
}

type Facts = BTreeMap<String, String>;

fn by_key(a: Facts, mut b: Facts) -> Vec<KeyDifference> {
    let mut found = Vec::new();
    for (key, a) in a {
        let b = b.remove(&key);
        if b.as_ref() != Some(&a) {
            let a = Some(a);
            found.push(KeyDifference { key, a, b });
        }
    }
    found.extend(b.into_iter().map(|(key, b)| KeyDifference {
        key,
        a: None,
        b: Some(b),
    }));
    found.sort_by(|one, other| one.key.cmp(&other.key));
    found
}

/// What the run ran on, without its plugins.
fn facts(run: &Run) -> Facts {
    run.environment.as_ref().map(facts_of).unwrap_or_default()
}

/// Facts of an environment by name, without its plugins.
#[must_use]
pub fn facts_of(environment: &Environment) -> BTreeMap<String, String> {
    let Ok(Json::Object(facts)) = serde_json::to_value(environment) else {
        unreachable!("an environment is an object of plain data")
    };
    let facts = facts.into_iter().filter(|(key, _)| key != "plugins");
    facts
        .filter_map(|(key, value)| match value {
            Json::Null => None,
            Json::String(text) => Some((key, text)),
            other => Some((key, other.to_string())),
        })
        .collect()
}

fn plugins(run: &Run) -> Facts {
    let mut facts = Facts::new();
    let plugins = run.environment.iter().flat_map(|e| &e.plugins);
    for (label, plugin) in plugins {
        let version = plugin.manifest["version"].as_str().unwrap_or("unknown");
        for (key, value) in [
            ("sha256", plugin.sha256.as_str()),
            ("method", &plugin.method),
            ("version", version),
        ] {
            facts.insert(format!("{label}.{key}"), value.to_owned());
        }
    }
    facts
}

fn data(run: &Run) -> Facts {
    let mut facts = Facts::new();
    if let Some(config) = &run.config {
        facts.insert("task".into(), config.task.name().into());
    }
    if let Some(evaluation) = &run.evaluation {
        let known = [
            ("protocol", &evaluation.protocol),
            ("image_list_hash", &evaluation.image_list_hash),
        ];
        let known = known.into_iter();
        facts.extend(known.filter_map(|(key, value)| Some((key.into(), value.clone()?))));
    }
    facts
}

fn cautions(a: &Run, b: &Run, data: &[KeyDifference]) -> Vec<String> {
    let mut cautions = Vec::new();
    let (Some(of_a), Some(of_b)) = (&a.evaluation, &b.evaluation) else {
        return cautions;
    };
    let different: Vec<&str> = data
        .iter()
        .filter(|difference| difference.a.is_some() && difference.b.is_some())
        .map(|difference| match difference.key.as_str() {
            "image_list_hash" => "lists of images",
            "task" => "tasks",
            _ => "protocols",
        })
        .collect();
    if !different.is_empty() {
        cautions.push(format!(
            "the numbers do not compare: the evaluations have different {}",
            different.join(" and ")
        ));
    }
    for (name, evaluation) in [("A", of_a), ("B", of_b)] {
        if let Some(iter) = evaluation.iter {
            cautions.push(format!(
                "{name} has not ended: its numbers are those after iter {iter}, whose protocol and list \
                 of images are not recorded"
            ));
        }
    }
    cautions
}

fn values(run: &Run) -> Vec<(String, f64)> {
    let evaluation: Option<&Evaluation> = run.evaluation.as_ref();
    evaluation.map_or_else(Vec::new, |evaluation| evaluation.values.clone())
}

fn costs(run: &Run) -> Vec<(String, f64)> {
    let mut costs = run.costs.parts.clone();
    costs.extend(run.costs.total().map(|total| ("total".into(), total)));
    let peak = run.costs.peak_bytes.map(|bytes| bytes as f64);
    costs.extend(peak.map(|bytes| ("peak_bytes".into(), bytes)));
    costs
}

/// Undefined metrics are negative or NaN.
fn is_defined(value: f64) -> bool {
    value >= 0.0
}

/// Numbers of the same name, in the order of the first, then what the second has alone.
fn pairs(a: Vec<(String, f64)>, b: Vec<(String, f64)>, is_defined: fn(f64) -> bool) -> Vec<Pair> {
    let find = |values: &[(String, f64)], name: &str| {
        let found = values.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| *value).filter(|v| is_defined(*v))
    };
    let alone = b
        .iter()
        .filter(|(name, _)| a.iter().all(|(n, _)| n != name));
    let names = a.iter().chain(alone).map(|(name, _)| name.clone());
    names
        .map(|name| {
            let (a, b) = (find(&a, &name), find(&b, &name));
            let difference = a.zip(b).map(|(a, b)| b - a);
            Pair {
                name,
                a,
                b,
                difference,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
