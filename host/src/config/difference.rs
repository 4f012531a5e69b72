//! Configurations key by key, and where two of them differ.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use toml::{Table, Value};

use super::Config;

/// A key under which two configurations have different values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyDifference {
    /// Dotted, as `--set` takes it.
    pub key: String,
    /// TOML text of the first one's value; none: it has no such key.
    pub a: Option<String>,
    /// Likewise the second one's.
    pub b: Option<String>,
}

/// Every setting: dotted keys as `--set` takes them, and TOML text of their values. A table without
/// keys is a value of its own, `{}`.
#[must_use]
pub fn flat(config: &Config) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    each_setting(&table(config), &mut Vec::new(), &mut |path, value| {
        settings.insert(dotted(path), value.to_string());
    });
    settings
}

/// Where `a` and `b` differ, by key in ascending order. Entries that one of them alone has
/// (of `distill.methods`, `teachers`) are given key by key, without a word on the table that is
/// empty in the other.
#[must_use]
pub fn differences(a: &Config, b: &Config) -> Vec<KeyDifference> {
    let is_no_key = |value: &Option<String>| value.as_deref().is_none_or(|text| text == "{}");
    let mut found = differences_of(&flat(a), &flat(b));
    found.retain(|found| !(is_no_key(&found.a) && is_no_key(&found.b)));
    found
}

/// Where two maps differ, by key in ascending order.
#[must_use]
pub fn differences_of(
    a: &BTreeMap<String, String>,
    b: &BTreeMap<String, String>,
) -> Vec<KeyDifference> {
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let pairs = keys.into_iter().map(|key| KeyDifference {
        key: key.clone(),
        a: a.get(key).cloned(),
        b: b.get(key).cloned(),
    });
    pairs.filter(|pair| pair.a != pair.b).collect()
}

/// As a table of TOML.
pub(super) fn table(config: &Config) -> Table {
    // By way of text: a direct conversion would widen f32 and print its binary digits.
    toml::from_str(&config.to_toml()).expect("own output parses")
}

/// Hands every value that is no table with keys to `visit`, with the path of its key, in the order
/// of `table`.
pub(super) fn each_setting(
    table: &Table,
    path: &mut Vec<String>,
    visit: &mut dyn FnMut(&[String], &Value),
) {
    for (key, value) in table {
        path.push(key.clone());
        match value {
            Value::Table(below) if !below.is_empty() => each_setting(below, path, visit),
            value => visit(path, value),
        }
        path.pop();
    }
}

/// The key at `path`, in quotes where TOML wants them.
pub(super) fn dotted(path: &[String]) -> String {
    let parts: Vec<String> = path.iter().map(|part| quoted(part)).collect();
    parts.join(".")
}

fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        Value::String(key.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn with(set: &[&str]) -> Config {
        let set = set.iter().map(|text| (*text).to_owned()).collect();
        let sources = Sources {
            set,
            ..Sources::default()
        };
        sources.resolve().unwrap().config
    }

    fn said(a: &Config, b: &Config) -> Vec<String> {
        let found = differences(a, b).into_iter();
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".into());
        found
            .map(|one| format!("{}: {} | {}", one.key, text(one.a), text(one.b)))
            .collect()
    }

    #[test]
    fn every_setting_can_be_set_by_its_key() {
        let methods = [
            "distill.methods.hint.plugin=libm.so",
            "distill.methods.a-b.plugin=libn.so",
            "distill.methods.hint.config.weight=0.1",
            "distill.methods.hint.config.levels=[1, 2]",
            "distill.methods.hint.config.\"with.dot\"=\"a\\\"b\"",
            "train.lr=0.003",
        ];
        for config in [Config::base(), with(&methods)] {
            let settings = flat(&config);
            let set: Vec<String> = settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let set: Vec<&str> = set.iter().map(String::as_str).collect();
            assert_eq!(with(&set), config);
        }
    }

    #[test]
    fn values_are_short_decimals_and_keys_are_dotted() {
        let settings = flat(&with(&["train.lr=0.1", "student.focal_gamma=1.7"]));
        assert_eq!(settings["train.lr"], "0.1");
        assert_eq!(settings["student.focal_gamma"], "1.7");
        assert_eq!(settings["task"], "\"detection\"");
        assert_eq!(settings["teachers"], "{}");
    }

    #[test]
    fn differences_name_key_and_both_values() {
        let base = Config::base();
        assert_eq!(said(&base, &base), [""; 0]);
        let other = with(&["seed=7", "train.lr=0.5"]);
        let (seed, lr) = (base.seed, &flat(&base)["train.lr"]);
        assert_eq!(
            said(&base, &other),
            [format!("seed: {seed} | 7"), format!("train.lr: {lr} | 0.5")]
        );
    }

    #[test]
    fn entries_that_one_has_alone_are_given_key_by_key() {
        let base = Config::base();
        let other = with(&["distill.methods.hint.plugin=libm.so"]);
        let keys: Vec<String> = said(&base, &other);
        assert!(
            keys.contains(&"distill.methods.hint.plugin: - | \"libm.so\"".to_owned()),
            "{keys:?}"
        );
        assert!(
            keys.iter().all(|line| !line.ends_with("{}")),
            "an empty table is no difference beside its entries: {keys:?}"
        );
        let back: Vec<String> = said(&other, &base);
        assert_eq!(back.len(), keys.len());
        assert!(back.contains(&"distill.methods.hint.plugin: \"libm.so\" | -".to_owned()));
    }
}
