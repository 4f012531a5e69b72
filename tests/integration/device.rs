//! Where a run computes and in which numbers, as a user asks for it. What a GPU does needs one:
//! `tests/gpu`.

use kdhost_tests::command::{Workbench, metrics, plugin, stderr, student};

#[test]
fn a_device_that_is_not_there_is_refused_with_the_way_to_get_it() {
    let bench = Workbench::new();
    let output = bench
        .train_command("run", &["--device", "cuda:0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(message.contains("--features cuda"), "{message}");
    assert!(!bench.path("run").exists(), "nothing was begun");

    let output = bench
        .train_command("run", &["--set", "device=gpu"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(
        message.contains("`device`") && message.contains("`gpu` is no device"),
        "{message}"
    );

    let output = bench.run(&["train", "--device", "gpu"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn the_device_by_name_changes_nothing_and_is_recorded() {
    let bench = Workbench::new();
    let settings = ["--set", "train.max_iters=3"];
    let plain = bench.train("plain", &settings);
    let named = bench.train("named", &[&settings[..], &["--device", "cpu"]].concat());
    assert!(student(&plain) == student(&named), "students differ");
    assert_eq!(metrics(&plain), metrics(&named));
    let environment = std::fs::read_to_string(named.join("environment.json")).unwrap();
    assert!(environment.contains("\"device\": \"cpu\""), "{environment}");
}

#[test]
fn a_method_distils_in_half_precision() {
    let bench = Workbench::new();
    let run = |out: &str, precision: &str| {
        let precision = format!("train.precision={precision}");
        let settings = ["--set", "train.max_iters=6", "--set", &precision];
        bench.train(
            out,
            &[&settings[..], &["--plugin", &plugin("kd_ssim")]].concat(),
        )
    };
    let (half, full) = (run("half", "bf16"), run("full", "f32"));
    assert!(
        student(&half) != student(&full),
        "the precision has an effect"
    );
    let last = |run: &std::path::Path, key: &str| -> f64 {
        let text = metrics(run);
        let mut values = text.lines().filter_map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value.get(key)?.as_f64()
        });
        values.next_back().unwrap()
    };
    for key in ["train/loss_cls", "train/loss_kd_ssim"] {
        let (half, full) = (last(&half, key), last(&full, key));
        assert!(
            (half / full - 1.0).abs() < 0.05,
            "{key}: {half}, f32 {full}"
        );
    }
}
