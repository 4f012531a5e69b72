//! The manifest: what a host learns of a plugin without running it.
//!
//! A part depends on the author's types alone: it is generated, committed as `methods.json` beside
//! the plugin's `Cargo.toml`, and compared with the types by a test. The rest (version, compiler,
//! target) is put around it at compile time, so that the committed file never goes stale by itself.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::MethodError;
use crate::config;
use crate::raw::RawMethod;

/// The manifest's entry of one method.
///
/// # Errors
/// If the configuration has no schema that hosts understand.
pub fn method<R: RawMethod>() -> Result<Value, MethodError> {
    let taps: Vec<Value> = R::TAPS
        .iter()
        .map(|tap| {
            json!({
                "role": tap.role,
                "pattern": tap.pattern,
                "grad": tap.grad,
                "optional": tap.optional,
            })
        })
        .collect();
    Ok(json!({
        "id": R::ID,
        "title": R::TITLE,
        "doc": R::DOC,
        "deterministic": true,
        "config_schema": config::schema::<R::Config>().map_err(|error| error.at(R::ID))?,
        "taps": taps,
        "targets": R::TARGETS,
        "losses": R::LOSSES,
        "maps": R::MAPS,
        "metrics": R::METRICS,
        "dtypes": ["f32"],
    }))
}

/// Compares `methods.json` in `dir` with what the types say; writes it if the environment variable
/// `KD_UPDATE_MANIFEST` is `1`.
///
/// # Errors
/// If they differ; the message says how to regenerate the file.
pub fn check_file(dir: &str, methods: Vec<Value>) -> Result<(), String> {
    let path = Path::new(dir).join("methods.json");
    let sorted = sorted(Value::Array(methods));
    let mut generated = serde_json::to_string_pretty(&sorted).map_err(|e| e.to_string())?;
    generated.push('\n');
    if std::env::var_os("KD_UPDATE_MANIFEST").is_some_and(|value| value == "1") {
        return fs::write(&path, &generated).map_err(|e| format!("{}: {e}", path.display()));
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    if committed == generated {
        return Ok(());
    }
    let line = committed
        .lines()
        .zip(generated.lines())
        .position(|(a, b)| a != b)
        .unwrap_or_else(|| committed.lines().count().min(generated.lines().count()));
    Err(format!(
        "{} differs from the method's types at line {}: run \
         `KD_UPDATE_MANIFEST=1 cargo test --lib manifest` and commit the file",
        path.display(),
        line + 1
    ))
}

/// Keys in alphabetical order, whatever `serde_json`'s features are in this build.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect(),
            )
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}
