//! A method's configuration: from the host's JSON to the author's struct.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::MethodError;

/// What a configuration struct must derive. Implemented for every type that does.
///
/// Doc comments become the descriptions that users read, `Default` the defaults; no serde
/// attributes are needed. Bounds go into `#[schemars(range(min = 0))]` and are checked by the host.
pub trait MethodConfig:
    Serialize + DeserializeOwned + JsonSchema + Default + Send + 'static
{
}

impl<T: Serialize + DeserializeOwned + JsonSchema + Default + Send + 'static> MethodConfig for T {}

/// The configuration of a method without options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
pub struct NoConfig {}

/// JSON Schema of `C` in the subset that hosts understand: `type`, `properties`, `required`,
/// `additionalProperties`, `enum`, `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`,
/// `items`, `minItems`, `maxItems`, `default`, `description`. No references.
///
/// # Errors
/// If the type needs anything else, or its default is not JSON.
pub fn schema<C: MethodConfig>() -> Result<Value, MethodError> {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.meta_schema = None;
        s.inline_subschemas = true;
    });
    let raw = settings.into_generator().into_root_schema_for::<C>();
    let default = serde_json::to_value(C::default())?;
    simplify(raw.to_value(), Some(&default), "config")
}

/// Fills what `text` leaves out with `C::default()` and reads it; unknown keys are errors.
pub(crate) fn read<C: MethodConfig>(text: &str) -> Result<C, MethodError> {
    let mut value = serde_json::to_value(C::default())?;
    if !text.trim().is_empty() {
        let given: Value = serde_json::from_str(text)
            .map_err(|error| MethodError::config(format!("configuration is not JSON: {error}")))?;
        merge(&mut value, given, "")?;
    }
    serde_json::from_value(value)
        .map_err(|error| MethodError::config(format!("configuration: {error}")))
}

fn merge(into: &mut Value, given: Value, path: &str) -> Result<(), MethodError> {
    match (into, given) {
        (Value::Object(known), Value::Object(given)) => {
            for (key, value) in given {
                let path = format!("{path}/{key}");
                let Some(slot) = known.get_mut(&key) else {
                    let names: Vec<&str> = known.keys().map(String::as_str).collect();
                    return Err(MethodError::config(format!(
                        "unknown key `{path}`; known are: {}",
                        names.join(", ")
                    )));
                };
                merge(slot, value, &path)?;
            }
            Ok(())
        }
        (into, given) => {
            *into = given;
            Ok(())
        }
    }
}

/// Rewrites what schemars emits into the documented subset.
fn simplify(schema: Value, default: Option<&Value>, path: &str) -> Result<Value, MethodError> {
    let Value::Object(mut raw) = schema else {
        return Err(unsupported(path, "a schema that accepts anything"));
    };
    let mut out = Map::new();
    if let Some(variants) = raw.remove("oneOf") {
        out.extend(enumeration(&variants, path)?);
        merge_description(&mut out, raw.remove("description"));
    }
    for (key, value) in raw {
        match key.as_str() {
            // `format` repeats the width of a number; `default` is taken from `Default`.
            "title" | "format" | "default" | "$schema" => {}
            "properties" => {
                out.insert(key, properties(value, default, path)?);
            }
            "items" => {
                out.insert(key, simplify(value, None, &format!("{path}[]"))?);
            }
            "type" | "enum" | "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum"
            | "minItems" | "maxItems" => {
                out.insert(key, value);
            }
            "description" => {
                // Doc comments are wrapped; users read them as one line.
                let text = value.as_str().unwrap_or_default().replace('\n', " ");
                out.insert(key, Value::from(text));
            }
            // Everything has a default, so nothing is required.
            "required" | "additionalProperties" => {}
            other => return Err(unsupported(path, other)),
        }
    }
    if out.get("type") == Some(&Value::from("object")) {
        out.entry("properties")
            .or_insert_with(|| Value::Object(Map::new()));
        out.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    if let Some(default) = default {
        out.insert("default".to_owned(), default.clone());
    }
    Ok(Value::Object(out))
}

fn properties(value: Value, default: Option<&Value>, path: &str) -> Result<Value, MethodError> {
    let Value::Object(properties) = value else {
        return Err(unsupported(path, "properties that are not an object"));
    };
    let mut out = Map::new();
    for (name, schema) in properties {
        let path = format!("{path}.{name}");
        let default = default.and_then(|d| d.get(&name));
        if default.is_none() {
            return Err(unsupported(
                &path,
                "a field that `Default` does not serialize",
            ));
        }
        out.insert(name, simplify(schema, default, &path)?);
    }
    Ok(Value::Object(out))
}

/// `oneOf` of documented constants, as schemars writes an enum with doc comments.
fn enumeration(variants: &Value, path: &str) -> Result<Map<String, Value>, MethodError> {
    let mut names = Vec::new();
    let mut lines = Vec::new();
    for variant in variants.as_array().into_iter().flatten() {
        let constants: Vec<Value> = match (variant.get("const"), variant.get("enum")) {
            (Some(name), _) => vec![name.clone()],
            (None, Some(Value::Array(list))) => list.clone(),
            _ => return Err(unsupported(path, "an enum variant with fields")),
        };
        for name in constants {
            if let (Some(text), Some(name)) = (variant.get("description"), name.as_str()) {
                lines.push(format!("`{name}`: {}", text.as_str().unwrap_or_default()));
            }
            names.push(name);
        }
    }
    let mut out = Map::new();
    out.insert("type".to_owned(), Value::from("string"));
    out.insert("enum".to_owned(), Value::Array(names));
    if !lines.is_empty() {
        out.insert("description".to_owned(), Value::from(lines.join(" ")));
    }
    Ok(out)
}

fn merge_description(out: &mut Map<String, Value>, first: Option<Value>) {
    let Some(first) = first.as_ref().and_then(Value::as_str) else {
        return;
    };
    let text = match out.get("description").and_then(Value::as_str) {
        Some(rest) => format!("{first} {rest}"),
        None => first.to_owned(),
    };
    out.insert("description".to_owned(), Value::from(text));
}

fn unsupported(path: &str, what: &str) -> MethodError {
    MethodError::internal(format!(
        "`{path}`: hosts do not understand {what} in a configuration schema; use numbers, bools, \
         strings, plain enums, lists and nested structs"
    ))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    /// How the loss is computed.
    #[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        /// Absolute difference.
        #[default]
        L1,
        /// Squared difference.
        L2,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    struct Config {
        /// Which distance.
        kind: Kind,
        /// Multiplies the loss.
        #[schemars(range(min = 0.0))]
        loss_weight: f64,
        nested: Nested,
    }

    #[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
    struct Nested {
        levels: Vec<u32>,
    }

    impl Default for Config {
        fn default() -> Self {
            Config {
                kind: Kind::L1,
                loss_weight: 4.0,
                nested: Nested::default(),
            }
        }
    }

    #[test]
    fn the_schema_stays_inside_the_subset_and_has_every_default() {
        let schema = schema::<Config>().unwrap();
        assert_eq!(schema["additionalProperties"], json!(false));
        let kind = &schema["properties"]["kind"];
        assert_eq!(kind["enum"], json!(["l1", "l2"]));
        assert_eq!(kind["default"], json!("l1"));
        assert!(kind["description"].as_str().unwrap().contains("Squared"));
        let weight = &schema["properties"]["loss_weight"];
        assert_eq!(weight["type"], json!("number"));
        assert_eq!(weight["minimum"], json!(0.0));
        assert_eq!(weight["default"], json!(4.0));
        assert_eq!(
            schema["properties"]["nested"]["properties"]["levels"]["default"],
            json!([])
        );
        assert!(!schema.to_string().contains("$ref"));
    }

    #[test]
    fn what_is_left_out_is_filled() {
        let read: Config = read(r#"{"kind":"l2"}"#).unwrap();
        assert_eq!(read.kind, Kind::L2);
        assert_eq!(read.loss_weight, 4.0);
    }

    #[test]
    fn unknown_keys_are_refused_by_path() {
        let error = read::<Config>(r#"{"nested":{"level":[3]}}"#).unwrap_err();
        assert_eq!(error.status(), kd_abi::KD_E_CONFIG);
        assert!(error.message().contains("`/nested/level`"), "{error}");
        assert!(error.message().contains("levels"), "{error}");
    }

    #[test]
    fn an_optional_field_is_refused_when_the_schema_is_made() {
        #[derive(Default, Serialize, Deserialize, JsonSchema)]
        struct Odd {
            free: std::collections::BTreeMap<String, u32>,
            any: serde_json::Value,
        }
        assert!(schema::<Odd>().is_err());
    }
}
