//! `--plugin`, given once or several times.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::MethodConfig;
use super::error::ConfigError;
use super::layers::{Origin, Tree};

const ORIGIN: Origin = Origin::Flag("--plugin");

/// Lays the plugins of the command line over what is there: one as `distill.plugin`, several as
/// entries of `distill.methods` named after the files. `none` leaves no method.
///
/// # Errors
/// If `none` stands beside another, or two files give one name.
pub(super) fn overlay(tree: &mut Tree, plugins: &[String]) -> Result<(), ConfigError> {
    let set = |tree: &mut Tree, path: &[&str], value: Value| {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        tree.overlay_at(&path, value, &ORIGIN);
    };
    if let [only] = plugins {
        if only == MethodConfig::NO_PLUGIN {
            tree.replace(&["distill", "methods"], Value::Table(Table::new()), &ORIGIN);
        }
        set(tree, &["distill", "plugin"], Value::String(only.clone()));
        return Ok(());
    }
    let mut named: BTreeMap<String, &String> = BTreeMap::new();
    for plugin in plugins {
        if plugin == MethodConfig::NO_PLUGIN {
            return Err(ConfigError::PluginFlags {
                reason: "`--plugin none` is plain training and stands beside no other".to_owned(),
            });
        }
        let label = label(plugin);
        if let Some(other) = named.insert(label.clone(), plugin) {
            return Err(ConfigError::PluginFlags {
                reason: format!(
                    "`--plugin {other}` and `--plugin {plugin}` would both be called `{label}`; \
                     name them in a configuration file, as `[distill.methods.FIRST]` and \
                     `[distill.methods.SECOND]`, each with its `plugin`"
                ),
            });
        }
        let plugin = Value::String(plugin.clone());
        set(tree, &["distill", "methods", &label, "plugin"], plugin);
    }
    Ok(())
}

/// What a method is called after its file: `name` of `libkd_name.so`. Characters that a label may
/// not have become `_`.
fn label(plugin: &str) -> String {
    let name = Path::new(plugin).file_stem().unwrap_or_default();
    let name = name.to_string_lossy();
    let bare = name.strip_prefix("lib").unwrap_or(&name);
    let bare = bare.strip_prefix("kd_").unwrap_or(bare);
    let legal = |c: char| if fits_label(c) { c } else { '_' };
    bare.chars().map(legal).collect()
}

/// Labels stand in names of metrics and of tensors, before a dot or a slash.
pub(super) fn fits_label(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_the_files_bare_names() {
        for (plugin, expected) in [
            ("libkd_one.so", "one"),
            ("./target/libkd_a-b.so", "a-b"),
            ("/x/libother.so", "other"),
            ("odd name.v2.so", "odd_name_v2"),
        ] {
            assert_eq!(label(plugin), expected);
        }
    }
}
