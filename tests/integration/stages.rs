//! Stages of a method: each is a run of its own, resumes, is reused by content, and is what its
//! configuration says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use kdhost_tests::command::{Workbench, metrics, plugin, series, stderr, stdout, student, succeed};
use safetensors::SafeTensors;
use serde_json::{Value, json};

const STAGES: &str = "kd_fixture_stages";

/// The teacher's model on small images, its head alone at full size of them, then the student.
fn three() -> Value {
    json!({"stages": [
        {"name": "compress", "student": "teacher", "init_from": "teacher", "input_scale": 0.5,
         "phases": [{"name": "all", "losses": ["loss_mean"]}]},
        {"name": "tune", "student": "teacher", "teacher": null, "init_from": "compress",
         "input_scale": 0.5, "epochs_scale": 0.5, "method": false,
         "phases": [{"name": "head", "learn": {"backbone": false}, "lr_scale": {"head": 0.1}}]},
        {"name": "distill", "teacher": "tune", "input_scale": 0.5, "teacher_input_scale": 0.5,
         "phases": [{"name": "first", "until": {"fraction": 0.5}, "losses": ["loss_square"]},
                    {"name": "second", "task_weight": 0.5}]},
    ]})
}

fn arguments(schedule: &Value) -> Vec<String> {
    let schedule = format!("distill.config.schedule='{schedule}'");
    let plugin = plugin(STAGES);
    [
        "--plugin",
        &plugin,
        "--set",
        &schedule,
        "--set",
        "train.checkpoint_interval_iters=3",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn command(bench: &Workbench, out: &str, schedule: &Value, settings: &[&str]) -> Command {
    let arguments = arguments(schedule);
    let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
    all.extend(settings);
    bench.train_command(out, &all)
}

fn run(bench: &Workbench, out: &str, schedule: &Value, settings: &[&str]) -> PathBuf {
    succeed(&mut command(bench, out, schedule, settings));
    bench.path(out)
}

fn refusal(bench: &Workbench, out: &str, schedule: &Value, settings: &[&str]) -> String {
    let output = command(bench, out, schedule, settings).output().unwrap();
    assert!(!output.status.success(), "{}", stdout(&output));
    stderr(&output)
}

fn stage(job: &Path, folder: &str) -> PathBuf {
    job.join("stages").join(folder)
}

fn tensor(path: &Path, name: &str) -> Vec<u8> {
    let bytes = fs::read(path.join("student.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(name).unwrap().data().to_vec()
}

/// The images of the smallest experiment are of 64 pixels, too small to halve.
const LARGE: [&str; 4] = [
    "--set",
    "data.transform.size=[96, 96]",
    "--set",
    "data.shapes.size=[96, 96]",
];

#[test]
fn each_stage_is_the_run_that_its_configuration_says() {
    let bench = Workbench::new();
    let job = run(&bench, "job", &three(), &LARGE);
    let folders = ["1-compress", "2-tune", "3-distill"].map(|name| stage(&job, name));
    assert!(
        student(&job) == student(&folders[2]),
        "the last one's result is the job's"
    );

    let text: Value = fs::read_to_string(job.join("stages.json"))
        .map(|text| serde_json::from_str(&text).unwrap())
        .unwrap();
    let column = |key: &str| -> Vec<Value> {
        let stages = text.as_array().unwrap().iter();
        stages.map(|stage| stage[key].clone()).collect()
    };
    assert_eq!(column("name"), ["compress", "tune", "distill"]);
    assert_eq!(column("images"), ["48x48", "48x48", "48x48"]);
    assert_eq!(
        column("teacher"),
        [json!("teacher"), json!(null), json!("tune")]
    );
    assert_eq!(
        column("teacher_images"),
        [json!("96x96"), json!(null), json!("48x48")]
    );
    assert_eq!(column("init_from"), ["teacher", "compress", "random"]);
    assert_eq!(column("epochs"), [json!(2), json!(1), json!(2)]);

    // What runs and what is seen: cells of the deepest map at stride 32.
    let logs = [0, 1, 2].map(|index| metrics(&folders[index]));
    let all = |log: &str, key: &str, value: f64| {
        let values = series(log, key);
        assert!(
            !values.is_empty() && values.iter().all(|v| *v == value),
            "{key}: {values:?}"
        );
    };
    all(&logs[0], "method/student_cells", 4.0);
    all(&logs[0], "method/teacher_cells", 9.0);
    all(&logs[0], "method/stage", 0.0);
    all(&logs[0], "train/loss_kd_square", 0.0);
    all(&logs[2], "method/teacher_cells", 4.0);
    all(&logs[2], "method/stage", 2.0);
    let mut draws = [0, 2]
        .map(|index| series(&logs[index], "method/draw"))
        .concat();
    assert_eq!(draws.len(), 40);
    draws.sort_by(f64::total_cmp);
    draws.dedup();
    assert_eq!(draws.len(), 40, "every step of every stage draws anew");
    let mean = series(&logs[2], "train/loss_kd_mean");
    assert_eq!(mean.len(), 20);
    assert!(mean[..10].iter().all(|v| *v == 0.0) && mean[10..].iter().any(|v| *v != 0.0));
    assert!(
        series(&logs[1], "train/loss_kd_mean").is_empty(),
        "no method takes part"
    );
    assert_eq!(
        series(&logs[1], "train/loss_cls").len(),
        10,
        "half of the epochs"
    );

    // The backbone goes on to the next stage as it is, the head learns.
    let (backbone, head) = (
        "backbone.body.layer4.0.conv1.weight",
        "head.classification_head.cls_logits.weight",
    );
    let [first, second, _] = &folders;
    assert!(tensor(first, backbone) == tensor(second, backbone));
    assert!(tensor(first, head) != tensor(second, head));

    // A stage's configuration is a run for itself.
    for (index, folder) in folders.iter().enumerate() {
        let config = folder.join("config.resolved.toml");
        let out = format!("alone{index}");
        let mut alone = bench.command(&["train", "--quiet", "--output", &out, "--config"]);
        succeed(alone.arg(config));
        assert!(
            student(&bench.path(&out)) == student(folder),
            "stage {}",
            index + 1
        );
    }
    let eval = bench.run(&["eval", "--json", "--run", "job/stages/3-distill"]);
    assert!(eval.status.success(), "{}", stderr(&eval));
    let whole = stderr(&bench.run(&["eval", "--run", "job"]));
    assert!(
        whole.contains("a job of stages") && whole.contains("3-distill"),
        "{whole}"
    );
}

#[test]
fn a_killed_job_goes_on_where_it_was_and_ends_alike() {
    let bench = Workbench::new();
    let undisturbed = run(&bench, "undisturbed", &three(), &LARGE);
    let cache = bench.path("runs/cache");
    let kept = || {
        let entries = fs::read_dir(&cache)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let of_stage = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("stage-")
        };
        entries.filter(of_stage).collect::<Vec<PathBuf>>()
    };
    assert_eq!(kept().len(), 3);
    kept()
        .iter()
        .for_each(|path| fs::remove_dir_all(path).unwrap());

    let mut child = command(&bench, "killed", &three(), &LARGE).spawn().unwrap();
    let job = bench.path("killed");
    for folder in ["1-compress", "2-tune", "3-distill"] {
        let checkpoints = stage(&job, folder).join("checkpoints");
        while !checkpoints.join("latest").is_file() {
            assert!(child.try_wait().unwrap().is_none(), "ended before {folder}");
            sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            !job.join("student.safetensors").is_file(),
            "{folder}: over already"
        );
        child = bench
            .command(&["train", "--resume", "killed", "--quiet"])
            .spawn()
            .unwrap();
    }
    assert!(child.wait().unwrap().success());
    assert!(student(&job) == student(&undisturbed));
    for folder in ["1-compress", "2-tune", "3-distill"] {
        let (ours, theirs) = (stage(&job, folder), stage(&undisturbed, folder));
        assert!(student(&ours) == student(&theirs), "{folder}");
        assert_eq!(metrics(&ours), metrics(&theirs), "{folder}");
    }
    // Where all is done nothing is done again.
    bench.resume("killed");
    assert_eq!(kept().len(), 3);
}

#[test]
fn finished_stages_are_reused_by_content() {
    let bench = Workbench::new();
    let first = run(&bench, "first", &three(), &LARGE);
    let again = run(&bench, "again", &three(), &LARGE);
    assert!(student(&first) == student(&again));
    for folder in ["1-compress", "2-tune", "3-distill"] {
        assert!(student(&stage(&first, folder)) == student(&stage(&again, folder)));
        assert!(
            !stage(&again, folder).join("checkpoints").exists(),
            "{folder} was trained"
        );
    }
    let other = run(
        &bench,
        "other",
        &three(),
        &[&LARGE[..], &["--seed", "4"]].concat(),
    );
    assert!(stage(&other, "1-compress").join("checkpoints").exists());
    // A file that is not what was written is not taken.
    let kept = fs::read_dir(bench.path("runs/cache")).unwrap();
    for entry in kept.map(|entry| entry.unwrap().path()) {
        if entry
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("stage-")
        {
            fs::copy(
                first.join("student.safetensors"),
                entry.join("student.safetensors"),
            )
            .unwrap();
        }
    }
    let message = refusal(&bench, "third", &three(), &LARGE);
    assert!(
        message.contains("is not the file that was written"),
        "{message}"
    );
}

#[test]
fn a_result_below_its_gate_ends_the_job() {
    let bench = Workbench::new();
    // Nothing learns in the stage; plain training finds the background at least.
    let frozen = json!({"backbone": 0.0, "neck": 0.0, "head": 0.0});
    let schedule = json!({"stages": [
        {"name": "first", "gate": {}, "phases": [{"name": "all", "lr_scale": frozen}]},
        {"name": "second", "teacher": "first", "epochs_scale": 0.5},
    ]});
    let task = ["--task", "segmentation", "--set", "student.backbone=tiny"];
    let message = refusal(&bench, "stop", &schedule, &task);
    assert!(
        message.contains("stage `first` reached mIoU") && message.contains("distill.gate=warn"),
        "{message}"
    );
    assert!(!stage(&bench.path("stop"), "2-second").exists());
    assert!(
        stage(&bench.path("stop"), "1-first")
            .join("student.safetensors")
            .is_file()
    );
    let warn = [&task[..], &["--set", "distill.gate=warn"]].concat();
    run(&bench, "warn", &schedule, &warn);
    let mut lenient = schedule.clone();
    lenient["stages"][0]["gate"] = json!({"tolerance": 1.0});
    run(&bench, "lenient", &lenient, &task);
}

#[test]
fn the_plan_is_shown_before_anything_runs() {
    let bench = Workbench::new();
    let show = |schedule: &Value, more: &[&str]| {
        let mut command = bench.command(&["show", "plan", "--config", "tiny.toml"]);
        command.args(arguments(schedule)).args(LARGE).args(more);
        command.output().unwrap()
    };
    let table = stdout(&show(&three(), &[]));
    for word in [
        "3 runs",
        "compress",
        "tune",
        "distill",
        "48x48",
        "96x96",
        "backbone fixed",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let stages = show(&three(), &["--json"]);
    let stages: Value = serde_json::from_slice(&stages.stdout).unwrap();
    assert_eq!(stages[2]["teacher"], "tune");
    assert_eq!(stages[2]["folder"], "stages/3-distill");
    let toml = stdout(&show(&three(), &["--stage", "compress"]));
    let toml: toml::Table = toml::from_str(&toml).unwrap();
    assert_eq!(toml["stage"]["name"].as_str(), Some("compress"));
    let unknown = stderr(&show(&three(), &["--stage", "none"]));
    assert!(
        unknown.contains("it has: compress, tune, distill"),
        "{unknown}"
    );
    let one = json!({"stages": [{"name": "train", "phases": [{"name": "all"}]}]});
    assert!(stdout(&show(&one, &[])).contains("one run"));
    let stages: Value = serde_json::from_slice(&show(&one, &["--json"]).stdout).unwrap();
    assert_eq!(stages[0]["folder"], ".");
    assert!(!bench.path("runs").exists(), "nothing was trained");
}

#[test]
fn what_is_impossible_is_refused_before_anything_runs() {
    let bench = Workbench::new();
    let one = |stage: Value| json!({"stages": [stage, {"name": "last"}]});
    for (schedule, needle) in [
        (
            one(json!({"name": "a", "student": "big"})),
            "`big` is neither",
        ),
        (
            one(json!({"name": "a", "teacher": "big"})),
            "`big` is neither",
        ),
        (
            one(json!({"name": "a", "init_from": "teacher"})),
            "another architecture",
        ),
        (
            one(json!({"name": "a", "input_scale": 0.25})),
            "16 pixels a side",
        ),
        (
            one(json!({"name": "a", "phases": [{"name": "p", "losses": ["loss_x"]}]})),
            "`loss_x`",
        ),
        (
            one(json!({"name": "a", "input_scale": 2.0})),
            "`input_scale` is 2",
        ),
        (one(json!({"name": "last"})), "another stage"),
    ] {
        let message = refusal(&bench, "refused", &schedule, &[]);
        assert!(message.contains(needle), "{message}");
        assert!(!bench.path("runs").exists() && !bench.path("refused").exists());
    }
    // Commands on one run say which run they need.
    let mut gradients = bench.command(&["model", "gradients", "--config", "tiny.toml"]);
    let output = gradients.args(arguments(&three())).output().unwrap();
    let message = stderr(&output);
    assert!(
        message.contains("kdhost show plan --stage NAME"),
        "{message}"
    );
}
