//! The walk over schema and value.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value as Json};

use super::super::error::ProblemKind;
use super::{Finding, words};

/// Nested schemas deeper than this refer to themselves without end.
const MAX_DEPTH: usize = 64;
/// Schemas come from files we do not trust: nested alternatives could take forever.
const MAX_VISITS: usize = 100_000;

/// Checks `value`, filling in defaults. `base` is where the value stands, for messages.
///
/// # Errors
/// If the schema itself is unusable.
pub(super) fn check(
    schema: &Json,
    value: &mut Json,
    base: &[String],
) -> Result<Vec<Finding>, String> {
    let mut walk = Walk {
        root: schema,
        base,
        path: base.to_vec(),
        findings: Vec::new(),
        depth: 0,
        visits: 0,
    };
    walk.visit(schema, value)?;
    Ok(walk.findings)
}

struct Walk<'s> {
    root: &'s Json,
    base: &'s [String],
    path: Vec<String>,
    findings: Vec<Finding>,
    depth: usize,
    visits: usize,
}

impl<'s> Walk<'s> {
    fn visit(&mut self, schema: &'s Json, value: &mut Json) -> Result<(), String> {
        self.visits += 1;
        if self.depth >= MAX_DEPTH || self.visits > MAX_VISITS {
            return Err(format!(
                "it refers to itself without end, or is too large ({MAX_DEPTH} levels and \
                 {MAX_VISITS} visits are accepted)"
            ));
        }
        self.depth += 1;
        let done = match schema {
            Json::Object(schema) => self.visit_object_schema(schema, value),
            Json::Bool(false) => {
                self.refuse("nothing".to_owned(), value, None);
                Ok(())
            }
            _ => Ok(()),
        };
        self.depth -= 1;
        done
    }

    fn visit_object_schema(
        &mut self,
        schema: &'s Map<String, Json>,
        value: &mut Json,
    ) -> Result<(), String> {
        if let Some(reference) = schema.get("$ref") {
            self.visit(words::target(self.root, reference)?, value)?;
        }
        for part in list(schema, "allOf") {
            self.visit(part, value)?;
        }
        for (keyword, exactly_one) in [("anyOf", false), ("oneOf", true)] {
            if schema.contains_key(keyword) {
                self.visit_variants(list(schema, keyword), exactly_one, value)?;
            }
        }
        if !self.type_fits(schema, value) {
            self.refuse(words::expected(schema), value, None);
            return Ok(());
        }
        if let Some(accepted) = words::literals(schema)
            && !accepted.iter().any(|literal| same(literal, value))
        {
            let nearest = words::nearest_literal(&accepted, value);
            self.refuse(words::one_of(&accepted), value, nearest);
            return Ok(());
        }
        match value {
            Json::Number(number) => {
                if !in_range(schema, number) {
                    self.refuse(words::expected(schema), value, None);
                } else if is_float_type(schema) {
                    as_float(value);
                }
            }
            Json::String(text) => {
                let length = text.chars().count();
                if !length_fits(schema, "minLength", "maxLength", length) {
                    self.refuse(words::expected(schema), value, None);
                }
            }
            Json::Array(items) => {
                if !length_fits(schema, "minItems", "maxItems", items.len()) {
                    self.refuse(words::expected(schema), value, None);
                } else {
                    self.visit_items(schema, items)?;
                }
            }
            Json::Object(table) => self.visit_table(schema, table)?,
            Json::Null | Json::Bool(_) => {}
        }
        Ok(())
    }

    fn visit_items(
        &mut self,
        schema: &'s Map<String, Json>,
        items: &mut [Json],
    ) -> Result<(), String> {
        let prefix = list(schema, "prefixItems");
        for (index, item) in items.iter_mut().enumerate() {
            if let Some(item_schema) = prefix.get(index).or_else(|| schema.get("items")) {
                self.path.push(format!("[{index}]"));
                self.visit(item_schema, item)?;
                self.path.pop();
            }
        }
        Ok(())
    }

    fn visit_table(
        &mut self,
        schema: &'s Map<String, Json>,
        table: &mut Map<String, Json>,
    ) -> Result<(), String> {
        let properties = schema.get("properties").and_then(Json::as_object);
        for (name, property) in properties.into_iter().flatten() {
            if !table.contains_key(name)
                && let Some(default) = words::default_of(self.root, property)
            {
                table.insert(name.clone(), default.clone());
            }
        }
        for name in list(schema, "required").iter().filter_map(Json::as_str) {
            if !table.contains_key(name) {
                let property = properties.and_then(|p| p.get(name));
                let expected = words::expected_at(self.root, property);
                self.path.push(name.to_owned());
                self.report(ProblemKind::Missing { expected });
                self.path.pop();
            }
        }
        for (name, value) in table {
            self.path.push(name.clone());
            match properties.and_then(|p| p.get(name)) {
                Some(property) => self.visit(property, value)?,
                None => match schema.get("additionalProperties") {
                    Some(Json::Bool(true)) => {}
                    Some(Json::Bool(false)) => self.unknown_key(properties),
                    Some(other) => self.visit(other, value)?,
                    None if closes(schema) => self.unknown_key(properties),
                    None => {}
                },
            }
            self.path.pop();
        }
        Ok(())
    }

    fn visit_variants(
        &mut self,
        variants: &'s [Json],
        exactly_one: bool,
        value: &mut Json,
    ) -> Result<(), String> {
        let mut fitting = Vec::new();
        let mut failures = Vec::new();
        for variant in variants {
            let mut attempt = value.clone();
            let before = std::mem::take(&mut self.findings);
            self.visit(variant, &mut attempt)?;
            let found = std::mem::replace(&mut self.findings, before);
            if found.is_empty() {
                fitting.push(attempt);
            } else {
                failures.push(found);
            }
        }
        if exactly_one && fitting.len() > 1 {
            self.report(ProblemKind::Rule {
                rule: "fits more than one of the accepted forms".to_owned(),
            });
        } else if let Some(first) = fitting.into_iter().next() {
            *value = first;
        } else {
            self.report_failures(variants, failures, value);
        }
        Ok(())
    }

    /// None of the variants fits: reports what the user most likely meant.
    fn report_failures(&mut self, variants: &'s [Json], failures: Vec<Vec<Finding>>, value: &Json) {
        let accepted: Option<Vec<&Json>> = variants
            .iter()
            .map(|variant| words::literals(words::resolved(self.root, variant)?))
            .collect::<Option<Vec<_>>>()
            .map(|lists| lists.concat());
        if let Some(accepted) = accepted {
            let nearest = words::nearest_literal(&accepted, value);
            self.refuse(words::one_of(&accepted), value, nearest);
            return;
        }
        if let (Some((tag, accepted)), Some(table)) =
            (words::tag_of(self.root, variants), value.as_object())
        {
            let given = table.get(tag);
            let chosen = accepted
                .iter()
                .position(|literal| given.is_some_and(|given| same(literal, given)));
            if let Some(chosen) = chosen {
                self.findings
                    .extend(failures.into_iter().nth(chosen).into_iter().flatten());
                return;
            }
            self.path.push(tag.to_owned());
            let expected = words::one_of(&accepted);
            match given {
                Some(given) => {
                    let nearest = words::nearest_literal(&accepted, given);
                    self.refuse(expected, given, nearest);
                }
                None => self.report(ProblemKind::Missing { expected }),
            }
            self.path.pop();
            return;
        }
        // Variants that fail inside the value have at least its type.
        let inside = failures
            .into_iter()
            .filter(|found| found.iter().all(|f| f.path.len() > self.path.len()))
            .min_by_key(Vec::len);
        match inside {
            Some(found) => self.findings.extend(found),
            None => {
                let mut forms: Vec<String> = variants
                    .iter()
                    .map(|variant| words::expected_at(self.root, Some(variant)))
                    .collect();
                forms.dedup();
                self.refuse(forms.join(", or "), value, None);
            }
        }
    }

    fn type_fits(&self, schema: &Map<String, Json>, value: &Json) -> bool {
        let types = words::types(schema);
        types.is_empty()
            || types.iter().any(|name| match *name {
                "null" => value.is_null(),
                "boolean" => value.is_boolean(),
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                _ => false,
            })
    }

    fn unknown_key(&mut self, properties: Option<&Map<String, Json>>) {
        let known: Vec<String> = properties
            .map(|p| p.keys().cloned().collect())
            .unwrap_or_default();
        let nearest = words::nearest_key(self.root, self.base, &self.path, &known);
        self.report(ProblemKind::UnknownKey { nearest, known });
    }

    fn refuse(&mut self, expected: String, value: &Json, nearest: Option<String>) {
        self.report(ProblemKind::Value {
            expected,
            got: words::got(value),
            nearest,
        });
    }

    fn report(&mut self, kind: ProblemKind) {
        self.findings.push(Finding {
            path: self.path.clone(),
            kind,
        });
    }
}

fn list<'s>(schema: &'s Map<String, Json>, keyword: &str) -> &'s [Json] {
    let list = schema.get(keyword).and_then(Json::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// Tables with named keys are closed. Not where combinators add further keys: each of them sees
/// the whole table and would refuse the others' keys.
fn closes(schema: &Map<String, Json>) -> bool {
    let combined = ["allOf", "anyOf", "oneOf", "$ref"];
    schema.contains_key("properties") && !combined.iter().any(|k| schema.contains_key(*k))
}

/// Where a number is wanted and an integer is not told apart from it.
fn is_float_type(schema: &Map<String, Json>) -> bool {
    let types = words::types(schema);
    types.contains(&"number") && !types.contains(&"integer")
}

fn in_range(schema: &Map<String, Json>, number: &Number) -> bool {
    let against = |keyword: &str| match schema.get(keyword) {
        Some(Json::Number(bound)) => compare(number, bound),
        _ => None,
    };
    against("minimum") != Some(Ordering::Less)
        && against("maximum") != Some(Ordering::Greater)
        && !matches!(
            against("exclusiveMinimum"),
            Some(Ordering::Less | Ordering::Equal)
        )
        && !matches!(
            against("exclusiveMaximum"),
            Some(Ordering::Greater | Ordering::Equal)
        )
}

/// Integers are compared as integers: a float holds 53 bits of a seed alone.
fn compare(a: &Number, b: &Number) -> Option<Ordering> {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn length_fits(schema: &Map<String, Json>, min: &str, max: &str, length: usize) -> bool {
    let bound = |keyword: &str| schema.get(keyword).and_then(Json::as_u64);
    let length = length as u64;
    bound(min).is_none_or(|min| length >= min) && bound(max).is_none_or(|max| length <= max)
}

fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => compare(a, b) == Some(Ordering::Equal),
        (a, b) => a == b,
    }
}

fn as_float(value: &mut Json) {
    if let Some(float) = value.as_f64().and_then(Number::from_f64) {
        *value = Json::Number(float);
    }
}
