//! Every plugin with every detector as student and as teacher: what works runs, what does not says why.

use std::collections::BTreeSet;
use std::fs;

use kdhost_tests::artifacts::workspace_root;
use kdhost_tests::command::{Workbench, metrics, plugin, stdout, succeed};
use serde_json::Value;

const DETECTORS: [&str; 2] = ["fcos", "retinanet"];

/// Pairs that a method cannot work with: plugin, student, teacher, and a part of the reason.
const REFUSED: [(&str, &str, &str, &str); 8] = [
    ("kd_fgbg", "fcos", "retinanet", "the same anchors"),
    ("kd_fgbg", "retinanet", "fcos", "the same anchors"),
    ("kd_logits", "fcos", "retinanet", "the same anchors"),
    ("kd_logits", "retinanet", "fcos", "the same anchors"),
    // A job of several runs, which one batch does not try; `classification` carries them out.
    ("kd_pixel", "fcos", "fcos", "stages of its own"),
    ("kd_pixel", "retinanet", "retinanet", "stages of its own"),
    ("kd_pixel", "fcos", "retinanet", "the same anchors"),
    ("kd_pixel", "retinanet", "fcos", "the same anchors"),
];

/// The crates of the plugins' workspace, as `kd_ssim`.
fn plugins() -> Vec<String> {
    let manifest = workspace_root().join("plugins/Cargo.toml");
    let text = fs::read_to_string(manifest).expect("the workspace has a manifest");
    let manifest: toml::Value = toml::from_str(&text).expect("cargo reads it too");
    let members = manifest["workspace"]["members"].as_array().expect("a list");
    let name = |member: &toml::Value| format!("kd_{}", member.as_str().expect("a folder"));
    members.iter().map(name).collect()
}

fn names(value: &Value) -> BTreeSet<String> {
    let list = value.as_array().expect("a list of names");
    list.iter()
        .map(|name| name.as_str().expect("a name").to_owned())
        .collect()
}

fn expected_refusal(plugin: &str, student: &str, teacher: &str) -> Option<&'static str> {
    let case = REFUSED
        .iter()
        .find(|(p, s, t, _)| (*p, *s, *t) == (plugin, student, teacher));
    case.map(|(.., needle)| *needle)
}

#[test]
fn every_plugin_works_with_every_pair_or_says_why_not() {
    let bench = Workbench::new();
    for library in plugins() {
        let args = [
            "model",
            "taps",
            "--config",
            "tiny.toml",
            "--json",
            "--plugin",
        ];
        let output = bench.run(&[&args[..], &[&plugin(&library)]].concat());
        let report: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        let pairs = report["pairs"]["pairs"]
            .as_array()
            .expect("a list of pairs");
        let teachers = if pairs[0]["teacher"].is_null() {
            vec![None]
        } else {
            DETECTORS.iter().map(|name| Some(*name)).collect()
        };
        assert_eq!(pairs.len(), DETECTORS.len() * teachers.len(), "{library}");
        for pair in pairs {
            let student = pair["student"].as_str().expect("a detector");
            let teacher = pair["teacher"].as_str().unwrap_or("-");
            let at = format!("{library}: {student} from {teacher}");
            match expected_refusal(&library, student, teacher) {
                Some(needle) => {
                    let reason = pair["refused"]
                        .as_str()
                        .unwrap_or_else(|| panic!("{at} works"));
                    assert!(reason.contains(needle), "{at}: {reason}");
                    assert!(!reason.contains("panicked"), "{at}: {reason}");
                }
                None => {
                    check_trial(&at, pair);
                    two_steps(&bench, &at, &library, student, teacher);
                }
            }
        }
    }
}

/// Finite terms, and gradients where the plan declares them and nowhere else.
fn check_trial(at: &str, pair: &Value) {
    let trial = pair
        .get("works")
        .unwrap_or_else(|| panic!("{at}: {}", pair["refused"]));
    for (name, value) in trial["losses"].as_object().expect("terms by name") {
        let value = value.as_f64().unwrap_or(f64::NAN);
        assert!(value.is_finite(), "{at}: {name} is {value}");
    }
    let declared = names(&trial["declared"]);
    let gradients = trial["gradients"].as_object().expect("norms by tap");
    for (tap, norm) in gradients {
        assert!(
            declared.contains(tap),
            "{at}: a gradient at `{tap}`, not declared"
        );
        assert!(
            norm.as_f64().is_some_and(f64::is_finite),
            "{at}: {tap}: {norm}"
        );
    }
    let arrives = |norm: &Value| norm.as_f64().is_some_and(|norm| norm > 0.0);
    let silent = declared
        .iter()
        .filter(|tap| !gradients.get(*tap).is_some_and(arrives));
    // A level without any foreground may be silent; a method that reaches none does nothing.
    let silent: Vec<&String> = silent.collect();
    assert!(
        declared.is_empty() || silent.len() < declared.len(),
        "{at}: no gradient at any of {silent:?}"
    );
}

fn two_steps(bench: &Workbench, at: &str, library: &str, student: &str, teacher: &str) {
    let out = format!("{library}-{student}-{teacher}");
    let detector = format!("student.detector={student}");
    let mut args = vec!["--set", &detector, "--set", "train.max_iters=2"];
    let library = plugin(library);
    args.extend(["--plugin", &library]);
    let of_teacher = format!("teacher.model.detector={teacher}");
    if teacher != "-" {
        args.extend(["--set", &of_teacher]);
    }
    let mut command = bench.train_command(&out, &args);
    succeed(&mut command);
    let run = bench.path(&out);
    let text = metrics(&run);
    let steps = text
        .lines()
        .filter(|line| line.contains("train/loss_total"));
    assert_eq!(steps.count(), 2, "{at}: {text}");
    assert!(
        !text.contains("null") && !text.contains("NaN"),
        "{at}: {text}"
    );
}
