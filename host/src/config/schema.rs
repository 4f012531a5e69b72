//! Values checked against a JSON Schema, with messages for people and defaults filled in.
//!
//! A subset of draft 2020-12, enough for what `schemars` derives from configuration structs:
//! `type`, `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`,
//! `prefixItems`, `minItems`, `maxItems`, `minLength`, `maxLength`, `minimum`, `maximum`,
//! `exclusiveMinimum`, `exclusiveMaximum`, `allOf`, `anyOf`, `oneOf`, `$defs` and local `$ref`.
//! Annotations are ignored, `x-…` among them; any other keyword makes the schema unusable, because a
//! check that is silently left out is worse than none.
//!
//! Differs from the standard in three points, each towards catching mistakes:
//! - an object schema with `properties` is closed unless `additionalProperties` opens it;
//! - an `integer` must be written without a fraction (`2.0` is refused), as serde demands;
//! - an integer given for a `number` becomes a float, so that `1` and `1.0` are the same text.
//!
//! The crate `jsonschema` was weighed: without its network features it still brings some twenty
//! crates (regular expressions, big fractions, UUIDs, e-mail addresses) for keywords we refuse, and
//! neither nearest names nor defaults.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::error::{ConfigError, Problem, ProblemKind};
use super::layers::Origin;

mod check;
mod keywords;
mod words;

/// Checks the configuration of `method`, which stands at `key` (`distill.config`, or that of an entry),
/// against the schema in its manifest.
///
/// Returns canonical JSON: defaults filled in, keys sorted, no white space, numbers finite. Equal
/// configurations give equal bytes.
///
/// # Errors
/// [`ConfigError::Invalid`] with all problems; [`ConfigError::Schema`] if the schema is unusable.
pub fn check_plugin_config(
    schema: &Json,
    config: &BTreeMap<String, Json>,
    key: &str,
    method: &str,
) -> Result<String, ConfigError> {
    check_plugin_schema(schema, method)?;
    let unusable = |reason| ConfigError::Schema {
        method: method.to_owned(),
        reason,
    };
    let mut value = Json::Object(config.clone().into_iter().collect());
    let base: Vec<String> = key.split('.').map(str::to_owned).collect();
    let findings = check::check(schema, &mut value, &base).map_err(unusable)?;
    if findings.is_empty() {
        // Another crate may switch serde_json to insertion order; the text must not depend on it.
        value.sort_all_objects();
        return Ok(value.to_string());
    }
    let problems = findings.into_iter().map(|finding| Problem {
        key: join(&finding.path),
        origin: Some(Origin::Method(method.to_owned())),
        kind: finding.kind,
    });
    Err(ConfigError::Invalid {
        problems: problems.collect(),
    })
}

/// Checks that the schema in the manifest of `method` uses supported keywords alone.
///
/// # Errors
/// [`ConfigError::Schema`] naming the place in the schema.
pub fn check_plugin_schema(schema: &Json, method: &str) -> Result<(), ConfigError> {
    keywords::supported(schema).map_err(|reason| ConfigError::Schema {
        method: method.to_owned(),
        reason,
    })
}

/// One thing wrong at one place. List positions are segments of their own: `[2]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) path: Vec<String>,
    pub(super) kind: ProblemKind,
}

/// Checks `value` against the schema derived from our own structs.
pub(super) fn check(schema: &Json, value: &mut Json) -> Vec<Finding> {
    check::check(schema, value, &[]).expect("a test checks the derived schema")
}

/// Key paths that carry `x-path`, with its value; `*` stands for any key of a table with free keys.
pub(super) fn marked_paths(schema: &Json) -> Vec<(Vec<String>, String)> {
    let mut marked = Vec::new();
    words::walk_all(schema, &mut |path, property| {
        if let Some(kind) = property.get("x-path").and_then(Json::as_str) {
            marked.push((path.to_vec(), kind.to_owned()));
        }
    });
    marked
}

/// `train.milestones[2]`.
pub(super) fn join(path: &[String]) -> String {
    let mut text = String::new();
    for part in path {
        if !text.is_empty() && !part.starts_with('[') {
            text.push('.');
        }
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests;
