use serde_json::json;

use super::*;
use crate::engine::metrics_log::{METRICS_FILE, TIMING_FILE};

/// A run directory that was begun on the embedded default.
fn begun(folder: &Path) -> RunDir {
    let environment = Environment::current(Default::default());
    RunDir::create(folder, &Config::base().to_toml(), &environment).unwrap()
}

fn row(ap: f64) -> serde_json::Value {
    let named = [
        "ap",
        "ap50",
        "ap75",
        "ap_small",
        "ap_medium",
        "ap_large",
        "ar_1",
        "ar_10",
        "ar_100",
        "ar_small",
        "ar_medium",
        "ar_large",
    ];
    let mut metrics: serde_json::Map<String, serde_json::Value> = named
        .iter()
        .map(|name| ((*name).to_owned(), json!(ap)))
        .collect();
    metrics.insert("per_class".into(), json!([]));
    metrics.insert("protocol".into(), json!("p"));
    metrics.insert("image_list_hash".into(), json!("h"));
    let step = json!({
        "data": 0.001, "student_forward": 0.002, "student_backward": 0.003, "optimizer": 0.004,
    });
    json!({"schema": 1, "student_hash": "s", "row": {
        "name": "student", "metrics": metrics, "step": step, "peak_bytes": 77, "reused": false,
    }})
}

fn finish(folder: &Path, ap: f64) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(arm::RESULT), row(ap).to_string()).unwrap();
}

#[test]
fn a_run_is_running_then_stopped_then_done() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run");
    let lock = begun(&folder);
    let metrics =
        "{\"iter\":4,\"epoch\":0,\"train/lr\":0.1}\n{\"iter\":4,\"epoch\":0,\"val/AP\":0.25}\n";
    fs::write(folder.join(METRICS_FILE), metrics).unwrap();
    fs::write(folder.join(TIMING_FILE), "{\"iter\":4,\"time/data\":0.5}\n").unwrap();
    let run = Run::read(&folder).unwrap();
    assert!(matches!(
        run.state,
        State::Running(Reached::Training {
            iter: 4,
            of: None,
            ..
        })
    ));
    drop(lock);
    let run = Run::read(&folder).unwrap();
    // Nothing but a checkpoint can be continued.
    assert_eq!(run.state, State::Stopped(Reached::Nothing));
    assert_eq!(run.main(), Some(("AP", 0.25)));
    assert_eq!(run.costs.total(), Some(0.5));
    assert!(run.started.is_some() && run.methods().is_empty());
    assert_eq!(run.student().unwrap(), "retinanet, tiny (width 16)");
    finish(&folder, 0.5);
    let run = Run::read(&folder).unwrap();
    assert_eq!((run.state, run.main()), (State::Done, Some(("AP", 0.5))));
    assert_eq!(run.costs.peak_bytes, Some(77));
    assert!((run.costs.total().unwrap() - 0.010).abs() < 1e-12);
    let evaluation = run.evaluation.as_ref().unwrap();
    assert_eq!(
        (evaluation.iter, evaluation.protocol.as_deref()),
        (None, Some("p"))
    );
    let files = run.files().unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "config.resolved.toml",
            "environment.json",
            "metrics.jsonl",
            "result.json",
            "run.lock",
            "timing.jsonl"
        ]
    );
    assert_eq!(files[2].1, metrics.len() as u64);
}

#[test]
fn a_job_of_stages_is_as_far_as_they_are() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("job");
    drop(begun(&folder));
    fs::write(
        folder.join("stages.json"),
        json!([{"number": 1, "name": "first"}, {"number": 2, "name": "last"}]).to_string(),
    )
    .unwrap();
    finish(&folder.join("stages/1-first"), 0.25);
    let run = Run::read(&folder).unwrap();
    assert_eq!(run.state.to_string(), "stopped after 1 of 2 stages");
    assert_eq!(run.main(), None);
    finish(&folder.join("stages/2-last"), 0.75);
    fs::write(folder.join("student.safetensors"), "").unwrap();
    let run = Run::read(&folder).unwrap();
    assert_eq!((run.state, run.main()), (State::Done, Some(("AP", 0.75))));
    // A stage from the cache has no settings of its own.
    let stage = folder.join("stages/1-first");
    let stage = Run::read(&stage).unwrap();
    assert!(stage.config.is_none() && stage.student().is_none());
    assert_eq!(
        (stage.state, stage.main()),
        (State::Done, Some(("AP", 0.25)))
    );
}

#[test]
fn what_is_broken_is_named_with_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let missing = Run::read(root.path()).unwrap_err().to_string();
    assert!(
        missing.contains("`config.resolved.toml` is missing"),
        "{missing}"
    );
    let folder = root.path().join("run");
    drop(begun(&folder));
    for (file, text) in [
        ("result.json", "{\"row\": 1}"),
        ("environment.json", "nothing"),
        ("config.resolved.toml", "seed = \"x\""),
    ] {
        fs::write(folder.join(file), text).unwrap();
        let error = Run::read(&folder).unwrap_err();
        let error = format!("{:#}", anyhow::Error::from(error));
        assert!(error.contains(file), "{error}");
    }
}

#[test]
fn where_it_was_continued_is_noted() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run");
    let lock = begun(&folder);
    let mut environment = Environment::current(Default::default());
    environment.threads = 99;
    lock.note_resume(20, &environment).unwrap();
    drop(lock);
    let continued = Run::read(&folder).unwrap().continued().unwrap();
    assert_eq!(continued, [(20, environment)]);
}

#[test]
fn every_task_has_a_default() {
    for task in ["detection", "segmentation", "classification"] {
        let sources = Sources {
            set: vec![format!("task={task}"), "seed=77".into()],
            ..Sources::default()
        };
        let config = sources.resolve().unwrap().config;
        let changed = crate::config::differences(&default_of(&config), &config);
        let keys: Vec<&str> = changed.iter().map(|one| one.key.as_str()).collect();
        assert_eq!(keys, ["seed"], "{task}");
    }
}
