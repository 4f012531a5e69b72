//! `kdhost ab`: arms × seeds as processes, equality proved, the same report whatever was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kdhost_tests::artifacts::workspace_root;
use kdhost_tests::command::{Workbench, plugin, stderr, stdout, succeed};
use kdhost_tests::fixtures::stress_plugin;
use serde_json::Value;

fn ab(bench: &Workbench, out: &str, arguments: &[&str]) -> Command {
    let mut all = vec!["ab", "--config", "tiny.toml", "--out", out];
    all.extend(arguments);
    bench.command(&all)
}

fn report(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("report.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A report as text, without what depends on the machine's mood.
fn without_times(folder: &Path) -> String {
    let mut report = report(folder);
    let removed = report.as_object_mut().unwrap().remove("machine");
    assert!(removed.is_some());
    serde_json::to_string_pretty(&report).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|value| value.as_f64().unwrap()).collect()
}

#[test]
fn a_method_that_does_nothing_differs_by_exactly_nothing() {
    let bench = Workbench::new();
    let null = plugin("kd_null");
    let arguments = [
        "--arm", "none", "--arm", &null, "--seeds", "3", "--sd", "0.4",
    ];
    let output = succeed(&mut ab(&bench, "ab", &arguments));
    let said = stderr(&output);
    // The design stands before the first run.
    let design = said.find("found 80 times of 100").expect(&said);
    assert!(design < said.find("begins").expect(&said), "{said}");
    assert!(
        stdout(&output).contains("no difference shown"),
        "{}",
        stdout(&output)
    );

    let folder = bench.path("ab");
    let first = report(&folder);
    let comparison = &first["comparisons"][0];
    assert_eq!(comparison["arm"], "null");
    assert_eq!(comparison["verdict"], "no_difference_shown");
    let pairs = comparison["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 3);
    for pair in pairs {
        assert_eq!(pair["difference"], 0.0);
        assert_eq!(pair["bootstrap"]["interval"]["low"], 0.0);
        assert_eq!(pair["bootstrap"]["interval"]["high"], 0.0);
    }
    let students = |arm: usize| -> Vec<Value> {
        let runs = first["arms"][arm]["runs"].as_array().unwrap().iter();
        runs.map(|run| run["student_hash"].clone()).collect()
    };
    assert!(students(0) == students(1), "the same weights, bit by bit");
    assert_ne!(students(0)[0], students(0)[1], "seeds are different runs");
    // What was fed in is there for every run, and the same for both arms of a seed.
    let prints = &first["settings"]["fingerprints"];
    for key in [
        "student_init",
        "order",
        "first_batch",
        "last_batch",
        "protocol",
        "host",
    ] {
        let of = |arm: &str| prints[format!("runs/{arm}/seed-1")][key].as_str().unwrap();
        assert_eq!(of("none"), of("null"), "{key}");
    }
    assert_ne!(
        prints["runs/none/seed-0"]["order"],
        prints["runs/none/seed-1"]["order"]
    );
    assert_eq!(first["settings"]["shared"]["train.epochs"], "2");
    assert_eq!(numbers(&first["arms"][0]["precision_recall"]).len(), 101);
    assert_eq!(first["problems"].as_array().unwrap().len(), 0);
    let costs = &first["machine"]["costs"];
    assert_eq!(
        costs["none"]["student_parameters"],
        costs["null"]["student_parameters"]
    );
    let html = fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(html.contains("kdhost.ab/1"));

    // The same command trains nothing and says the same.
    let before = without_times(&folder);
    let started = fs::metadata(folder.join("runs/none/seed-0/result.json")).unwrap();
    succeed(&mut ab(&bench, "ab", &arguments));
    assert_eq!(without_times(&folder), before);
    let now = fs::metadata(folder.join("runs/none/seed-0/result.json")).unwrap();
    assert_eq!(started.modified().unwrap(), now.modified().unwrap());

    // What was fixed stays fixed.
    let mut other = arguments.to_vec();
    other.extend(["--threshold", "0.1"]);
    let output = ab(&bench, "ab", &other).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("`threshold` was 0.5"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_planted_unequal_setting_is_refused_with_its_key() {
    let bench = Workbench::new();
    let arm = format!("{}:train.lr=0.5", plugin("kd_null"));
    let output = ab(&bench, "ab", &["--arm", &arm, "--seeds", "2"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    for expected in ["train.lr: 0.5 in arm", "--allow-diff train.lr"] {
        assert!(said.contains(expected), "{said}");
    }
    assert!(!bench.path("ab").exists(), "nothing was begun");

    let arguments = ["--arm", &arm, "--seeds", "1", "--allow-diff", "train.lr"];
    succeed(&mut ab(&bench, "ab", &arguments));
    let report = report(&bench.path("ab"));
    let differences = report["settings"]["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 1);
    assert_eq!(differences[0]["key"], "train.lr");
    assert_eq!(report["settings"]["allowed"][0], "train.lr");
    // One seed says nothing of others.
    assert_eq!(report["comparisons"][0]["verdict"], "underpowered");
    assert!(report["comparisons"][0]["p"].is_null());

    // A mistake of a method's own setting is refused before anything is trained.
    let arm = format!("{}:no_such_key=1", plugin("kd_ssim"));
    let output = ab(&bench, "other", &["--arm", &arm]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("no_such_key"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_arm_with_stages_is_compared_by_its_last_stage_before_the_first_run() {
    let bench = Workbench::new();
    let schedule = r#"{"stages": [
        {"name": "compress", "student": "teacher", "init_from": "teacher", "input_scale": 0.5},
        {"name": "distill", "teacher": "compress", "input_scale": 0.5, "teacher_input_scale": 0.5}
    ]}"#;
    let spec = format!(
        "config = \"tiny.toml\"\nseeds = 2\nout = \"ab\"\n\
         set = {{ \"data.transform.size\" = [96, 96], \"data.shapes.size\" = [96, 96] }}\n\
         [[arms]]\nname = \"staged\"\nplugin = \"{}\"\nset = {{ schedule = '''{schedule}''' }}\n",
        plugin("kd_fixture_stages")
    );
    fs::write(bench.path("ab.toml"), spec).unwrap();
    for more in [&[][..], &["--dry-run"]] {
        let mut command = bench.command(&["ab", "ab.toml"]);
        let output = command.args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let said = stderr(&output);
        for expected in [
            "data.transform.size: [48, 48] in arm `staged`, [96, 96] in the control",
            "--allow-diff data.transform.size --allow-diff first_batch --allow-diff last_batch",
        ] {
            assert!(said.contains(expected), "{said}");
        }
    }
    assert!(!bench.path("ab/runs/none").exists(), "nothing was begun");

    let mut allowed = vec!["ab", "ab.toml"];
    for key in ["data.transform.size", "first_batch", "last_batch"] {
        allowed.extend(["--allow-diff", key]);
    }
    succeed(&mut bench.command(&allowed));
    let folder = bench.path("ab");
    let before = without_times(&folder);
    let report = report(&folder);
    let differences = report["settings"]["differences"].as_array().unwrap();
    let of_settings: Vec<&Value> = (differences.iter())
        .filter(|difference| difference["seed"].is_null())
        .collect();
    assert_eq!(of_settings.len(), 1, "{differences:?}");
    assert_eq!(of_settings[0]["key"], "data.transform.size");
    let of_facts = |key: &str| differences.iter().filter(|d| d["key"] == key).count();
    assert_eq!([of_facts("first_batch"), of_facts("last_batch")], [2, 2]);
    let prints = &report["settings"]["fingerprints"];
    for key in ["student_init", "order", "steps"] {
        let of = |arm: &str| prints[format!("runs/{arm}/seed-1")][key].as_str().unwrap();
        assert_eq!(of("none"), of("staged"), "{key}");
    }
    assert_eq!(
        report["comparisons"][0]["pairs"].as_array().unwrap().len(),
        2
    );

    // Once all is done, too.
    succeed(&mut bench.command(&allowed));
    assert!(without_times(&folder) == before);
}

#[test]
fn an_arm_that_diverges_is_shown_and_the_others_go_on() {
    let bench = Workbench::new();
    fs::write(
        bench.path("ab.toml"),
        format!(
            "config = \"tiny.toml\"\nseeds = 2\nout = \"ab\"\n\
             [[arms]]\nname = \"wild\"\nplugin = \"{}\"\n\
             set = {{ at = \"forward\", fault = \"not_finite\" }}\n\
             [[arms]]\nplugin = \"{}\"\n",
            stress_plugin().display(),
            plugin("kd_null")
        ),
    )
    .unwrap();
    let output = bench.command(&["ab", "ab.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("2 runs have no result"),
        "{}",
        stderr(&output)
    );
    let report = report(&bench.path("ab"));
    assert_eq!(report["arms"][1]["name"], "wild");
    for run in report["arms"][1]["runs"].as_array().unwrap() {
        assert_eq!(run["state"], "failed");
        let reason = run["reason"].as_str().unwrap();
        assert!(reason.starts_with("exit code 4: "), "{reason}");
        assert!(reason.contains("non-finite"), "{reason}");
    }
    assert_eq!(
        report["comparisons"][0]["left_out"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(report["comparisons"][0]["verdict"], "underpowered");
    assert_eq!(
        report["comparisons"][1]["pairs"].as_array().unwrap().len(),
        2
    );
    assert_eq!(report["problems"].as_array().unwrap().len(), 2);
    assert!(stdout(&output).contains("wild"), "{}", stdout(&output));
}

/// Processes whose command line names `folder`.
fn processes_in(folder: &Path) -> Vec<u32> {
    let folder = folder.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&folder)
    })
    .collect()
}

fn kill(pid: u32) {
    let pid = pid.to_string();
    Command::new("kill").args(["-9", &pid]).status().unwrap();
}

/// Waits until a run below `folder` has taken `iter` steps and gives its directory.
fn wait_for_step(folder: &Path, iter: usize) -> PathBuf {
    let limit = Instant::now() + Duration::from_secs(300);
    while Instant::now() < limit {
        for arm in ["none", "ssim"] {
            for seed in 0..2 {
                let run = folder.join(format!("runs/{arm}/seed-{seed}"));
                let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
                let is_over = run.join("result.json").exists();
                if !is_over && text.contains(&format!("\"iter\":{iter},")) {
                    return run;
                }
            }
        }
        sleep(Duration::from_millis(20));
    }
    panic!("no run came to step {iter}");
}

#[test]
fn whatever_is_killed_the_report_is_the_same() {
    let bench = Workbench::new();
    let ssim = plugin("kd_ssim");
    // Long enough that a run is not over before it is killed.
    let arguments = [
        "--arm",
        &ssim,
        "--seeds",
        "2",
        "--set",
        "train.checkpoint_interval_iters=3",
        "--set",
        "train.epochs=4",
        "--jobs",
        "2",
    ];
    succeed(&mut ab(&bench, "whole", &arguments));
    let expected = without_times(&bench.path("whole"));

    let folder = bench.path("killed");
    let start = || {
        let mut command = ab(&bench, folder.to_str().unwrap(), &arguments);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    // A child: the others go on, the report says what is missing.
    let mut runner = start();
    let run = wait_for_step(&folder, 5);
    processes_in(&run).into_iter().for_each(kill);
    assert_eq!(runner.wait().unwrap().code(), Some(1));
    let partial = report(&folder);
    let states: Vec<&str> = (partial["arms"].as_array().unwrap().iter())
        .flat_map(|arm| arm["runs"].as_array().unwrap())
        .map(|run| run["state"].as_str().unwrap())
        .collect();
    assert!(states.contains(&"killed"), "{states:?}");
    assert_eq!(
        partial["comparisons"][0]["pairs"].as_array().unwrap().len(),
        1
    );

    // The runner: its runs go on without it, and the next one takes them over.
    fs::remove_dir_all(folder.join("runs/ssim/seed-1")).unwrap();
    let mut runner = start();
    wait_for_step(&folder, 2);
    runner.kill().unwrap();
    runner.wait().unwrap();
    // Both at once.
    let mut runner = start();
    sleep(Duration::from_millis(700));
    runner.kill().unwrap();
    runner.wait().unwrap();
    processes_in(&folder.join("runs"))
        .into_iter()
        .for_each(kill);
    let status = start().wait().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(without_times(&folder) == expected, "{}", folder.display());
}

#[test]
fn the_comparison_that_is_shipped_is_one_and_a_dry_run_begins_nothing() {
    let bench = Workbench::new();
    let file = workspace_root().join("configs/ab/shapes_methods.toml");
    let mut command = bench.command(&["ab", file.to_str().unwrap(), "--dry-run", "--sd", "1"]);
    let output = succeed(&mut command);
    let said = stdout(&output);
    for expected in [
        "20 runs",
        "none, hint, ssim, lgd",
        "from 1 points",
        "2.29 points",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(
        fs::read_dir(bench.path("")).unwrap().count(),
        1,
        "tiny.toml alone"
    );
}

#[test]
fn the_comparison_of_the_readme_is_one() {
    let text = fs::read_to_string(workspace_root().join("README.md")).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("target/release/kdhost ab "));
    let mut words: Vec<&str> = line.unwrap().split_whitespace().skip(1).collect();
    words.push("--dry-run");
    let said = stdout(&succeed(&mut Workbench::new().command(&words)));
    assert!(
        said.contains("15 runs: arms none, lgd, ssim:weight=2"),
        "{said}"
    );
}
