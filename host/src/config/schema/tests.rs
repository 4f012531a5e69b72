use serde_json::json;

use super::*;

fn schema() -> Json {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "window": {"type": "integer", "minimum": 1, "maximum": 31, "default": 11, "format": "uint32"},
            "sigma": {"type": "number", "exclusiveMinimum": 0, "default": 1.5},
            "scope": {"$ref": "#/$defs/Scope", "default": "image", "description": "Where."},
            "levels": {"type": "array", "items": {"type": "string", "minLength": 2}, "maxItems": 2, "default": []},
            "adapter": {"$ref": "#/$defs/Adapter", "default": {}},
            "limit": {"type": ["number", "null"], "minimum": 0, "default": null},
            "name": {"type": "string"}
        },
        "required": ["name"],
        "$defs": {
            "Scope": {"oneOf": [
                {"type": "string", "const": "image", "description": "One."},
                {"type": "string", "const": "channel"}
            ]},
            "Adapter": {"type": "object", "properties": {
                "kernel": {"type": "integer", "enum": [1, 3], "default": 1},
                "kind": {"oneOf": [
                    {"type": "object", "properties": {"type": {"type": "string", "const": "linear"}, "bias": {"type": "boolean"}}, "required": ["type", "bias"]},
                    {"type": "object", "properties": {"type": {"const": "none"}}, "required": ["type"]}
                ]}
            }}
        }
    })
}

fn run(config: Json) -> Result<String, ConfigError> {
    let config = serde_json::from_value(config).unwrap();
    check_plugin_config(&schema(), &config, "distill.config", "demo")
}

fn message(config: Json) -> String {
    run(config).unwrap_err().to_string()
}

#[test]
fn defaults_are_filled_in_and_the_text_is_canonical() {
    let filled = "{\"adapter\":{\"kernel\":1},\"levels\":[],\"limit\":null,\"name\":\"a\",\
                  \"scope\":\"image\",\"sigma\":1.5,\"window\":11}";
    assert_eq!(run(json!({"name": "a"})).unwrap(), filled);
    // Given in full and in another order, with an integer for a number.
    let text = run(json!({"window": 3, "name": "a", "sigma": 2, "limit": 1})).unwrap();
    assert!(text.contains("\"sigma\":2.0,\"window\":3"), "{text}");
    assert!(text.contains("\"limit\":1.0"), "{text}");
    // Canonical text is a fixed point.
    assert_eq!(run(serde_json::from_str(&text).unwrap()).unwrap(), text);
}

#[test]
fn problems_name_key_method_and_what_is_accepted() {
    let of = "in the configuration of method `demo`";
    for (config, expected) in [
        (
            json!({"name": "a", "windw": 3}),
            format!(
                "unknown key `distill.config.windw` {of}; did you mean `distill.config.window`?"
            ),
        ),
        (
            json!({"name": "a", "window": "3"}),
            format!(
                "`distill.config.window` {of}: expected an integer of at least 1 and at most 31, got the string \"3\""
            ),
        ),
        (
            json!({"name": "a", "window": 33}),
            format!(
                "`distill.config.window` {of}: expected an integer of at least 1 and at most 31, got the integer `33`"
            ),
        ),
        (
            json!({"name": "a", "window": 3.0}),
            format!(
                "`distill.config.window` {of}: expected an integer of at least 1 and at most 31, got the float `3.0`"
            ),
        ),
        (
            json!({"name": "a", "sigma": 0}),
            format!(
                "`distill.config.sigma` {of}: expected a number of more than 0, got the integer `0`"
            ),
        ),
        (
            json!({"name": "a", "scope": "chanel"}),
            format!(
                "`distill.config.scope` {of}: expected one of `\"image\"`, `\"channel\"`, got the string \"chanel\"; did you mean `channel`?"
            ),
        ),
        (
            json!({"name": "a", "levels": ["p3", "x"]}),
            format!(
                "`distill.config.levels[1]` {of}: expected a string of at least 2 characters, got the string \"x\""
            ),
        ),
        (
            json!({"name": "a", "adapter": {"kernal": 1}}),
            format!(
                "unknown key `distill.config.adapter.kernal` {of}; did you mean `distill.config.adapter.kernel`?"
            ),
        ),
        (
            json!({"name": "a", "adapter": {"kernel": 2}}),
            format!(
                "`distill.config.adapter.kernel` {of}: expected one of `1`, `3`, got the integer `2`"
            ),
        ),
        (
            json!({"name": "a", "adapter": 3}),
            format!("`distill.config.adapter` {of}: expected a table, got the integer `3`"),
        ),
        (
            json!({"name": "a", "kernel": 3}),
            format!(
                "unknown key `distill.config.kernel` {of}; did you mean `distill.config.adapter.kernel`?"
            ),
        ),
        (
            json!({}),
            format!("`distill.config.name` is missing {of}: expected a string"),
        ),
    ] {
        assert_eq!(message(config), expected);
    }
}

#[test]
fn tagged_tables_are_checked_as_the_variant_that_is_named() {
    let with = |kind: Json| json!({"name": "a", "adapter": {"kind": kind}});
    assert!(run(with(json!({"type": "linear", "bias": true}))).is_ok());
    assert!(run(with(json!({"type": "none"}))).is_ok());
    let text = message(with(json!({"type": "linear", "bais": true})));
    assert!(text.starts_with("2 problems"), "{text}");
    assert!(
        text.contains("`distill.config.adapter.kind.bias` is missing"),
        "{text}"
    );
    assert!(
        text.contains("did you mean `distill.config.adapter.kind.bias`?"),
        "{text}"
    );
    let text = message(with(json!({"type": "linera"})));
    assert!(text.contains("adapter.kind.type`"), "{text}");
    assert!(text.ends_with("did you mean `linear`?"), "{text}");
    let text = message(with(json!({})));
    assert!(text.contains("adapter.kind.type` is missing"), "{text}");
}

#[test]
fn untagged_alternatives() {
    let schema = json!({"type": "object", "properties": {"v": {"anyOf": [
        {"type": "integer", "minimum": 1}, {"type": "array", "items": {"type": "integer"}}
    ]}, "once": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}});
    let run = |value: Json| {
        check_plugin_config(
            &schema,
            &BTreeMap::from([("v".to_owned(), value)]),
            "distill.config",
            "demo",
        )
    };
    assert_eq!(run(json!([1, 2])).unwrap(), "{\"v\":[1,2]}");
    let text = run(json!("x")).unwrap_err().to_string();
    assert!(
        text.ends_with(
            "expected an integer of at least 1, or a list, each an integer, got the string \"x\""
        ),
        "{text}"
    );
    let text = run(json!([1, "x"])).unwrap_err().to_string();
    assert!(text.contains("`distill.config.v[1]`"), "{text}");
    let both = BTreeMap::from([("once".to_owned(), json!(1))]);
    let text = check_plugin_config(&schema, &both, "distill.config", "demo")
        .unwrap_err()
        .to_string();
    assert!(text.contains("fits more than one"), "{text}");
}

#[test]
fn tables_are_closed_unless_opened() {
    let check = |schema: Json| {
        let config = BTreeMap::from([("other".to_owned(), json!("x"))]);
        check_plugin_config(&schema, &config, "distill.config", "demo")
    };
    assert!(check(json!({"type": "object"})).is_ok());
    assert!(check(json!({"type": "object", "properties": {}})).is_err());
    assert!(
        check(json!({"type": "object", "properties": {}, "additionalProperties": true})).is_ok()
    );
    assert!(check(json!({"type": "object", "additionalProperties": false})).is_err());
    assert!(check(json!({"type": "object", "additionalProperties": {"type": "string"}})).is_ok());
    assert!(check(json!({"type": "object", "additionalProperties": {"type": "integer"}})).is_err());
}

#[test]
fn unusable_schemas_are_refused_by_place() {
    for (schema, expected) in [
        (json!(true), "expected an object, got `true`"),
        (
            json!({"properties": {"a": {"pattern": "x"}}}),
            "the keyword `pattern` at #/properties/a/pattern is not supported",
        ),
        (
            json!({"properties": 3}),
            "#/properties: expected a table of schemas, got `3`",
        ),
        (
            json!({"properties": {"a": 3}}),
            "#/properties/a: expected a schema, got `3`",
        ),
        (
            json!({"type": "float"}),
            "#/type: expected the name of a JSON type",
        ),
        (
            json!({"$ref": "http://x/y"}),
            "`$ref` names `http://x/y`, which is not in the schema",
        ),
        (
            json!({"$ref": "#/$defs/None"}),
            "`$ref` names `#/$defs/None`",
        ),
        (json!({"minimum": "1"}), "#/minimum: expected a number"),
        (
            json!({"required": [1]}),
            "#/required: expected a list of names",
        ),
        (json!({"enum": []}), "#/enum: expected a list of values"),
    ] {
        let error =
            check_plugin_config(&schema, &BTreeMap::new(), "distill.config", "demo").unwrap_err();
        assert!(matches!(error, ConfigError::Schema { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("method `demo`") && text.contains(expected),
            "{text}"
        );
    }
}

#[test]
fn hostile_schemas_end() {
    let circle = json!({"$ref": "#"});
    let forever = json!({"properties": {"a": {"$ref": "#", "default": {}}}});
    // Each level three times the one below: 3^39 visits, written in 40 lines.
    let mut defs = serde_json::Map::from_iter([("d0".to_owned(), json!({"type": "integer"}))]);
    for level in 1..40 {
        let below = json!({"$ref": format!("#/$defs/d{}", level - 1)});
        defs.insert(format!("d{level}"), json!({"anyOf": [below, below, below]}));
    }
    let wide = json!({"$ref": "#/$defs/d39", "$defs": defs});
    for schema in [circle, forever, wide] {
        let error =
            check_plugin_config(&schema, &BTreeMap::new(), "distill.config", "demo").unwrap_err();
        assert!(matches!(error, ConfigError::Schema { .. }), "{error}");
    }
}

#[test]
fn large_integers_are_compared_exactly() {
    let schema =
        json!({"properties": {"n": {"type": "integer", "maximum": 9_007_199_254_740_992_i64}}});
    let run = |n: i64| {
        check_plugin_config(
            &schema,
            &BTreeMap::from([("n".to_owned(), json!(n))]),
            "distill.config",
            "demo",
        )
        .is_ok()
    };
    // 2^53, and 2^53 + 1 which rounds to it as a float.
    assert!(run(9_007_199_254_740_992));
    assert!(!run(9_007_199_254_740_993));
}

#[test]
fn derived_schemas_are_supported() {
    #[derive(schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Settings {
        #[schemars(default = "seven", range(min = 1))]
        count: u32,
        #[schemars(default)]
        choice: Choice,
        #[schemars(default)]
        maybe: Option<f32>,
        pair: (i32, String),
        map: BTreeMap<String, f64>,
    }
    fn seven() -> u32 {
        7
    }
    #[derive(Default, serde::Serialize, schemars::JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        /// Documented.
        #[default]
        First,
        Second {
            width: u8,
        },
    }
    let schema = schemars::schema_for!(Settings).to_value();
    let config = |choice: Json| {
        serde_json::from_value(json!({"pair": [1, "x"], "map": {"a": 1}, "choice": choice}))
            .unwrap()
    };
    let text =
        check_plugin_config(&schema, &config(json!("first")), "distill.config", "demo").unwrap();
    assert_eq!(
        text,
        "{\"choice\":\"first\",\"count\":7,\"map\":{\"a\":1.0},\"maybe\":null,\"pair\":[1,\"x\"]}"
    );
    assert!(
        check_plugin_config(
            &schema,
            &config(json!({"second": {"width": 3}})),
            "distill.config",
            "demo"
        )
        .is_ok()
    );
    let error = check_plugin_config(
        &schema,
        &config(json!({"second": {"width": 300}})),
        "distill.config",
        "demo",
    );
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("choice.second.width") && text.contains("at most 255"),
        "{text}"
    );
}

#[test]
fn our_own_schema_is_supported() {
    let schema = schemars::schema_for!(crate::config::Config).to_value();
    keywords::supported(&schema).unwrap();
    let marked: Vec<String> = marked_paths(&schema)
        .iter()
        .map(|(path, _)| join(path))
        .collect();
    assert_eq!(
        marked,
        [
            "data.cityscapes.root",
            "data.class_folder.train",
            "data.class_folder.val",
            "data.coco.train_annotations",
            "data.coco.train_images",
            "data.coco.val_annotations",
            "data.coco.val_images",
            "data.seg_folder.train_images",
            "data.seg_folder.train_labels",
            "data.seg_folder.val_images",
            "data.seg_folder.val_labels",
            "data.voc.root",
            "data.voc_seg.root",
            "distill.methods.*.plugin",
            "distill.plugin",
            "student.weights",
            "teacher.checkpoint",
            "teacher.model.weights",
            "teachers.*.checkpoint",
            "teachers.*.model.weights",
        ]
    );
}
