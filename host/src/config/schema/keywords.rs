//! Which schemas are usable: every keyword is one that the walk knows.

use serde_json::Value as Json;

use super::words;

/// Keywords without effect on the check.
const ANNOTATIONS: [&str; 12] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
    "contentEncoding",
];

/// Says what in `schema` cannot be used, and where.
///
/// # Errors
/// Naming the first place that cannot be used.
pub(super) fn supported(schema: &Json) -> Result<(), String> {
    if !schema.is_object() {
        return Err(format!("expected an object, got `{schema}`"));
    }
    subschema(schema, schema, "#", 0)
}

fn subschema(root: &Json, schema: &Json, at: &str, depth: usize) -> Result<(), String> {
    if depth > 64 {
        return Err(format!("{at} is nested too deeply"));
    }
    let keywords = match schema {
        Json::Bool(_) => return Ok(()),
        Json::Object(keywords) => keywords,
        other => return Err(format!("{at}: expected a schema, got `{other}`")),
    };
    for (keyword, value) in keywords {
        let at = format!("{at}/{keyword}");
        let must = |holds: bool, what: &str| match holds {
            true => Ok(()),
            false => Err(format!("{at}: expected {what}, got `{value}`")),
        };
        match keyword.as_str() {
            "type" => must(is_type(value), "the name of a JSON type or a list of them")?,
            "const" => {}
            "enum" => must(
                value.as_array().is_some_and(|list| !list.is_empty()),
                "a list of values",
            )?,
            "required" => must(is_list_of_strings(value), "a list of names")?,
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                must(value.is_number(), "a number")?;
            }
            "minItems" | "maxItems" | "minLength" | "maxLength" => {
                must(value.is_u64(), "a count")?;
            }
            "properties" | "$defs" => {
                let Some(table) = value.as_object() else {
                    return must(false, "a table of schemas");
                };
                for (name, value) in table {
                    subschema(root, value, &format!("{at}/{name}"), depth + 1)?;
                }
            }
            "additionalProperties" | "items" => subschema(root, value, &at, depth + 1)?,
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => {
                let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
                    return must(false, "a list of schemas");
                };
                for (index, value) in list.iter().enumerate() {
                    subschema(root, value, &format!("{at}/{index}"), depth + 1)?;
                }
            }
            "$ref" => {
                words::target(root, value).map_err(|reason| format!("{at}: {reason}"))?;
            }
            annotation if ANNOTATIONS.contains(&annotation) || annotation.starts_with("x-") => {}
            other => {
                return Err(format!(
                    "the keyword `{other}` at {at} is not supported; supported: type, enum, const, \
                     properties, required, additionalProperties, items, prefixItems, \
                     minItems, maxItems, minLength, maxLength, minimum, maximum, \
                     exclusiveMinimum, exclusiveMaximum, allOf, anyOf, oneOf, $defs, $ref"
                ));
            }
        }
    }
    Ok(())
}

fn is_type(value: &Json) -> bool {
    let known = |value: &Json| {
        let names = [
            "null", "boolean", "string", "integer", "number", "array", "object",
        ];
        value.as_str().is_some_and(|name| names.contains(&name))
    };
    match value {
        Json::Array(list) => !list.is_empty() && list.iter().all(known),
        value => known(value),
    }
}

fn is_list_of_strings(value: &Json) -> bool {
    value
        .as_array()
        .is_some_and(|list| list.iter().all(Json::is_string))
}
