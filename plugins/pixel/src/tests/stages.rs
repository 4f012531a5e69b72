//! The stages of every mode, order and task, as JSON that lies beside this file.

use super::*;

/// Stages, with what equals the schedule's defaults left out.
fn declared(config: &Value, taps: &[TapShape]) -> Value {
    let bench = bench(config, taps).unwrap();
    let mut schedule: Value = serde_json::from_str(bench.schedule().unwrap()).unwrap();
    let defaults = |name: &str| {
        let phase = kd_plugin::schedule::Phase::new(name);
        let stage = kd_plugin::schedule::Stage::new(name);
        [
            serde_json::to_value(stage).unwrap(),
            serde_json::to_value(phase).unwrap(),
        ]
    };
    for stage in schedule["stages"].as_array_mut().unwrap() {
        for phase in stage["phases"].as_array_mut().unwrap() {
            let name = phase["name"].as_str().unwrap().to_owned();
            strip(phase, &defaults(&name)[1]);
        }
        let name = stage["name"].as_str().unwrap().to_owned();
        strip(stage, &defaults(&name)[0]);
    }
    schedule["stages"].take()
}

fn strip(value: &mut Value, defaults: &Value) {
    let is_own =
        |key: &String, value: &mut Value| key == "name" || defaults.get(key) != Some(value);
    value.as_object_mut().unwrap().retain(is_own);
}

#[test]
fn stages_are_those_of_the_file() {
    let expected: Value = serde_json::from_str(include_str!("stages.json")).unwrap();
    let (classifier, segmenter) = (classifier([4, 4]), segmenter());
    let detector = detector(false, [4, 4]);
    let forced = json!({"order": "compress_model_first", "force_order": true});
    let lengths = json!({
        "k": 4.0, "isrd": "on", "fkd": "off", "input_init": "own", "gate_tolerance": 1.0,
        "retune_epochs_scale": 0.5, "retune_lr_scale": 0.2, "input_epochs_scale": 0.25,
        "model_epochs_scale": 0.75,
    });
    for (name, config, taps) in [
        ("classifier", json!({}), &classifier),
        (
            "classifier, vanilla",
            json!({"mode": "vanilla"}),
            &classifier,
        ),
        (
            "classifier, input first, from the teacher",
            json!({"order": "compress_input_first", "input_init": "teacher"}),
            &classifier,
        ),
        (
            "classifier, features in one stage",
            json!({"mode": "vanilla", "kd": "off", "fkd": "on"}),
            &classifier,
        ),
        ("segmenter", json!({}), &segmenter),
        ("detector", json!({}), &detector),
        ("detector, vanilla", json!({"mode": "vanilla"}), &detector),
        ("detector, wrong order", forced, &detector),
        ("detector, lengths", lengths, &detector),
    ] {
        let found = declared(&config, taps);
        assert_eq!(found, expected[name], "{name}: {found:#}");
    }
}

/// Every binding of a job declares the same stages and losses, whichever models are bound.
#[test]
fn stages_do_not_depend_on_which_models_are_bound() {
    let full = |taps: &[TapShape]| -> Vec<TapShape> {
        let of_teacher = |tap: &TapShape| {
            let teacher = taps
                .iter()
                .find(|t| t.role == "teacher" && t.name == tap.name);
            teacher.map_or(tap.shape, |t| t.shape)
        };
        let grow = |tap: &TapShape| TapShape {
            shape: if tap.name == "stem.conv" {
                [2, 4, 8, 9]
            } else {
                of_teacher(tap)
            },
            ..tap.clone()
        };
        taps.iter().map(grow).collect()
    };
    let declared = |taps: &[TapShape]| {
        let bench = bench(&json!({}), taps).unwrap();
        (
            bench.schedule().unwrap().to_owned(),
            bench.losses().to_vec(),
        )
    };
    let small = classifier([4, 4]);
    let first = declared(&small);
    assert_eq!(first, declared(&full(&small)));
    assert_eq!(first, declared(&classifier([3, 4])));
}
