//! Several teachers: each trained with its own eyes, forward once a step, read by whom it is cast for.

use std::collections::BTreeMap;
use std::path::Path;

use kdhost_tests::command::{Workbench, metrics, plugin, stderr, stdout, student, succeed};
use kdhost_tests::fixtures::c_plugin;
use serde_json::Value;

/// A second teacher with another width, normalisation and seed of nothing else.
const ASSISTANT: &str = r#"
[teachers.assistant]
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]

[teachers.assistant.model]
tiny_width = 8
"#;

fn losses(run: &Path) -> Vec<BTreeMap<String, Value>> {
    let text = metrics(run);
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let all: Vec<BTreeMap<String, Value>> = lines.collect();
    all.into_iter()
        .filter(|l| l.contains_key("train/loss_total"))
        .collect()
}

fn term(line: &BTreeMap<String, Value>, name: &str) -> f64 {
    let value = line.get(&format!("train/loss_kd_{name}"));
    value
        .unwrap_or_else(|| panic!("no {name} in {line:?}"))
        .as_f64()
        .unwrap()
}

fn bench_with(files: &[(&str, String)]) -> Workbench {
    let bench = Workbench::new();
    for (name, text) in files {
        std::fs::write(bench.path(name), text).unwrap();
    }
    bench
}

#[test]
fn a_method_of_two_teachers_is_the_sum_of_two_methods_of_one() {
    let both = c_plugin("two_teachers", &[]).display().to_string();
    let single = c_plugin("feature_l2", &[]).display().to_string();
    let entries = |first: &str, second: &str| {
        format!(
            "{ASSISTANT}
[distill.methods.a]
plugin = \"{single}\"
teachers = {{ teacher = \"{first}\" }}

[distill.methods.b]
plugin = \"{single}\"
weight = 0.5
teachers = {{ teacher = \"{second}\" }}
"
        )
    };
    let bench = bench_with(&[
        (
            "both.toml",
            format!("{ASSISTANT}\n[distill]\nplugin = \"{both}\"\n"),
        ),
        ("two.toml", entries("teacher", "assistant")),
        ("swapped.toml", entries("assistant", "teacher")),
        ("same.toml", entries("teacher", "teacher")),
    ]);
    let train = |name: &str| {
        let file = format!("{name}.toml");
        losses(&bench.train(name, &["--config", &file, "--set", "train.max_iters=4"]))
    };
    let (both, two, swapped, same) = (train("both"), train("two"), train("swapped"), train("same"));
    for (both, two) in both.iter().zip(&two) {
        let (got, wanted) = (term(both, "both"), term(two, "a_l2") + term(two, "b_l2"));
        // The gradients of two methods add up in another order.
        assert!((got - wanted).abs() < 1e-4 * wanted, "{got} {wanted}");
    }
    // From one student: who is read decides.
    let (a, b) = (term(&two[0], "a_l2"), 2.0 * term(&two[0], "b_l2"));
    assert!((a - b).abs() > 1e-3 * a, "both read one teacher: {a} {b}");
    assert!((term(&swapped[0], "a_l2") - b).abs() < 1e-6 * b);
    assert!((2.0 * term(&swapped[0], "b_l2") - a).abs() < 1e-6 * a);
    assert!((2.0 * term(&same[0], "b_l2") - a).abs() < 1e-6 * a);
}

#[test]
fn teachers_are_trained_once_under_their_names_and_only_those_that_are_read() {
    let both = c_plugin("two_teachers", &[]).display().to_string();
    let third = "\n[teachers.unused.model]\ntiny_width = 20\n";
    let bench = bench_with(&[(
        "both.toml",
        format!("{ASSISTANT}{third}\n[distill]\nplugin = \"{both}\"\n"),
    )]);
    let files = ["--config", "tiny.toml", "--config", "both.toml"];
    let args = [&files[..], &["--set", "train.max_iters=3"]].concat();
    let output = succeed(&mut bench.command(&args));
    let text = stdout(&output);
    for needle in [
        "│ teacher ",
        "│ teacher assistant ",
        "teacher `assistant` forward",
    ] {
        assert!(text.contains(needle), "{needle}: {text}");
    }
    assert!(!text.contains("unused"), "{text}");
    let log = stderr(&output);
    for needle in [
        "teacher verified unchanged",
        "teacher assistant verified unchanged",
    ] {
        assert!(log.contains(needle), "{needle}: {log}");
    }
    let again = succeed(bench.command(&args).args(["--output", "again"]));
    assert_eq!(
        stdout(&again).matches("(reused)").count(),
        3,
        "{}",
        stdout(&again)
    );

    let args = [
        &["bench", "step", "--repeat", "1", "--warmup", "1", "--json"][..],
        &files,
    ]
    .concat();
    let report: Value = serde_json::from_str(&stdout(&succeed(&mut bench.command(&args)))).unwrap();
    for part in ["teacher", "teacher_assistant"] {
        assert!(
            report["parts_ms"][part].as_f64().unwrap() > 0.0,
            "{part}: {report}"
        );
    }
    // Without a table for the role, the way to add one is said.
    let missing = ["train", "--config", "tiny.toml", "--plugin", &both];
    let output = bench.run(&missing);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("add a table `[teachers.assistant]`"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_teacher_sees_images_of_its_own_size_and_numbers() {
    let bench = Workbench::new();
    let hint = plugin("kd_hint");
    let train = |out: &str, settings: &[&str]| {
        let mut command = bench.train_command(out, &["--plugin", &hint]);
        command.args(["--set", "train.max_iters=3"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command
    };
    succeed(&mut train("plain", &[]));
    // The student's own numbers, written out: the same images, so the same bits.
    let same = [
        "teacher.mean=[0.485, 0.456, 0.406]",
        "teacher.std=[0.229, 0.224, 0.225]",
        "teacher.input_size=[64, 64]",
    ];
    succeed(&mut train("same", &same));
    assert!(student(&bench.path("plain")) == student(&bench.path("same")));
    succeed(&mut train("once", &["teacher.input_scale=1.0"]));
    assert!(student(&bench.path("plain")) == student(&bench.path("once")));
    let other = [
        "teacher.mean=[0.5, 0.5, 0.5]",
        "teacher.std=[1.0, 1.0, 1.0]",
    ];
    succeed(&mut train("other", &other));
    assert!(student(&bench.path("plain")) != student(&bench.path("other")));
    // A method that compares maps cell by cell says why it cannot; one that resizes them can.
    let large = ["teacher.input_size=[128, 96]"];
    let strict = [large[0], "distill.config.resize=never"];
    let output = train("large", &strict).output().unwrap();
    let log = stderr(&output);
    assert!(!output.status.success(), "maps of two sizes were compared");
    assert!(log.contains("the maps must have one size"), "{log}");
    let ssim = plugin("kd_ssim");
    let args = [
        "--plugin",
        &ssim,
        "--set",
        large[0],
        "--set",
        "train.max_iters=3",
    ];
    succeed(&mut bench.train_command("fitted", &args));
    let args = [
        "visualize",
        "--run",
        "fitted",
        "--out",
        "maps",
        "--images",
        "1",
    ];
    succeed(&mut bench.command(&args));
    assert!(bench.path("maps/1/neck.p3_teacher.png").is_file());
    // Images that keep their ratio have no size in common, but one may be a multiple of the other.
    let kept = [
        "--set",
        "data.transform.resize=keep_ratio",
        "--set",
        "data.transform.short_side=48",
        "--set",
        "data.transform.long_side=64",
        "--set",
        "teacher.input_scale=1.5",
        "--set",
        "train.max_iters=2",
    ];
    let args = [&["--plugin", &ssim][..], &kept].concat();
    succeed(&mut bench.train_command("kept", &args));
    let ratio = ["--set", "data.transform.resize=keep_ratio"];
    let output = bench
        .train_command("ratio", &[&args_of(&large)[..], &ratio].concat())
        .output();
    assert_eq!(output.unwrap().status.code(), Some(2));
}

fn args_of<'a>(settings: &[&'a str]) -> Vec<&'a str> {
    settings
        .iter()
        .flat_map(|setting| ["--set", setting])
        .collect()
}
