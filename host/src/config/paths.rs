//! Paths in configuration files, made absolute.

use std::path::{Component, Path, PathBuf};

use serde_json::Value as Json;
use toml::Value;

use super::layers::{Origin, Tree};
use super::schema;

/// Makes each path that the schema marks with `x-path` absolute: relative to the folder of the file
/// that sets it, or to the working directory for flags. Empty ones stay empty: not set.
pub(super) fn absolutise(tree: &mut Tree, schema: &Json) {
    let values = Value::Table(tree.values.clone());
    let marked = schema::marked_paths(schema).into_iter();
    let marked = marked.flat_map(|(pattern, kind)| {
        let paths = present(&values, &pattern);
        paths.into_iter().map(move |path| (path, kind.clone()))
    });
    for (path, kind) in marked {
        let folder = match tree.origins.of(&path) {
            Some(Origin::File(file)) => file.parent().map(Path::to_path_buf),
            _ => std::env::current_dir().ok(),
        };
        let (Some(folder), Some(Value::String(text))) = (folder, value_at(tree, &path)) else {
            continue;
        };
        let is_path = kind == "file" || text.contains('/');
        if is_path && !text.is_empty() {
            *text = joined(&folder, Path::new(text.as_str()))
                .to_string_lossy()
                .into_owned();
        }
    }
}

/// The paths of `pattern` that are there; `*` stands for any key.
fn present(value: &Value, pattern: &[String]) -> Vec<Vec<String>> {
    let Some((first, rest)) = pattern.split_first() else {
        return vec![Vec::new()];
    };
    let table = value.as_table().into_iter().flatten();
    let fitting = table.filter(|(key, _)| first == "*" || first == *key);
    fitting
        .flat_map(|(key, below)| {
            let paths = present(below, rest).into_iter();
            paths.map(|path| [std::slice::from_ref(key), &path[..]].concat())
        })
        .collect()
}

fn value_at<'t>(tree: &'t mut Tree, path: &[String]) -> Option<&'t mut Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(tree.values.get_mut(first)?, |value, key| value.get_mut(key))
}

/// Joins, dropping `.` and leading `..`: the folder is canonical, so going up is plain.
fn joined(folder: &Path, path: &Path) -> PathBuf {
    let mut out = folder.to_path_buf();
    let mut leading = true;
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if leading => {
                out.pop();
            }
            part => {
                leading = false;
                out.push(part);
            }
        }
    }
    out
}
