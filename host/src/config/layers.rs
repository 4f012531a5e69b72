//! Layers of TOML: later ones win, tables are merged key by key, everything else is replaced.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Task;
use super::error::{ConfigError, shown};

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The embedded `configs/base.toml`.
    Default,
    /// The embedded default of a task, `configs/task/NAME.toml`.
    Task(Task),
    /// A file.
    File(PathBuf),
    /// `--set`, as given.
    Set(String),
    /// A flag of its own, such as `--seed`.
    Flag(&'static str),
    /// The configuration of the method with this id, wherever it was set.
    Method(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "the embedded default"),
            Origin::Task(task) => write!(f, "the embedded default of `--task {}`", task.name()),
            Origin::File(path) => write!(f, "{}", shown(path)),
            Origin::Set(text) => write!(f, "`--set {text}`"),
            Origin::Flag(flag) => write!(f, "`{flag}`"),
            Origin::Method(id) => write!(f, "the configuration of method `{id}`"),
        }
    }
}

/// Who set each value, by key path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origins(BTreeMap<Vec<String>, Origin>);

impl Origins {
    /// Who set the value at `path`, or the table it stands in, or something in the table it is.
    #[must_use]
    pub fn of(&self, path: &[String]) -> Option<&Origin> {
        for end in (0..=path.len()).rev() {
            if let Some(origin) = self.0.get(&path[..end]) {
                return Some(origin);
            }
        }
        let below = self.0.range(path.to_vec()..).next();
        below.filter(|(p, _)| p.starts_with(path)).map(|(_, o)| o)
    }

    pub(super) fn set(&mut self, path: Vec<String>, origin: Origin) {
        self.0.insert(path, origin);
    }

    fn forget_below(&mut self, path: &[String]) {
        self.0.retain(|p, _| !p.starts_with(path));
    }

    fn record(&mut self, path: &mut Vec<String>, value: &Value, origin: &Origin) {
        match value {
            Value::Table(table) if !table.is_empty() => {
                for (key, value) in table {
                    path.push(key.clone());
                    self.record(path, value, origin);
                    path.pop();
                }
            }
            _ => {
                self.0.insert(path.clone(), origin.clone());
            }
        }
    }
}

/// A tree of values and who set them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) values: Table,
    pub(super) origins: Origins,
}

impl Tree {
    /// Lays `layer` over what is there.
    pub(super) fn overlay(&mut self, layer: Table, origin: &Origin) {
        overlay(
            &mut self.values,
            layer,
            origin,
            &mut Vec::new(),
            &mut self.origins,
        );
    }

    /// Lays a file over what is there, after the files that it extends.
    pub(super) fn overlay_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        self.file_after_parents(path, &mut Vec::new())
    }

    fn file_after_parents(
        &mut self,
        path: &Path,
        chain: &mut Vec<PathBuf>,
    ) -> Result<(), ConfigError> {
        let unreadable = |source| ConfigError::Read {
            path: path.to_path_buf(),
            from: chain.last().cloned(),
            source,
        };
        // Canonical, so that a circle is seen whichever way its files are spelled.
        let file = path.canonicalize().map_err(unreadable)?;
        let text = std::fs::read_to_string(&file).map_err(unreadable)?;
        if let Some(start) = chain.iter().position(|p| *p == file) {
            let mut chain = chain[start..].to_vec();
            chain.push(file);
            return Err(ConfigError::Cycle { chain });
        }
        let mut layer: Table = toml::from_str(&text).map_err(|source| ConfigError::Syntax {
            path: file.clone(),
            source: Box::new(source),
        })?;
        let parents = take_extends(&mut layer, &file)?;
        let folder = file.parent().expect("a file has a folder").to_path_buf();
        chain.push(file.clone());
        for parent in parents {
            self.file_after_parents(&folder.join(parent), chain)?;
        }
        chain.pop();
        self.overlay(layer, &Origin::File(file));
        Ok(())
    }

    /// Lays one `key=value` over what is there. The value is TOML, or else a string.
    pub(super) fn overlay_set(&mut self, text: &str) -> Result<(), ConfigError> {
        let form = || ConfigError::SetForm {
            text: text.to_owned(),
        };
        let (key, value) = text.split_once('=').ok_or_else(form)?;
        let (key, value) = (key.trim(), value.trim());
        let value = value
            .parse::<Value>()
            .unwrap_or_else(|_| Value::String(value.to_owned()));
        let path = dotted(key).ok_or_else(form)?;
        self.overlay_at(&path, value, &Origin::Set(text.to_owned()));
        Ok(())
    }

    /// Lays one value over what is there.
    pub(super) fn overlay_at(&mut self, path: &[String], value: Value, origin: &Origin) {
        let nested = path.iter().rev().fold(value, |value, key| {
            Value::Table(Table::from_iter([(key.clone(), value)]))
        });
        match nested {
            Value::Table(layer) => self.overlay(layer, origin),
            _ => unreachable!("key paths are not empty"),
        }
    }

    /// Puts a value in the place of what is there, a table too.
    pub(super) fn replace(&mut self, path: &[&str], value: Value, origin: &Origin) {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        // What is no table gives way to one.
        self.overlay_at(&path, Value::Boolean(false), origin);
        self.overlay_at(&path, value, origin);
    }
}

fn overlay(
    base: &mut Table,
    layer: Table,
    origin: &Origin,
    path: &mut Vec<String>,
    origins: &mut Origins,
) {
    for (key, value) in layer {
        path.push(key.clone());
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(layer)) => {
                if below.is_empty() && !layer.is_empty() {
                    origins.forget_below(path);
                }
                overlay(below, layer, origin, path, origins);
            }
            (_, value) => {
                origins.forget_below(path);
                origins.record(path, &value, origin);
                base.insert(key, value);
            }
        }
        path.pop();
    }
}

fn take_extends(layer: &mut Table, file: &Path) -> Result<Vec<String>, ConfigError> {
    let refused = |got: &Value| ConfigError::Extends {
        path: file.to_path_buf(),
        got: format!("{} `{got}`", got.type_str()),
    };
    match layer.remove("extends") {
        None => Ok(Vec::new()),
        Some(Value::String(parent)) => Ok(vec![parent]),
        Some(Value::Array(parents)) => parents
            .into_iter()
            .map(|parent| match parent {
                Value::String(parent) => Ok(parent),
                other => Err(refused(&other)),
            })
            .collect(),
        Some(other) => Err(refused(&other)),
    }
}

/// The parts of a dotted key, by TOML's own rules for quotes.
fn dotted(key: &str) -> Option<Vec<String>> {
    if key.contains(['\n', '\r']) {
        return None;
    }
    let mut table: Table = toml::from_str(&format!("{key} = 0")).ok()?;
    let mut path = Vec::new();
    loop {
        if table.len() != 1 {
            return None;
        }
        let (key, value) = table.into_iter().next()?;
        path.push(key);
        match value {
            Value::Table(next) => table = next,
            _ => return Some(path),
        }
    }
}
