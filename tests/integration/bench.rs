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
