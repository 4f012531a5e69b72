//! `kdhost visualize`: pictures of feature maps, for a method with a teacher, one with maps of its own,
//! and none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use kdhost::engine::checkpoint::Choice;
use kdhost::engine::restored::Restored;
use kdhost::state::StateDict;
use kdhost_tests::command::{Workbench, plugin, stderr, stdout};

/// Checks that a picture has `[height, width]` and more than one colour.
fn check_picture(path: &Path, [height, width]: [u32; 2]) {
    let picture = image::open(path).unwrap().to_rgb8();
    assert_eq!(
        (picture.height(), picture.width()),
        (height, width),
        "{}",
        path.display()
    );
    let colors: BTreeSet<[u8; 3]> = picture.pixels().map(|p| p.0).collect();
    assert!(colors.len() > 8, "{}: {colors:?}", path.display());
}

fn visualize(bench: &Workbench, args: &[&str]) -> (Option<i32>, String, String) {
    let all = [&["visualize", "--out", "maps"], args].concat();
    let output = bench.run(&all);
    (output.status.code(), stdout(&output), stderr(&output))
}

/// `[height, width]` of a sheet of square pictures.
fn sheet_size(rows: u32, columns: u32) -> [u32; 2] {
    [6 + rows * (20 + 256 + 6), 6 + columns * (256 + 6)]
}

#[test]
fn student_teacher_and_difference_are_drawn_for_the_first_images() {
    let bench = Workbench::new();
    let plugin = plugin("kd_ssim");
    let args = ["--plugin", &plugin, "--set", "train.max_iters=4"];
    bench.train(
        "run",
        &[&args[..], &["--set", "train.ema_decay=0.9"]].concat(),
    );
    let (code, out, error) = visualize(&bench, &["--run", "run"]);
    assert_eq!(code, Some(0), "{error}");
    for id in 1..=4 {
        check_picture(&bench.path(&format!("maps/{id}.png")), sheet_size(5, 3));
        for level in ["p3", "p5"] {
            for view in ["student", "teacher", "difference"] {
                let file = format!("maps/{id}/neck.{level}_{view}.png");
                check_picture(&bench.path(&file), [64, 64]);
                assert!(out.contains(&file), "{file}: {out}");
            }
        }
    }
    assert!(!bench.path("maps/5.png").exists());
    // One cell: there is nothing to standardise over.
    check_picture(&bench.path("maps/1/neck.p7_teacher.png"), [64, 64]);
    assert!(!bench.path("maps/1/neck.p7_difference.png").exists());
    assert!(!bench.path("maps/1/neck.p3_map.png").exists());
    for needle in ["student ~ teacher", "│ neck.p3 ┆ "] {
        assert!(out.contains(needle), "{needle}: {out}");
    }
}

#[test]
fn maps_that_a_method_makes_are_drawn_beside_what_they_replace() {
    let bench = Workbench::new();
    let plugin = plugin("kd_lgd");
    let every = "train.checkpoint_interval_iters=2";
    let args = ["--set", "train.max_iters=4", "--set", every];
    bench.train("run", &[&args[..], &["--plugin", &plugin]].concat());
    let args = [
        "--run",
        "run",
        "--images",
        "7,2",
        "--split",
        "train",
        "--taps",
        "neck.p3,backbone.c5",
        "--checkpoint",
        "iter_00000002",
    ];
    let (code, out, error) = visualize(&bench, &args);
    assert_eq!(code, Some(0), "{error}");
    for id in [7, 2] {
        check_picture(&bench.path(&format!("maps/{id}.png")), sheet_size(2, 3));
        for file in [
            "neck.p3_student",
            "neck.p3_map",
            "neck.p3_difference",
            "backbone.c5_student",
        ] {
            check_picture(&bench.path(&format!("maps/{id}/{file}.png")), [64, 64]);
        }
        let files = fs::read_dir(bench.path(&format!("maps/{id}"))).unwrap();
        assert_eq!(files.count(), 4);
    }
    assert!(out.contains("student ~ map"), "{out}");

    let (code, _, error) = visualize(&bench, &["--run", "run"]);
    assert_eq!(code, Some(0), "{error}");
    check_picture(&bench.path("maps/1.png"), sheet_size(5, 3));
}

#[test]
fn a_plain_student_is_drawn_alone() {
    let bench = Workbench::new();
    bench.train("run", &["--set", "train.max_iters=2"]);
    let (code, out, error) = visualize(&bench, &["--run", "run", "--images", "3"]);
    assert_eq!(code, Some(0), "{error}");
    check_picture(&bench.path("maps/3.png"), sheet_size(5, 1));
    check_picture(&bench.path("maps/3/neck.p4_student.png"), [64, 64]);
    assert!(!out.contains('~'), "{out}");
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    let bench = Workbench::new();
    bench.train("run", &["--set", "train.max_iters=2"]);
    fs::create_dir(bench.path("notes")).unwrap();
    let cases: [(&[&str], i32, &[&str]); 5] = [
        (
            &["--run", "notes"],
            5,
            &["`notes` holds no run", "config.resolved.toml"],
        ),
        (
            &["--run", "run", "--taps", "neck.p3,neck.q9"],
            2,
            &["no tap `neck.q9`", "neck.p3", "backbone.c5"],
        ),
        (
            &["--run", "run", "--checkpoint", "iter_00000001"],
            5,
            &["no checkpoint `iter_00000001`", "it has: iter_00000002"],
        ),
        (
            &["--run", "run", "--images", "99"],
            2,
            &["the val split has no image `99`; it has 8: 1 ("],
        ),
        (
            &["--run", "run", "gone.jpg"],
            2,
            &["the val split has no image `gone.jpg`"],
        ),
    ];
    for (args, expected, needles) in cases {
        let (code, _, error) = visualize(&bench, args);
        assert_eq!(code, Some(expected), "{args:?}: {error}");
        for needle in needles {
            assert!(error.contains(needle), "{needle}: {error}");
        }
    }
    assert!(!bench.path("maps").exists());
}

#[test]
fn a_run_is_opened_with_the_weights_that_it_exports() {
    let bench = Workbench::new();
    let args = ["--set", "train.max_iters=3", "--set", "train.ema_decay=0.9"];
    let run = bench.train(
        "run",
        &[&args[..], &["--plugin", &plugin("kd_lgd")]].concat(),
    );
    let restored = Restored::open(&run, Choice::Latest).unwrap();
    let exported = StateDict::load(&run.join("student.safetensors")).unwrap();
    assert!(restored.weights.to_state().entries == exported.entries);
    let saved = StateDict::load(&restored.checkpoint.join("method.safetensors")).unwrap();
    assert!(!saved.entries.is_empty());
    assert!(restored.methods.to_state().entries == saved.entries);
    assert_eq!((restored.call.step, restored.call.training), (3, false));
}

#[test]
fn another_plugin_or_a_lost_teacher_is_refused_with_the_way_back() {
    let bench = Workbench::new();
    let file = bench.path("libkd_mine.so");
    fs::copy(plugin("kd_hint"), &file).unwrap();
    let name = file.display().to_string();
    bench.train("run", &["--plugin", &name, "--set", "train.max_iters=2"]);

    fs::remove_dir_all(bench.path("runs/cache")).unwrap();
    let (code, _, error) = visualize(&bench, &["--run", "run"]);
    assert_eq!(code, Some(5), "{error}");
    let command = "kdhost train --resume run";
    assert!(error.contains(command), "{error}");
    bench.resume("run");
    let (code, _, error) = visualize(&bench, &["--run", "run"]);
    assert_eq!(code, Some(0), "{error}");

    fs::copy(plugin("kd_template"), &file).unwrap();
    let (code, _, error) = visualize(&bench, &["--run", "run"]);
    assert_eq!(code, Some(3), "{error}");
    for needle in ["libkd_mine.so", "SHA-256", "environment.json"] {
        assert!(error.contains(needle), "{needle}: {error}");
    }
}
