//! A configuration as TOML.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::Config;
use super::load::Resolved;

impl Config {
    /// TOML that resolves to the same configuration.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a checked configuration is plain data")
    }
}

impl Resolved {
    /// TOML that resolves to the same configuration, one dotted key a line, each with who set it.
    #[must_use]
    pub fn to_toml_with_origins(&self) -> String {
        // By way of text: a direct conversion would widen f32 and print its binary digits.
        let table: Table = toml::from_str(&self.config.to_toml()).expect("own output parses");
        let mut lines = Vec::new();
        flatten(&table, &mut Vec::new(), self, &mut lines);
        let width = lines.iter().map(|(line, _)| line.chars().count()).max();
        let width = width.unwrap_or(0).min(60);
        let mut text = String::new();
        for (line, origin) in lines {
            writeln!(text, "{line:width$}  # {origin}").expect("strings grow");
        }
        text
    }
}

fn flatten(
    table: &Table,
    path: &mut Vec<String>,
    resolved: &Resolved,
    lines: &mut Vec<(String, String)>,
) {
    for (key, value) in table {
        path.push(key.clone());
        match value {
            Value::Table(below) if !below.is_empty() => flatten(below, path, resolved, lines),
            value => {
                let key: Vec<String> = path.iter().map(|part| quoted(part)).collect();
                let origin = resolved.origins.of(path).map(ToString::to_string);
                let origin = origin.unwrap_or_default().replace(['\n', '\r'], " ");
                lines.push((format!("{} = {value}", key.join(".")), origin));
            }
        }
        path.pop();
    }
}

fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        Value::String(key.to_owned()).to_string()
    }
}
