//! What goes wrong ends with a message that names the culprit and with its own exit code.

use std::fs;
use std::path::Path;

use kdhost_tests::artifacts::artifacts;
use kdhost_tests::command::{Workbench, stderr};
use kdhost_tests::fixtures::{
    c_plugin, mismatched_plugin, opted_out_plugin, patched, stress_plugin,
};

const USAGE: i32 = 2;
const PLUGIN_LOAD: i32 = 3;
const PLUGIN_RUN: i32 = 4;
const DATA: i32 = 5;

/// Trains with a plugin and gives exit code and message.
fn train(bench: &Workbench, plugin: &Path, args: &[&str]) -> (Option<i32>, String) {
    let plugin = plugin.display().to_string();
    let settings = [
        "train.max_iters=2",
        "teacher.epochs=1",
        "data.shapes.num_train=8",
    ];
    let mut command = bench.train_command("run", &["--plugin", &plugin]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let output = command.args(args).output().unwrap();
    (output.status.code(), stderr(&output))
}

#[test]
fn files_that_are_no_plugins() {
    let bench = Workbench::new();
    let text = bench.path("libtext.so");
    fs::write(&text, "just words").unwrap();
    let whole = fs::read(artifacts().plugin("kd_null")).unwrap();
    let cut = bench.path("libcut.so");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    for path in [
        bench.path("libmissing.so"),
        text,
        cut,
        c_plugin("faulty", &["NO_ENTRY"]),
        c_plugin("faulty", &["NOTE_ABI_MAJOR=2"]),
        c_plugin("faulty", &["NULL_ENTRY_FORWARD"]),
        // `e_machine` 0xF3 is RISC-V.
        patched(artifacts().plugin("kd_null"), "libriscv.so", 18, &[0xf3, 0]),
        mismatched_plugin(),
        opted_out_plugin(),
    ] {
        let (code, message) = train(&bench, &path, &[]);
        assert_eq!(code, Some(PLUGIN_LOAD), "{}: {message}", path.display());
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(message.contains(name.as_ref()), "{name}: {message}");
        assert!(!message.contains("panicked"), "{message}");
    }
}

#[test]
fn a_panic_in_any_entry_stops_the_run_and_names_the_entry() {
    for entry in ["create", "plan", "init_state", "forward", "backward"] {
        let bench = Workbench::new();
        let at = format!("distill.config.at={entry}");
        let (code, message) = train(
            &bench,
            stress_plugin(),
            &["--set", &at, "--set", "distill.config.fault=panic"],
        );
        assert_eq!(code, Some(PLUGIN_RUN), "{entry}: {message}");
        assert!(message.contains(entry), "{entry}: {message}");
    }
}

#[test]
fn a_loss_that_is_not_a_number_is_named_and_the_last_state_is_kept() {
    let bench = Workbench::new();
    let plugin = c_plugin("faulty", &["LOSS_VALUE=NAN"]);
    let (code, message) = train(&bench, &plugin, &[]);
    assert_eq!(code, Some(PLUGIN_RUN), "{message}");
    assert!(
        message.contains("NaN") && message.contains("loss"),
        "{message}"
    );
}

#[test]
fn configuration_mistakes_come_with_the_nearest_name() {
    let bench = Workbench::new();
    let hint = artifacts().plugin("kd_hint");
    let (code, message) = train(&bench, hint, &["--set", "distill.config.distence=l1"]);
    assert_eq!(code, Some(USAGE), "{message}");
    assert!(message.contains("distance"), "{message}");

    let (code, message) = train(&bench, hint, &["--set", "train.lrr=0.1"]);
    assert_eq!(code, Some(USAGE), "{message}");
    assert!(message.contains("`train.lr`"), "{message}");

    let (code, message) = train(&bench, hint, &["--set", "distill.loss_weights.ssim=2"]);
    assert_eq!(code, Some(USAGE), "{message}");
    assert!(message.contains("loss_hint"), "{message}");

    let unknown = c_plugin("faulty", &["TAP_PATTERN=neck.q9"]);
    let (code, message) = train(&bench, &unknown, &[]);
    assert_eq!(code, Some(PLUGIN_LOAD), "{message}");
    assert!(
        message.contains("neck.q9") && message.contains("neck.p3"),
        "{message}"
    );
}

#[test]
fn a_missing_data_set_names_the_key_or_the_file() {
    let bench = Workbench::new();
    let output = bench.run(&[
        "train",
        "--config",
        "tiny.toml",
        "--set",
        "data.dataset=voc",
    ]);
    assert_eq!(output.status.code(), Some(USAGE), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("data.voc.root"),
        "{}",
        stderr(&output)
    );

    let args = ["--set", "data.dataset=voc", "--set", "data.voc.root=gone"];
    let output = bench.run(&[&["train", "--config", "tiny.toml"], &args[..]].concat());
    assert_eq!(output.status.code(), Some(DATA), "{}", stderr(&output));
    assert!(stderr(&output).contains("gone"), "{}", stderr(&output));
}

#[test]
fn a_run_directory_is_never_overwritten() {
    let bench = Workbench::new();
    let first = bench.train("run", &["--set", "train.max_iters=1"]);
    let before = fs::read(first.join("student.safetensors")).unwrap();
    let output = bench.train_command("run", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(DATA), "{}", stderr(&output));
    assert!(stderr(&output).contains("--resume"), "{}", stderr(&output));
    assert!(fs::read(first.join("student.safetensors")).unwrap() == before);
}

#[test]
fn a_resume_with_another_configuration_is_refused() {
    let bench = Workbench::new();
    let run = bench.train("run", &["--set", "train.max_iters=2"]);
    let file = run.join("config.resolved.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("momentum = 0.9", "momentum = 0.8")).unwrap();
    let output = bench.run(&["train", "--resume", "run", "--quiet"]);
    assert_eq!(output.status.code(), Some(USAGE), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("settings differ"),
        "{}",
        stderr(&output)
    );
}
