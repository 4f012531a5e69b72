//! `kdhost runs` on runs that were trained, and their event files.

use std::fs;

use kdhost_tests::command::{Workbench, metrics, plugin, series, stderr, stdout, succeed};
use serde_json::{Value, json};

fn said(bench: &Workbench, args: &[&str]) -> String {
    stdout(&succeed(&mut bench.command(&[&["runs"], args].concat())))
}

fn said_json(bench: &Workbench, args: &[&str]) -> Value {
    serde_json::from_str(&said(bench, &[args, &["--json"]].concat())).unwrap()
}

fn keys(differences: &Value) -> Vec<&str> {
    let differences = differences.as_array().unwrap().iter();
    differences
        .map(|one| one["key"].as_str().unwrap())
        .collect()
}

#[test]
fn runs_are_listed_shown_and_compared() {
    let bench = Workbench::new();
    let null = plugin("kd_null");
    let short = ["--set", "train.max_iters=4"];
    bench.train("runs/plain", &short);
    let other = [
        "--plugin",
        &null,
        "--set",
        "train.lr=0.001",
        "--set",
        "data.workers=3",
    ];
    bench.train("runs/other", &[&short[..], &other].concat());
    // Its control is in the cache afterwards.
    let job = [
        "--config",
        "tiny.toml",
        "--plugin",
        &null,
        "--output",
        "runs/job",
        "--quiet",
    ];
    succeed(&mut bench.command(&[&job[..], &["--set", "train.max_iters=2"]].concat()));
    // Killed after its last checkpoint.
    fs::remove_file(bench.path("runs/job/result.json")).unwrap();
    fs::create_dir(bench.path("runs/broken")).unwrap();
    fs::write(
        bench.path("runs/broken/config.resolved.toml"),
        "seed = \"x\"",
    )
    .unwrap();

    let table = said(&bench, &["list"]);
    let line = |start: &str| {
        let found = table.lines().find(|line| line.contains(start));
        found.unwrap_or_else(|| panic!("{start}: {table}"))
    };
    for part in [
        "detection",
        "retinanet, tiny (width 8)",
        " - ",
        " 3 ",
        "done",
        "AP ",
    ] {
        assert!(line(" plain ").contains(part), "{part}: {table}");
    }
    assert!(line(" other ").contains("┆ null "), "{table}");
    assert!(line(" job ").contains("stopped at iter 2 of 2"), "{table}");
    assert!(line(" broken ").contains("unreadable"), "{table}");
    assert!(line("runs/broken: ").contains("`seed`"), "{table}");
    assert!(line("1 more in the cache").contains("--all"), "{table}");
    let all = said(&bench, &["list", "runs", "--all"]);
    assert!(
        all.contains("cache/student-") && all.contains("(cache)"),
        "{all}"
    );

    let list = said_json(&bench, &["list"]);
    let folders: Vec<&str> = (list.as_array().unwrap().iter())
        .map(|run| run["folder"].as_str().unwrap())
        .collect();
    // What cannot be read has no start, and comes first; the others in the order of theirs.
    assert_eq!(
        folders,
        ["runs/broken", "runs/plain", "runs/other", "runs/job"]
    );
    assert_eq!(list[0]["state"], "unreadable");
    assert_eq!(list[1]["methods"], json!([]));
    assert_eq!(list[2]["methods"], json!(["null"]));
    assert_eq!(list[3]["reached"]["training"]["iter"], 2);
    assert!(list[1]["ms_per_step"].as_f64().unwrap() > 0.0);
    let sorted = said_json(&bench, &["list", "--sort", "val/AP50"]);
    let values: Vec<f64> = (sorted.as_array().unwrap().iter())
        .map(|run| run["metrics"]["AP50"].as_f64().unwrap_or(-1.0))
        .collect();
    assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
    assert_eq!(sorted[3]["folder"], "runs/broken");

    let text = said(&bench, &["show", "runs/other"]);
    for part in [
        "runs/other: done",
        "train.lr ",
        "0.001  (default ",
        "method null ",
        "sha256 ",
        "AP_S",
        "after the end",
        "student.safetensors",
        "tensorboard/",
    ] {
        // Facts stand in columns.
        let words = part.split(' ').collect::<Vec<_>>();
        let found =
            text.contains(part) || text.lines().any(|l| words.iter().all(|w| l.contains(w)));
        assert!(found, "{part}: {text}");
    }
    let shown = said_json(&bench, &["show", "runs/other"]);
    assert!(keys(&shown["settings"]).contains(&"train.lr"), "{shown}");
    assert_eq!(shown["environment"]["plugins"]["null"]["method"], "null");
    assert_eq!(shown["metrics"].as_object().unwrap().len(), 12);

    let diff = said_json(&bench, &["diff", "runs/plain", "runs/other"]);
    assert_eq!(keys(&diff["configuration"]), ["distill.plugin", "train.lr"]);
    assert_eq!(diff["configuration"][0]["a"], "\"none\"");
    assert_eq!(keys(&diff["environment"]), [""; 0]);
    assert_eq!(
        keys(&diff["plugins"]),
        ["null.method", "null.sha256", "null.version"]
    );
    assert_eq!(diff["cautions"], json!([]));
    assert_eq!(diff["metrics"][0]["name"], "AP");
    let text = said(&bench, &["diff", "runs/plain", "runs/other"]);
    assert!(
        text.contains("1 more that cannot change a result"),
        "{text}"
    );
    assert!(!text.contains("data.workers"), "{text}");
    let text = said(&bench, &["diff", "runs/plain", "runs/other", "--all"]);
    assert!(text.contains("data.workers\n"), "{text}");
    let text = said(&bench, &["diff", "runs/plain", "runs/plain"]);
    assert_eq!(text.matches("  no difference\n").count(), 4, "{text}");
    assert!(text.contains("no difference in any metric"), "{text}");
    let text = said(&bench, &["diff", "runs/plain", "runs/job"]);
    assert!(text.contains("B has not ended"), "{text}");
}

#[test]
fn evaluations_of_other_images_are_said_not_to_compare() {
    let bench = Workbench::new();
    let short = ["--set", "train.max_iters=1"];
    bench.train("all", &short);
    bench.train(
        "few",
        &[&short[..], &["--set", "eval.max_images=4"]].concat(),
    );
    let text = said(&bench, &["diff", "all", "few"]);
    for part in [
        "eval.max_images\n",
        "image_list_hash\n",
        "the numbers do not compare",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn folders_without_a_run_are_named() {
    let bench = Workbench::new();
    for (args, code, part) in [
        (&["show", "."][..], 5, "`.` holds no run"),
        (&["diff", ".", "."], 5, "`.` holds no run"),
        (&["list", "gone"], 5, "cannot look for runs in `gone`"),
        (
            &["list", ".", "--sort", "AP"],
            2,
            "no run has a metric `AP`",
        ),
    ] {
        let output = bench.run(&[&["runs"], args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    assert_eq!(said(&bench, &["list", "."]), "no runs in `.`\n");
}

/// Kinds of records by their first bytes are the unit tests' business; here it is the file of a run.
#[test]
fn a_run_has_an_event_file_with_every_line_of_its_logs() {
    let bench = Workbench::new();
    let run = bench.train("run", &["--set", "train.max_iters=4"]);
    let file = run.join("tensorboard/events.out.tfevents.0000000000.kdhost");
    let bytes = fs::read(file).unwrap();
    let mut records = 0;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        rest = &rest[8 + 4 + length + 4..];
        records += 1;
    }
    let steps = series(&metrics(&run), "train/loss_total").len();
    // The version, each step, the evaluation.
    assert_eq!(records, 1 + steps + 1);
    for tag in [
        "train/loss_total",
        "val/AP",
        "time/data",
        "memory/peak_bytes",
    ] {
        assert!(
            bytes.windows(tag.len()).any(|w| w == tag.as_bytes()),
            "{tag}"
        );
    }
}
