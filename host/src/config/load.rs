//! From sources to a checked [`Config`].

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use toml::{Table, Value};

use super::error::{ConfigError, Problem, ProblemKind};
use super::layers::{Origin, Origins, Tree};
use super::schema::Finding;
use super::{Config, Task, image_size, inherit, paths, plugins, schema, validate};

/// Embedded, so that the binary works on its own. `host/configs` is a link to `configs/`, which
/// `cargo package` follows.
const BASE: &str = include_str!("../../configs/base.toml");

/// What the default is for segmentation, over [`BASE`].
const SEGMENTATION: &str = include_str!("../../configs/task/segmentation.toml");

/// Likewise for classification.
const CLASSIFICATION: &str = include_str!("../../configs/task/classification.toml");

/// What a configuration is put together from, weakest first: the embedded default, that of the task,
/// `files`, `set`, `flags`, `plugins`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    /// TOML files, each after the files that it `extends`; later files win.
    pub files: Vec<PathBuf>,
    /// `key=value` with a dotted key; the value is TOML, or else a string.
    pub set: Vec<String>,
    /// Values of flags of their own.
    pub flags: Vec<Flag>,
    /// `--plugin` as often as it was given: one sets `distill.plugin`, several make entries of
    /// `distill.methods`.
    pub plugins: Vec<String>,
}

/// A value given by a flag of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// For messages: `--seed`.
    pub name: &'static str,
    /// The key it sets: `seed`.
    pub key: &'static str,
    /// The value.
    pub value: Value,
}

/// A checked configuration and who set its values.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The configuration.
    pub config: Config,
    /// Who set each value.
    pub origins: Origins,
}

impl Sources {
    /// Merges and checks.
    ///
    /// # Errors
    /// If a file cannot be read, or with every key that is unknown, of the wrong type, out of range
    /// or at odds with another.
    pub fn resolve(&self) -> Result<Resolved, ConfigError> {
        let mut tree = Tree::default();
        tree.overlay(base(), &Origin::Default);
        let mut asked = tree.clone();
        self.lay_over(&mut asked)?;
        if let Some((task, layer)) = of_task(&asked) {
            tree.overlay(layer, &Origin::Task(task));
            self.lay_over(&mut tree)?;
        } else {
            tree = asked;
        }
        checked(tree)
    }

    /// Lays everything but the embedded defaults over `tree`.
    fn lay_over(&self, tree: &mut Tree) -> Result<(), ConfigError> {
        for file in &self.files {
            tree.overlay_file(file)?;
        }
        for text in &self.set {
            tree.overlay_set(text)?;
        }
        for flag in &self.flags {
            let path: Vec<String> = flag.key.split('.').map(str::to_owned).collect();
            tree.overlay_at(&path, flag.value.clone(), &Origin::Flag(flag.name));
        }
        plugins::overlay(tree, &self.plugins)
    }
}

/// The task that `tree` asks for, and its defaults, where it is not the one of the embedded default.
/// What is no task is refused with everything else.
fn of_task(tree: &Tree) -> Option<(Task, Table)> {
    let name = tree.values.get("task")?.as_str()?;
    let layers = [
        (Task::Segmentation, SEGMENTATION),
        (Task::Classification, CLASSIFICATION),
    ];
    let (task, text) = layers.into_iter().find(|(task, _)| task.name() == name)?;
    let layer = toml::from_str(text).expect("a test resolves the task's default");
    Some((task, layer))
}

/// The embedded default as written.
fn base() -> Table {
    toml::from_str(BASE).expect("a test parses the embedded default")
}

impl Config {
    /// The embedded default: tiny detectors on `shapes`.
    #[must_use]
    pub fn base() -> Config {
        Sources::default()
            .resolve()
            .expect("a test resolves the embedded default")
            .config
    }

    /// The settings that the run in `folder` was started with.
    ///
    /// # Errors
    /// If there is no run, or its settings are not ones that this version accepts.
    pub fn of_run(folder: &Path) -> Result<Config, ConfigError> {
        let files = vec![folder.join("config.resolved.toml")];
        Ok(Sources {
            files,
            ..Sources::default()
        }
        .resolve()?
        .config)
    }
}

fn checked(mut tree: Tree) -> Result<Resolved, ConfigError> {
    let schema = schemars::schema_for!(Config).to_value();
    paths::absolutise(&mut tree, &schema);
    inherit::fill_in(&mut tree, &base());
    let Tree {
        values,
        mut origins,
    } = tree;
    let mut findings = Vec::new();
    let mut json = to_json(&Value::Table(values), &mut Vec::new(), &mut findings);
    if findings.is_empty() {
        findings = schema::check(&schema, &mut json);
    }
    if !findings.is_empty() {
        return Err(invalid(findings, &origins));
    }
    let mut config: Config =
        serde_json::from_value(json).expect("what the derived schema accepts deserialises");
    image_size::fill_in(&mut config, &mut origins);
    let findings = validate::rules(&config, &single_default());
    if !findings.is_empty() {
        return Err(invalid(findings, &origins));
    }
    Ok(Resolved { config, origins })
}

/// What `[distill]` says of a single method where nobody sets anything.
fn single_default() -> Json {
    let single = Value::Table(inherit::methods_default(&base()));
    to_json(&single, &mut Vec::new(), &mut Vec::new())
}

fn invalid(findings: Vec<Finding>, origins: &Origins) -> ConfigError {
    let problems = findings.into_iter().map(|finding| Problem {
        key: schema::join(&finding.path),
        origin: origins.of(&finding.path).cloned(),
        kind: finding.kind,
    });
    ConfigError::Invalid {
        problems: problems.collect(),
    }
}

/// TOML has dates and non-finite floats, JSON has neither: they are refused here, because a
/// conversion would turn them into something else without a word.
fn to_json(value: &Value, path: &mut Vec<String>, findings: &mut Vec<Finding>) -> Json {
    let mut refuse = |expected: &str, path: &[String]| {
        findings.push(Finding {
            path: path.to_vec(),
            kind: ProblemKind::Value {
                expected: expected.to_owned(),
                got: format!("`{value}`"),
                nearest: None,
            },
        });
        Json::Null
    };
    match value {
        Value::String(text) => Json::String(text.clone()),
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) if number.is_finite() => Json::from(*number),
        Value::Float(_) => refuse("a finite number", path),
        Value::Boolean(flag) => Json::Bool(*flag),
        Value::Datetime(_) => refuse("a string (put the date in quotes)", path),
        Value::Array(items) => {
            let mut out = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                path.push(format!("[{index}]"));
                out.push(to_json(item, path, findings));
                path.pop();
            }
            Json::Array(out)
        }
        Value::Table(table) => {
            let mut out = serde_json::Map::new();
            for (key, value) in table {
                path.push(key.clone());
                out.insert(key.clone(), to_json(value, path, findings));
                path.pop();
            }
            Json::Object(out)
        }
    }
}

#[cfg(test)]
mod tests;
