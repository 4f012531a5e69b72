//! Whole runs: equal bits where they must be equal, learning where it must be seen.

use std::thread::sleep;
use std::time::{Duration, Instant};

use kdhost_tests::command::{Workbench, metrics, plugin, series, stderr, stdout, student, succeed};
use kdhost_tests::fixtures::c_plugin;
use serde_json::Value;

#[test]
fn a_method_that_declares_nothing_gives_the_plain_student_to_the_bit() {
    let bench = Workbench::new();
    let plain = bench.train("plain", &["--plugin", "none"]);
    let null = bench.train("null", &["--plugin", &plugin("kd_null")]);
    assert!(student(&plain) == student(&null), "students differ");
    assert_eq!(metrics(&plain), metrics(&null));
}

#[test]
fn equal_seeds_give_equal_bits_whatever_the_number_of_threads() {
    let bench = Workbench::new();
    let hint = plugin("kd_hint");
    let train = |out: &str, threads: &str, workers: &str, seed: &str| {
        let workers = format!("data.workers={workers}");
        let args = ["--plugin", &hint, "--set", &workers, "--seed", seed];
        let mut command = bench.train_command(out, &args);
        command.args(["--set", "train.max_iters=6"]);
        succeed(command.env("RAYON_NUM_THREADS", threads));
        bench.path(out)
    };
    let one = train("one", "1", "1", "5");
    let other = train("other", "1", "1", "6");
    for threads in ["2", "4"] {
        let many = train(threads, threads, "2", "5");
        assert!(
            student(&one) == student(&many),
            "{threads} threads: students differ"
        );
        assert_eq!(metrics(&one), metrics(&many), "{threads} threads");
    }
    assert!(student(&one) != student(&other), "the seed has no effect");
}

#[test]
fn losses_fall_and_the_method_acts() {
    let bench = Workbench::new();
    let args = ["--set", "train.epochs=4"];
    let run = bench.train(
        "run",
        &[&args[..], &["--plugin", &plugin("kd_ssim")]].concat(),
    );
    let text = metrics(&run);
    for key in ["train/loss_bbox", "train/loss_kd_ssim"] {
        let values = series(&text, key);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&values[..8]), mean(&values[values.len() - 8..]));
        assert!(last < first, "{key}: {first} -> {last}");
    }
    let plain = bench.train("plain", &args);
    assert!(student(&run) != student(&plain), "the method has no effect");
}

#[test]
fn a_c_plugin_trains_as_the_rust_method_with_the_same_formula() {
    let bench = Workbench::new();
    let c = c_plugin("feature_l2", &[]).display().to_string();
    let common = ["--set", "train.epochs=1"];
    let c = bench.train("c", &[&common[..], &["--plugin", &c]].concat());
    let hint = plugin("kd_hint");
    let rust = ["--plugin", &hint, "--set", "distill.config.connector=never"];
    let rust = bench.train("rust", &[&common[..], &rust].concat());
    let (c, rust) = (metrics(&c), metrics(&rust));
    let (c, rust) = (
        series(&c, "train/loss_kd_l2"),
        series(&rust, "train/loss_kd_hint"),
    );
    assert_eq!(c.len(), 10);
    assert_eq!(c.len(), rust.len());
    for (step, (c, rust)) in c.iter().zip(&rust).enumerate() {
        // Sums of f32 in another order.
        assert!(
            (c - rust).abs() <= 1e-5 * rust.abs(),
            "step {step}: {c} {rust}"
        );
    }
}

#[test]
fn a_killed_run_resumes_to_the_same_bits() {
    const AT: u64 = 20;
    let bench = Workbench::new();
    let ssim = plugin("kd_ssim");
    let settings = [
        "--plugin",
        &ssim,
        "--set",
        "train.epochs=4",
        "--set",
        "train.checkpoint_interval_iters=5",
        "--set",
        "train.ema_decay=0.9",
        "--set",
        "train.eval_interval_epochs=2",
    ];
    // The teacher is in the cache for both runs afterwards.
    let straight = bench.train("straight", &settings);
    assert_eq!(series(&metrics(&straight), "train/loss_total").len(), 40);

    let mut command = bench.train_command("killed", &settings);
    let mut child = command.spawn().unwrap();
    let killed = bench.path("killed");
    let deadline = Instant::now() + Duration::from_secs(120);
    let steps = || {
        std::fs::read_to_string(killed.join("metrics.jsonl")).map_or(0, |text| {
            text.lines()
                .filter(|l| l.contains("train/loss_total"))
                .count() as u64
        })
    };
    while steps() < AT && Instant::now() < deadline && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(2));
    }
    // A moment that no two test runs share.
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    sleep(Duration::from_millis(u64::from(nanos.subsec_nanos()) % 60));
    child.kill().unwrap();
    child.wait().unwrap();
    let at_kill = steps();
    assert!((AT..40).contains(&at_kill), "killed at step {at_kill}");

    bench.resume("killed");
    assert!(
        student(&straight) == student(&killed),
        "students differ (killed at {at_kill})"
    );
    assert_eq!(metrics(&straight), metrics(&killed));
}

#[test]
fn the_main_job_trains_control_teacher_and_student_and_reuses_the_first_two() {
    let bench = Workbench::new();
    let hint = plugin("kd_hint");
    let args = [
        "--config",
        "tiny.toml",
        "--plugin",
        &hint,
        "--quiet",
        "--set",
        "train.max_iters=4",
    ];
    let first = bench.run(&args);
    assert!(first.status.success(), "{}", stderr(&first));
    let table = stdout(&first);
    for needle in [
        "teacher",
        "student ",
        "student + hint",
        "AP50",
        "ms/step",
        "plugin boundary",
    ] {
        assert!(table.contains(needle), "{needle}: {table}");
    }
    assert!(!table.contains("reused"), "{table}");
    let second = bench.run(&[&args[..], &["--output", "again"]].concat());
    assert_eq!(
        stdout(&second).matches("(reused)").count(),
        2,
        "{}",
        stdout(&second)
    );

    let out = bench.run(&[
        "eval",
        "--config",
        "tiny.toml",
        "--checkpoint",
        "again/student.safetensors",
        "--json",
    ]);
    assert!(out.status.success(), "{}", stderr(&out));
    let metrics: Value = serde_json::from_str(&stdout(&out)).unwrap();
    assert!(metrics["ap"].as_f64().unwrap() >= 0.0, "{metrics}");
}

#[test]
fn ctrl_c_writes_a_checkpoint_and_has_its_own_code() {
    let bench = Workbench::new();
    let mut command = bench.train_command("run", &["--set", "train.epochs=200"]);
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let log = bench.path("run/metrics.jsonl");
    let started = || std::fs::read_to_string(&log).is_ok_and(|t| t.contains("train/loss_total"));
    while !started() && Instant::now() < deadline {
        sleep(Duration::from_millis(5));
    }
    let status = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(bench.path("run/checkpoints/latest").is_file());
}
