//! `kdhost bench` as a user and as `tests/bench/side_by_side.py` call it.

use std::fs;
use std::io::Write as _;
use std::process::{Output, Stdio};

use kdhost_tests::command::{Workbench, plugin, stderr, stdout};
use serde_json::{Value, json};

/// Runs `kdhost ARGS` on these lines of standard input.
fn answer(bench: &Workbench, args: &[&str], lines: &[String]) -> Output {
    let mut child = bench
        .command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for line in lines {
        // A child that refuses a line reads no further.
        let _ = writeln!(input, "{line}");
    }
    drop(input);
    child.wait_with_output().unwrap()
}

fn answers(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", stderr(output));
    let text = stdout(output);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_step_is_timed_part_by_part() {
    let bench = Workbench::new();
    let plugin = plugin("kd_ssim");
    let args = [
        "bench",
        "step",
        "--config",
        "tiny.toml",
        "--plugin",
        &plugin,
        "--repeat",
        "2",
        "--warmup",
        "1",
    ];
    let output = bench.run(&[&args[..], &["--json"]].concat());
    let report = &answers(&output)[0];
    assert_eq!(report["steps"], 2);
    assert_eq!(report["images_per_step"], 4);
    for part in [
        "teacher",
        "student_forward",
        "method_forward",
        "method_backward",
        "student_backward",
    ] {
        assert!(
            report["parts_ms"][part].as_f64().unwrap() > 0.0,
            "{part}: {report}"
        );
    }
    assert!(report["peak_mib"].as_f64().unwrap() > 1.0, "{report}");
    assert!(
        !bench.path("runs").exists(),
        "a bench leaves nothing behind"
    );

    let table = bench.run(&args);
    for needle in ["boundary", "student_backward", "peak memory"] {
        assert!(
            stdout(&table).contains(needle),
            "{needle}: {}",
            stdout(&table)
        );
    }
}

#[test]
fn operations_are_answered_line_by_line() {
    let bench = Workbench::new();
    let operations = [
        json!({"op": "conv2d", "x": [1, 8, 12, 12], "out_channels": 8, "kernel": 3, "padding": 1}),
        json!({"op": "conv2d", "x": [1, 8, 12, 12], "out_channels": 8, "kernel": 3, "stride": 2,
               "padding": 1, "dilation": 1, "groups": 8, "input_gradient": false}),
        json!({"op": "batch_norm", "x": [1, 8, 12, 12]}),
        json!({"op": "max_pool", "x": [1, 8, 12, 12]}),
        json!({"op": "interpolate", "x": [1, 8, 6, 6], "size": [12, 12]}),
        json!({"op": "focal_loss", "x": [1, 18, 6, 6], "num_classes": 2}),
    ];
    let lines: Vec<String> = operations
        .iter()
        .flat_map(|o| [o.to_string(), o.to_string()])
        .collect();
    let times = answers(&answer(&bench, &["bench", "op", "--follow"], &lines));
    assert_eq!(times.len(), lines.len());
    for time in times {
        assert!(time["forward_ms"].as_f64().unwrap() > 0.0, "{time}");
        assert!(time["backward_ms"].as_f64().unwrap() >= 0.0, "{time}");
    }

    let output = answer(
        &bench,
        &["bench", "op", "--follow"],
        &["{\"op\":\"conv3d\"}".into()],
    );
    assert!(!output.status.success());
    assert!(stderr(&output).contains("conv3d"), "{}", stderr(&output));
}

#[test]
fn a_reference_case_that_is_not_there_or_does_not_fit_is_named() {
    let bench = Workbench::new();
    let args = ["bench", "step", "--reference", "case", "--follow"];
    let output = bench.run(&args);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains("case.json"), "{}", stderr(&output));

    fs::create_dir(bench.path("case")).unwrap();
    let case = json!({"backbone": "resnet18", "num_classes": 3, "fpn_channels": 8, "lr": 0.1,
                      "momentum": 0.9, "weight_decay": 0.0, "targets": [], "colour": "red"});
    fs::write(bench.path("case/case.json"), case.to_string()).unwrap();
    let output = bench.run(&args);
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains("colour"), "{}", stderr(&output));
}

#[test]
fn students_of_every_task_are_timed_in_turns_on_files() {
    let bench = Workbench::new();
    bench.photo("a.jpg");
    bench.photo("b.png");
    let once = ["--set", "train.max_iters=1"];
    let small = ["--set", "data.transform.size=[32, 32]"];
    bench.train("large", &once);
    bench.train("small", &[&once[..], &small].concat());
    bench.train("labels", &[&once[..], &["--task", "segmentation"]].concat());
    bench.train(
        "classes",
        &[&once[..], &["--task", "classification"]].concat(),
    );
    let students = ["large", "small", "labels", "classes"];
    let files = students.map(|run| format!("{run}/student.safetensors"));
    let mut args = vec!["bench", "predict", "a.jpg", "b.png", "--repeat", "2"];
    for file in &files {
        args.extend(["--checkpoint", file]);
    }
    let table = bench.run(&args);
    assert!(table.status.success(), "{}", stderr(&table));
    assert!(
        stdout(&table).contains("medians of 4 predictions"),
        "{}",
        stdout(&table)
    );
    args.push("--json");
    let rows = answers(&bench.run(&args)).remove(0);
    let column = |key: &str| -> Vec<f64> {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row[key].as_f64().unwrap()).collect()
    };
    assert_eq!(rows[1]["checkpoint"], files[1]);
    assert_eq!(rows[0]["input_size"], json!([64, 64]));
    assert_eq!(column("input_bytes")[..2], [49152.0, 12288.0]);
    let parameters = column("parameters");
    assert!(parameters[0] == parameters[1] && parameters[0] != parameters[3]);
    assert_eq!(column("ratio_to_first")[0], 1.0);
    for part in [
        "prepare_ms",
        "network_ms",
        "answer_ms",
        "total_ms",
        "ratio_to_first",
    ] {
        assert!(
            column(part).iter().all(|value| *value > 0.0),
            "{part}: {rows}"
        );
    }

    let output = bench.run(&[&args[..], &["--checkpoint", "tiny.toml"]].concat());
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("tiny.toml"), "{}", stderr(&output));
}
