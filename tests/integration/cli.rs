//! The commands of the README as a user types them: results on standard output, all else on
//! standard error.

use std::fs;

use kdhost_tests::artifacts::{artifacts, workspace_root};
use kdhost_tests::command::{Workbench, plugin, stderr, stdout};

#[test]
fn predict_needs_the_student_file_alone_and_draws() {
    let bench = Workbench::new();
    bench.train("run", &["--set", "train.max_iters=2"]);
    bench.photo("photo.jpg");
    let args = [
        "predict",
        "photo.jpg",
        "--checkpoint",
        "run/student.safetensors",
        "--out",
        "drawn",
        "--score-threshold",
        "0",
    ];
    let output = bench.run(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stdout(&output).starts_with("photo.jpg -> drawn/photo.png"),
        "{}",
        stdout(&output)
    );
    let drawn = image::open(bench.path("drawn/photo.png")).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (90, 70));

    fs::write(bench.path("broken.jpg"), b"no image").unwrap();
    let output = bench.run(&[&["predict", "broken.jpg"], &args[2..]].concat());
    assert_eq!(output.status.code(), Some(5));
    assert!(
        stderr(&output).contains("broken.jpg"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn plugins_are_listed_and_inspected_without_running_them() {
    let bench = Workbench::new();
    let output = bench.run(&["plugin", "list"]);
    for name in [
        "libkd_null.so",
        "libkd_hint.so",
        "libkd_ssim.so",
        "libkd_template.so",
    ] {
        assert!(
            stdout(&output).contains(name),
            "{name}: {}",
            stdout(&output)
        );
    }
    let path = plugin("kd_ssim");
    let output = bench.run(&["plugin", "inspect", &path]);
    assert!(output.status.success(), "{}", stderr(&output));
    for needle in ["sha256", "neck.*", "loss_ssim", "patch_size"] {
        assert!(
            stdout(&output).contains(needle),
            "{needle}: {}",
            stdout(&output)
        );
    }
    let output = bench.run(&["plugin", "inspect", "./libgone.so"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}

#[test]
fn a_plugin_is_found_by_name_in_the_path_variable_and_never_in_the_working_directory() {
    let bench = Workbench::new();
    fs::create_dir(bench.path("mine")).unwrap();
    let plugin = artifacts().plugin("kd_null");
    fs::copy(plugin, bench.path("mine/libkd_mine.so")).unwrap();
    fs::copy(plugin, bench.path("libkd_here.so")).unwrap();
    let args = [
        "train",
        "--config",
        "tiny.toml",
        "--quiet",
        "--set",
        "train.max_iters=1",
    ];
    let run = |name: &str| {
        bench
            .command(&args)
            .args(["--plugin", name])
            .env("KDHOST_PLUGIN_PATH", bench.path("mine"))
            .output()
            .unwrap()
    };
    let found = run("libkd_mine.so");
    assert!(found.status.success(), "{}", stderr(&found));
    let not_found = run("libkd_here.so");
    assert_eq!(not_found.status.code(), Some(3), "{}", stderr(&not_found));
    assert!(
        stderr(&not_found).contains("mine"),
        "{}",
        stderr(&not_found)
    );
}

#[test]
fn every_shipped_configuration_is_accepted_and_can_be_shown() {
    let bench = Workbench::new();
    let mut files = Vec::new();
    for folder in fs::read_dir(workspace_root().join("configs")).unwrap() {
        let folder = folder.unwrap().path();
        if folder.is_dir() {
            files.extend(fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()));
        }
    }
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let is_comparison = file.parent().unwrap().ends_with("ab");
        let file = file.display().to_string();
        let output = match is_comparison {
            true => bench.run(&["ab", &file, "--dry-run"]),
            false => bench.run(&["config", "check", &file]),
        };
        assert!(output.status.success(), "{file}: {}", stderr(&output));
    }
    let output = bench.run(&["config", "show", "--config", "tiny.toml", "--origin"]);
    assert!(stdout(&output).contains("tiny.toml"), "{}", stdout(&output));
    let output = bench.run(&["config", "check", "absent.toml"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn taps_of_student_and_teacher_stand_side_by_side() {
    let bench = Workbench::new();
    let output = bench.run(&["model", "taps", "--config", "tiny.toml"]);
    assert!(output.status.success(), "{}", stderr(&output));
    for needle in ["backbone.c5", "neck.p3", "head.cls_logits.p7"] {
        assert!(
            stdout(&output).contains(needle),
            "{needle}: {}",
            stdout(&output)
        );
    }
}
