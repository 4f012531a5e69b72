//! Reading a schema: what it accepts, in words; names near to a wrong one.

use serde_json::{Map, Value as Json};

use super::join;

/// Chains of references longer than this are circles.
const MAX_REFS: usize = 32;

/// The schema that a local `$ref` names.
pub(super) fn target<'s>(root: &'s Json, reference: &Json) -> Result<&'s Json, String> {
    let text = reference.as_str().unwrap_or_default();
    let found = text.strip_prefix('#').and_then(|p| root.pointer(p));
    found.ok_or_else(|| format!("`$ref` names `{text}`, which is not in the schema"))
}

/// The object behind a chain of references.
pub(super) fn resolved<'s>(root: &'s Json, schema: &'s Json) -> Option<&'s Map<String, Json>> {
    let mut schema = schema.as_object()?;
    for _ in 0..MAX_REFS {
        match schema.get("$ref") {
            Some(reference) => schema = target(root, reference).ok()?.as_object()?,
            None => return Some(schema),
        }
    }
    None
}

/// The default of a property, its own or that of the definition it refers to.
pub(super) fn default_of<'s>(root: &'s Json, property: &'s Json) -> Option<&'s Json> {
    let own = property.get("default");
    own.or_else(|| resolved(root, property)?.get("default"))
}

/// The names in `type`.
pub(super) fn types(schema: &Map<String, Json>) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(name)) => vec![name],
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The values of `const` or `enum`.
pub(super) fn literals(schema: &Map<String, Json>) -> Option<Vec<&Json>> {
    if let Some(literal) = schema.get("const") {
        return Some(vec![literal]);
    }
    let literals = schema.get("enum")?.as_array()?;
    Some(literals.iter().collect())
}

/// The key by which tagged variants are told apart, and its value in each.
pub(super) fn tag_of<'s>(root: &'s Json, variants: &'s [Json]) -> Option<(&'s str, Vec<&'s Json>)> {
    let tables: Vec<&Map<String, Json>> = variants
        .iter()
        .map(|variant| resolved(root, variant)?.get("properties")?.as_object())
        .collect::<Option<_>>()?;
    tables.first()?.keys().find_map(|tag| {
        let literals: Option<Vec<&Json>> = tables
            .iter()
            .map(|table| match literals(table.get(tag)?.as_object()?)?[..] {
                [only] => Some(only),
                _ => None,
            })
            .collect();
        Some((tag.as_str(), literals?))
    })
}

/// Calls `found` with the path and the schema of every property below `root` that has a name.
pub(super) fn walk_properties(root: &Json, found: &mut dyn FnMut(&[String], &Json)) {
    walk(root, root, false, &mut Vec::new(), &mut 4096, found);
}

/// The same, and of those below a table with free keys, for which `*` stands in the path.
pub(super) fn walk_all(root: &Json, found: &mut dyn FnMut(&[String], &Json)) {
    walk(root, root, true, &mut Vec::new(), &mut 4096, found);
}

fn walk(
    root: &Json,
    schema: &Json,
    free_keys: bool,
    path: &mut Vec<String>,
    budget: &mut usize,
    found: &mut dyn FnMut(&[String], &Json),
) {
    let schema = resolved(root, schema);
    let properties = schema.and_then(|s| s.get("properties")?.as_object());
    let any = "*".to_owned();
    let free = schema.and_then(|s| s.get("additionalProperties"));
    let free = free.filter(|_| free_keys).map(|schema| (&any, schema));
    for (name, property) in properties.into_iter().flatten().chain(free) {
        if *budget == 0 || path.len() >= 16 {
            return;
        }
        *budget -= 1;
        path.push(name.clone());
        found(path, property);
        walk(root, property, free_keys, path, budget, found);
        path.pop();
    }
}

/// What a schema accepts: `an integer of at least 1`.
pub(super) fn expected(schema: &Map<String, Json>) -> String {
    if let Some(literals) = literals(schema) {
        return one_of(&literals);
    }
    let names: Vec<String> = types(schema)
        .into_iter()
        .filter(|name| *name != "null")
        .map(|name| match name {
            "boolean" => "`true` or `false`".to_owned(),
            "string" => match bounds(schema, "minLength", "maxLength") {
                Some(bounds) => format!("a string of {bounds} characters"),
                None => "a string".to_owned(),
            },
            "integer" => format!("an integer{}", range(schema)),
            "number" => format!("a number{}", range(schema)),
            "array" => {
                let count = bounds(schema, "minItems", "maxItems");
                let count = count.map(|c| format!(" of {c}")).unwrap_or_default();
                match schema.get("items").and_then(Json::as_object) {
                    Some(items) if items.contains_key("type") => {
                        format!("a list{count}, each {}", expected(items))
                    }
                    _ => format!("a list{count}"),
                }
            }
            "object" => "a table".to_owned(),
            other => other.to_owned(),
        })
        .collect();
    if names.is_empty() {
        return "another value".to_owned();
    }
    names.join(", or ")
}

/// As [`expected`], of a schema that may be absent or a reference.
pub(super) fn expected_at(root: &Json, schema: Option<&Json>) -> String {
    let Some(schema) = schema.and_then(|schema| resolved(root, schema)) else {
        return "a value".to_owned();
    };
    for keyword in ["oneOf", "anyOf"] {
        if let Some(variants) = schema.get(keyword).and_then(Json::as_array) {
            let all: Option<Vec<Vec<&Json>>> = variants
                .iter()
                .map(|variant| literals(resolved(root, variant)?))
                .collect();
            if let Some(all) = all {
                return one_of(&all.concat());
            }
        }
    }
    expected(schema)
}

/// `one of "sgd", "adamw"`.
pub(super) fn one_of(literals: &[&Json]) -> String {
    let words: Vec<String> = literals.iter().map(|l| format!("`{l}`")).collect();
    match &words[..] {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        many => format!("one of {}", many.join(", ")),
    }
}

/// What stands there: `the string "x"`.
pub(super) fn got(value: &Json) -> String {
    match value {
        Json::Null => "nothing".to_owned(),
        Json::Bool(flag) => format!("`{flag}`"),
        Json::Number(number) if number.is_f64() => format!("the float `{number}`"),
        Json::Number(number) => format!("the integer `{number}`"),
        Json::String(text) => {
            let short: String = text.chars().take(60).collect();
            let dots = if short.len() < text.len() { "…" } else { "" };
            format!("the string {short:?}{dots}")
        }
        Json::Array(items) => format!("a list of {}", items.len()),
        Json::Object(_) => "a table".to_owned(),
    }
}

/// The string literal nearest to a wrong string.
pub(super) fn nearest_literal(literals: &[&Json], value: &Json) -> Option<String> {
    let text = value.as_str()?;
    let words = literals.iter().filter_map(|literal| literal.as_str());
    nearest(text, words).map(str::to_owned)
}

/// The known key nearest to the unknown one at `path`: of the same table, else a key of another
/// table that has this name.
pub(super) fn nearest_key(
    root: &Json,
    base: &[String],
    path: &[String],
    known: &[String],
) -> Option<String> {
    let (name, table) = path.split_last()?;
    if let Some(near) = nearest(name, known.iter().map(String::as_str)) {
        return Some(join(&[table, &[near.to_owned()]].concat()));
    }
    // The nearest to the root: a special table may repeat what a general one has.
    let mut elsewhere: Option<(usize, String)> = None;
    walk_properties(root, &mut |below, _| {
        let nearer = elsewhere
            .as_ref()
            .is_none_or(|(depth, _)| below.len() < *depth);
        if nearer && below.last() == Some(name) {
            elsewhere = Some((below.len(), join(&[base, below].concat())));
        }
    });
    elsewhere.map(|(_, path)| path)
}

/// The nearest of `words` within a third of the length, at least one edit.
fn nearest<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let limit = (text.chars().count() / 3).max(1);
    words
        .map(|word| (strsim::osa_distance(text, word), word))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, word)| word)
}

fn range(schema: &Map<String, Json>) -> String {
    let mut parts = Vec::new();
    for (keyword, words) in [
        ("minimum", "at least"),
        ("exclusiveMinimum", "more than"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "less than"),
    ] {
        if let Some(bound) = schema.get(keyword) {
            parts.push(format!("{words} {bound}"));
        }
    }
    match parts.is_empty() {
        true => String::new(),
        false => format!(" of {}", parts.join(" and ")),
    }
}

fn bounds(schema: &Map<String, Json>, min: &str, max: &str) -> Option<String> {
    match (schema.get(min), schema.get(max)) {
        (Some(min), Some(max)) if min == max => Some(min.to_string()),
        (Some(min), Some(max)) => Some(format!("{min} to {max}")),
        (Some(min), None) => Some(format!("at least {min}")),
        (None, Some(max)) => Some(format!("at most {max}")),
        (None, None) => None,
    }
}
