//! A configuration as TOML.

use std::fmt::Write as _;

use super::Config;
use super::difference::{dotted, each_setting, table};
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
        let mut lines = Vec::new();
        each_setting(&table(&self.config), &mut Vec::new(), &mut |path, value| {
            let origin = self.origins.of(path).map(ToString::to_string);
            let origin = origin.unwrap_or_default().replace(['\n', '\r'], " ");
            lines.push((format!("{} = {value}", dotted(path)), origin));
        });
        let width = lines.iter().map(|(line, _)| line.chars().count()).max();
        let width = width.unwrap_or(0).min(60);
        let mut text = String::new();
        for (line, origin) in lines {
            writeln!(text, "{line:width$}  # {origin}").expect("strings grow");
        }
        text
    }
}
