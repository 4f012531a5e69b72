//! Named entries take what they leave out from the table that stands for one alone: methods from
//! the embedded default of `[distill]`, teachers from `[teacher]` as it is configured.
//!
//! Methods not from a file's `[distill]`: that is a method of its own, and stands beside no entry.

use toml::{Table, Value};

use super::layers::{Origin, Tree};

/// Fills in what the entries of `tree` leave out; `base` is the embedded default.
pub(super) fn fill_in(tree: &mut Tree, base: &Table) {
    let single = methods_default(base);
    for label in names(&tree.values, &["distill", "methods"]) {
        let path = ["distill", "methods", &label].map(str::to_owned);
        let mut missing = Vec::new();
        let entry = at(&mut tree.values, &path);
        complete(entry, &single, &mut Vec::new(), &mut missing);
        for key in missing {
            tree.origins
                .set([&path[..], &key].concat(), Origin::Default);
        }
    }
    let Some(Value::Table(teacher)) = tree.values.get("teacher").cloned() else {
        return;
    };
    for name in names(&tree.values, &["teachers"]) {
        let path = ["teachers", &name].map(str::to_owned);
        let mut missing = Vec::new();
        let entry = at(&mut tree.values, &path);
        complete(entry, &teacher, &mut Vec::new(), &mut missing);
        for key in missing {
            let source = [&["teacher".to_owned()], &key[..]].concat();
            if let Some(origin) = tree.origins.of(&source).cloned() {
                tree.origins.set([&path[..], &key].concat(), origin);
            }
        }
    }
}

/// The keys of `[distill]` for a single method, with their defaults.
pub(super) fn methods_default(base: &Table) -> Table {
    let mut single = match base.get("distill") {
        Some(Value::Table(single)) => single.clone(),
        _ => Table::new(),
    };
    single.remove("methods");
    single
}

/// Names of the tables below `path`. What is no table is left to the check.
fn names(values: &Table, path: &[&str]) -> Vec<String> {
    let mut table = values;
    for key in path {
        match table.get(*key) {
            Some(Value::Table(below)) => table = below,
            _ => return Vec::new(),
        }
    }
    let tables = table.iter().filter(|(_, value)| value.is_table());
    tables.map(|(name, _)| name.clone()).collect()
}

fn at<'t>(values: &'t mut Table, path: &[String]) -> &'t mut Table {
    path.iter().fold(values, |table, key| {
        let below = table.get_mut(key).and_then(Value::as_table_mut);
        below.expect("`names` has found this table")
    })
}

/// Inserts what `entry` lacks of `defaults`, tables key by key, and notes the paths of it.
fn complete(
    entry: &mut Table,
    defaults: &Table,
    path: &mut Vec<String>,
    missing: &mut Vec<Vec<String>>,
) {
    for (key, default) in defaults {
        path.push(key.clone());
        match (entry.get_mut(key), default) {
            (None, _) => {
                entry.insert(key.clone(), default.clone());
                missing.push(path.clone());
            }
            (Some(Value::Table(entry)), Value::Table(defaults)) => {
                complete(entry, defaults, path, missing);
            }
            (Some(_), _) => {}
        }
        path.pop();
    }
}
