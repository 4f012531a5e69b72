//! Methods as programs: the host computes what the plugin would, and believes nothing.

use std::process::Output;

use kdhost_tests::artifacts::artifacts;
use kdhost_tests::command::{Workbench, metrics, plugin, stderr, stdout, student};

/// Fifty steps: 40 images in batches of 4, five epochs.
const FIFTY: [&str; 2] = ["--set", "train.epochs=5"];

/// The file of the method's parameters in the last checkpoint, if the method has some.
fn method_state(bench: &Workbench, run: &str) -> Option<Vec<u8>> {
    let entries = std::fs::read_dir(bench.path(run).join("checkpoints")).unwrap();
    let folders = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir());
    let last = folders.max()?;
    std::fs::read(last.join("method.safetensors")).ok()
}

/// Trains with the program of `plugin`, and with its twin that computes by itself.
fn both_ways(method: &str, args: &[&str]) -> Workbench {
    let bench = Workbench::new();
    let program = plugin(&format!("kd_{method}"));
    let direct = plugin(&format!("kd_fixture_{method}_direct"));
    bench.train(
        "program",
        &[&FIFTY[..], args, &["--plugin", &program]].concat(),
    );
    let by_plugin = ["--plugin", &direct, "--set", "distill.execution=plugin"];
    bench.train("plugin", &[&FIFTY[..], args, &by_plugin].concat());
    bench
}

fn assert_equal(bench: &Workbench) {
    let (program, by_plugin) = (bench.path("program"), bench.path("plugin"));
    assert!(student(&program) == student(&by_plugin), "students differ");
    assert_eq!(metrics(&program), metrics(&by_plugin));
    assert!(
        method_state(bench, "program") == method_state(bench, "plugin"),
        "parameters of the method differ"
    );
}

#[test]
fn fifty_steps_by_program_and_by_plugin_give_the_same_bytes() {
    assert_equal(&both_ways("ssim", &[]));
}

#[test]
fn so_do_maps_phases_and_learned_parts() {
    let bench = both_ways("lgd", &["--set", "train.log_interval_iters=5"]);
    assert!(
        method_state(&bench, "program").is_some(),
        "lgd has parameters"
    );
    assert_equal(&bench);
}

#[test]
fn a_plugin_carries_no_compute_backend_unless_asked() {
    let size = |library: &str| {
        std::fs::metadata(artifacts().plugin(library))
            .unwrap()
            .len()
    };
    for method in ["ssim", "lgd"] {
        let (slim, whole) = (
            size(&format!("kd_{method}")),
            size(&format!("kd_fixture_{method}_direct")),
        );
        assert!(
            slim * 3 < whole * 2 && slim < 7_000_000,
            "{method}: {slim} bytes, {whole} with a backend"
        );
    }
}

#[test]
fn a_plugin_without_backend_says_so_when_it_is_asked_to_compute() {
    let bench = Workbench::new();
    let ssim = plugin("kd_ssim");
    let mut command = bench.train_command("run", &["--plugin", &ssim]);
    let output = command
        .args(["--set", "distill.execution=plugin"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("cannot compute by itself"), "{said}");
    assert!(said.contains("--features cpu"), "{said}");
}

fn stress(bench: &Workbench, config: &[&str]) -> Output {
    let stress = plugin("kd_fixture_stress");
    // Not quiet: a warning must be seen.
    let mut command = bench.command(&["train", "--config", "tiny.toml", "--output", "run"]);
    command.args(["--plugin", &stress]);
    command.args(["--set", "train.max_iters=2"]);
    for set in config {
        command.args(["--set", set]);
    }
    command.output().unwrap()
}

#[test]
fn of_a_foreign_format_nothing_is_read_and_the_plugin_computes_with_one_warning() {
    let bench = Workbench::new();
    let output = stress(&bench, &["distill.config.program=foreign"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert_eq!(said.matches("burn-ir 9.9.9").count(), 1, "{said}");
    assert!(said.contains("burn-ir 0.22.1"), "{said}");
}

#[test]
fn a_foreign_program_without_anything_beside_it_is_refused() {
    let bench = Workbench::new();
    let output = stress(&bench, &["distill.config.program=foreign_only"]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.contains("burn-ir 9.9.9") && said.contains("rebuild"),
        "{said}"
    );
}

#[test]
fn what_is_no_sound_program_is_refused_with_the_method_named() {
    for (offer, words) in [
        ("garbage", "cannot be decoded"),
        ("unbound", "is missing"),
        ("silent", "without a program"),
    ] {
        let bench = Workbench::new();
        let output = stress(&bench, &[&format!("distill.config.program={offer}")]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{offer}: {said}");
        assert!(
            said.contains(words) && said.contains("stress"),
            "{offer}: {said}"
        );
    }
}
