//! Several methods in one run: each as if it were alone, under its own name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kdhost::engine::checkpoint::Choice;
use kdhost::engine::restored::Restored;
use kdhost::state::StateDict;
use kdhost_tests::artifacts::workspace_root;
use kdhost_tests::command::{Workbench, metrics, plugin, stderr, stdout, student, succeed};
use serde_json::{Value, json};

/// `--plugin` for each library, by its path.
fn plugins(libraries: &[&str]) -> Vec<String> {
    let flags = libraries
        .iter()
        .map(|name| ["--plugin".to_owned(), plugin(name)]);
    flags.flatten().collect()
}

fn train(bench: &Workbench, out: &str, libraries: &[&str], settings: &[&str]) -> PathBuf {
    let mut command = bench.train_command(out, &["--set", "train.max_iters=6"]);
    command.args(plugins(libraries));
    for setting in settings {
        command.args(["--set", setting]);
    }
    succeed(&mut command);
    bench.path(out)
}

fn states(run: &Path, file: &str) -> BTreeMap<String, Vec<f32>> {
    let path = run.join("checkpoints/iter_00000006").join(file);
    let entries = StateDict::load(&path).unwrap().entries.into_iter();
    entries.map(|(name, array)| (name, array.data)).collect()
}

fn last_losses(run: &Path) -> BTreeMap<String, Value> {
    let text = metrics(run);
    let line = text.lines().rfind(|line| line.contains("train/loss_total"));
    serde_json::from_str(line.unwrap()).unwrap()
}

#[test]
fn two_methods_train_together_under_their_names_in_any_order() {
    let bench = Workbench::new();
    let hint = ["distill.methods.hint.config.connector=always"];
    let one = train(&bench, "one", &["kd_ssim", "kd_hint"], &hint);
    let other = train(&bench, "other", &["kd_hint", "kd_ssim"], &hint);
    assert!(student(&one) == student(&other), "the order counts");
    assert_eq!(metrics(&one), metrics(&other));
    let losses = last_losses(&one);
    for key in [
        "train/loss_kd_ssim_ssim",
        "train/loss_kd_hint_hint",
        "train/grad_norm_method_hint",
    ] {
        assert!(losses.contains_key(key), "{key}: {losses:?}");
    }

    // Each acts, and on its own parameters alone.
    for alone in ["kd_ssim", "kd_hint"] {
        let alone = train(&bench, alone, &[alone], &[]);
        assert!(student(&one) != student(&alone));
    }
    let method = states(&one, "method.safetensors");
    assert!(!method.is_empty());
    assert!(
        method.keys().all(|name| name.starts_with("hint.param.")),
        "{:?}",
        method.keys()
    );
    let optimizer = states(&one, "optimizer.safetensors");
    assert!(
        optimizer.keys().any(|name| name.contains("method.hint.")),
        "{:?}",
        optimizer.keys()
    );

    let environment = fs::read_to_string(one.join("environment.json")).unwrap();
    let environment: Value = serde_json::from_str(&environment).unwrap();
    for label in ["hint", "ssim"] {
        let facts = &environment["plugins"][label];
        assert_eq!(facts["method"], json!(label));
        assert_eq!(facts["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(facts["manifest"]["plugin"], json!(label));
    }
}

#[test]
fn a_method_beside_one_that_does_nothing_is_alone_to_the_bit() {
    let bench = Workbench::new();
    let alone = train(&bench, "alone", &["kd_ssim"], &[]);
    let beside = train(&bench, "beside", &["kd_null", "kd_ssim"], &[]);
    assert!(student(&alone) == student(&beside), "students differ");
    let renamed = metrics(&beside).replace("loss_kd_ssim_ssim", "loss_kd_ssim");
    let renamed = renamed.replace("method/ssim_", "method/");
    assert_eq!(metrics(&alone), renamed);
    let optimizer = "optimizer.safetensors";
    assert!(states(&alone, optimizer) == states(&beside, optimizer));
}

#[test]
fn methods_without_weight_leave_the_plain_student() {
    let bench = Workbench::new();
    let plain = train(&bench, "plain", &[], &[]);
    // One with learned parts of its own, one whose maps go through the student's head.
    let zero = [
        "distill.methods.lgd.weight=0",
        "distill.methods.hint.weight=0",
    ];
    let lgd = ["kd_lgd", "kd_hint"];
    let unphased = [
        "distill.methods.lgd.config.phase_unit=\"iters\"",
        "distill.methods.lgd.config.pre_freeze_backbone=0",
        "distill.methods.lgd.config.pre_nondistill=0",
    ];
    let settings = [
        &zero[..],
        &unphased,
        &["distill.methods.lgd.loss_weights.maps=0"],
    ]
    .concat();
    let both = train(&bench, "both", &lgd, &settings);
    assert!(student(&plain) == student(&both), "students differ");
    // The weight multiplies that of each term.
    let of = |out: &str, weight: &str| {
        let weight = format!("distill.methods.ssim.weight={weight}");
        last_losses(&train(
            &bench,
            out,
            &["kd_ssim", "kd_null"],
            &[&weight, "train.max_iters=1"],
        ))["train/loss_kd_ssim_ssim"]
            .as_f64()
            .unwrap()
    };
    let (half, whole) = (of("half", "0.5"), of("whole", "1"));
    assert!((2.0 * half - whole).abs() < 1e-9 * whole, "{half} {whole}");
}

#[test]
fn one_method_is_named_the_same_as_an_entry() {
    let bench = Workbench::new();
    let short = train(&bench, "short", &["kd_hint"], &[]);
    let path = plugin("kd_hint");
    let entry = format!("distill.methods.hint.plugin=\"{path}\"");
    let entry = train(&bench, "entry", &[], &[&entry]);
    assert!(student(&short) == student(&entry));
    assert_eq!(metrics(&short), metrics(&entry));
    let method = "method.safetensors";
    assert!(states(&short, method) == states(&entry, method));
}

#[test]
fn a_method_of_maps_and_one_with_its_own_optimizer_resume_to_the_same_bits() {
    let bench = Workbench::new();
    let settings = [
        "train.method.optimizer=\"sgd\"",
        "train.method.params=[\"lgd.teacher.\"]",
        "train.checkpoint_interval_iters=3",
        "distill.methods.lgd.loss_schedules.maps={ kind = \"linear\", from = 0.25, end = { iters = 5 } }",
        "distill.methods.hint.loss_schedules.loss_hint={ kind = \"cosine\", end = { fraction = 1.0 } }",
        "distill.methods.hint.config.connector=always",
    ];
    let libraries = ["kd_lgd", "kd_hint"];
    let straight = train(&bench, "straight", &libraries, &settings);
    let losses = last_losses(&straight);
    for key in [
        "train/loss_cls_maps_lgd",
        "train/loss_kd_lgd_distill",
        "train/weight_kd_lgd_maps",
        "train/weight_kd_hint_hint",
        "train/grad_norm_method_lgd",
    ] {
        assert!(losses.contains_key(key), "{key}: {losses:?}");
    }
    let own: Vec<String> = states(&straight, "method_optimizer.safetensors")
        .into_keys()
        .collect();
    assert!(
        own.iter().any(|name| name.contains("method.lgd.teacher.")),
        "{own:?}"
    );
    assert!(!own.iter().any(|name| name.contains("hint")), "{own:?}");

    let resumed = train(&bench, "resumed", &libraries, &settings);
    fs::remove_dir_all(resumed.join("checkpoints/iter_00000006")).unwrap();
    fs::write(resumed.join("checkpoints/latest"), "iter_00000003").unwrap();
    fs::remove_file(resumed.join("student.safetensors")).unwrap();
    bench.resume("resumed");
    assert!(student(&straight) == student(&resumed), "students differ");
    assert_eq!(metrics(&straight), metrics(&resumed));
    for file in [
        "method.safetensors",
        "optimizer.safetensors",
        "method_optimizer.safetensors",
    ] {
        assert!(states(&straight, file) == states(&resumed, file), "{file}");
    }

    // And it can be looked at.
    let restored = Restored::open(&straight, Choice::Latest).unwrap();
    let saved = StateDict::load(&restored.checkpoint.join("method.safetensors")).unwrap();
    assert!(restored.methods.to_state().entries == saved.entries);
    let args = [
        "visualize",
        "--run",
        "straight",
        "--out",
        "maps",
        "--images",
        "1",
    ];
    succeed(&mut bench.command(&args));
    for view in ["map", "teacher", "difference"] {
        assert!(
            bench.path(&format!("maps/1/neck.p3_{view}.png")).is_file(),
            "{view}"
        );
    }
    let oracle = ["eval", "--run", "straight", "--oracle", "--method"];
    let output = bench.run(&[&oracle[..], &["hint"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("choose one by `--method`: lgd"),
        "{}",
        stderr(&output)
    );
    succeed(&mut bench.command(&[&oracle[..], &["lgd"]].concat()));
}

#[test]
fn gradients_and_times_are_shown_by_method() {
    let bench = Workbench::new();
    let both = plugins(&["kd_ssim", "kd_hint"]);
    let both: Vec<&str> = both.iter().map(String::as_str).collect();
    let settings = ["--config", "tiny.toml", "--json"];
    let args = [&["model", "gradients"][..], &settings, &both].concat();
    let connector = ["--set", "distill.methods.hint.config.connector=always"];
    let output = succeed(&mut bench.command(&[&args[..], &connector].concat()));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let terms: Vec<&str> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["term"].as_str().unwrap())
        .collect();
    assert_eq!(terms, ["task", "hint_loss_hint", "ssim_loss_ssim"]);
    let parts = report["parts"].to_string();
    assert!(parts.contains("\"hint."), "{parts}");
    let reaches = |term: usize| {
        report["rows"][term]["norms"]["neck"]
            .as_f64()
            .unwrap_or(0.0)
            > 0.0
    };
    assert!(reaches(1) && reaches(2), "{report}");

    let args = [
        &["bench", "step", "--repeat", "2", "--warmup", "1"][..],
        &settings,
        &both,
    ]
    .concat();
    let output = succeed(&mut bench.command(&args));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let parts = report["parts_ms"].as_object().unwrap();
    for part in [
        "teacher",
        "method_forward_hint",
        "method_backward_ssim",
        "boundary_hint",
    ] {
        assert!(parts[part].as_f64().unwrap() > 0.0, "{part}: {parts:?}");
    }
}

#[test]
fn the_main_job_compares_the_plain_student_with_that_of_all_methods() {
    let bench = Workbench::new();
    let limit = [
        "--config",
        "tiny.toml",
        "--quiet",
        "--set",
        "train.max_iters=3",
    ];
    let job = |libraries: &[&str]| {
        let output = succeed(bench.command(&limit).args(plugins(libraries)));
        stdout(&output)
    };
    let first = job(&["kd_hint"]);
    assert!(!first.contains("reused"), "{first}");
    let text = job(&["kd_ssim", "kd_hint"]);
    // Entries do not make another control or teacher.
    assert_eq!(text.matches("(reused)").count(), 2, "{text}");
    for needle in [
        "student + hint + ssim",
        "per step: teacher forward",
        "hint: per step: ",
        "ssim: per step: ",
    ] {
        assert!(text.contains(needle), "{needle}: {text}");
    }
}

#[test]
fn what_several_methods_cannot_do_is_refused_with_the_reason() {
    let bench = Workbench::new();
    let entries = |settings: &[&str]| {
        let mut command = bench.train_command("run", &[]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.output().unwrap()
    };
    let lgd = plugin("kd_lgd");
    let [a, b] = ["a", "b"].map(|label| format!("distill.methods.{label}.plugin=\"{lgd}\""));
    let output = entries(&[&a, &b]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains("methods `a` and `b` both declare phases"),
        "{text}"
    );

    let hint = plugin("kd_hint");
    let a = format!("distill.methods.a.plugin=\"{hint}\"");
    for (settings, needle) in [
        (
            &["distill.methods.a.loss_weights.loss_hnt=1"][..],
            "`distill.methods.a.loss_weights.loss_hnt`: method `hint` has no such loss; it has: loss_hint",
        ),
        (
            &["distill.methods.a.loss_schedules.maps={ kind = \"until\", end = { iters = 3 } }"],
            "`distill.methods.a.loss_schedules.maps`: method `hint` has no such loss",
        ),
        (
            &[
                "distill.methods.a.loss_schedules.loss_hint={ kind = \"linear\", start = { epochs = 2 }, end = { iters = 3 } }",
            ],
            "ends at step 3, before it starts (20)",
        ),
        (
            &["distill.methods.a.config.conector=1"],
            "unknown key `distill.methods.a.config.conector`",
        ),
        (
            &["distill.methods.a.taps=[\"neck.p9\"]"],
            "`distill.methods.a.taps` names `neck.p9`",
        ),
        (
            &["distill.methods.a.teachers.coach=\"big\""],
            "`distill.methods.a.teachers.coach`: method `hint` has no such role",
        ),
        (
            &["distill.methods.a.teachers.teacher=\"big\""],
            "add a table `[teachers.big]`",
        ),
    ] {
        let output = entries(&[&[a.as_str()], settings].concat());
        assert_eq!(output.status.code(), Some(2), "{settings:?}");
        assert!(
            stderr(&output).contains(needle),
            "{settings:?}: {}",
            stderr(&output)
        );
    }
    assert!(!bench.path("run").exists(), "a refusal leaves a folder");
}

/// How often a run of ssim with these settings traced a training program.
fn traces(bench: &Workbench, out: &str, settings: &[&str]) -> usize {
    let mut command = bench.train_command(out, &["--set", "train.max_iters=6"]);
    command.args(plugins(&["kd_ssim"]));
    for setting in settings {
        command.args(["--set", setting]);
    }
    let output = succeed(command.env("KDHOST_LOG", "kdhost::distill=debug"));
    let log = stderr(&output);
    let traced = log
        .lines()
        .filter(|line| line.contains("traced a program (Training"));
    traced.count()
}

#[test]
fn a_ramp_traces_nothing_anew_unless_it_leaves_zero() {
    let bench = Workbench::new();
    let steady = traces(&bench, "steady", &[]);
    assert!(steady > 0, "nothing was traced");
    let ramp = "distill.loss_schedules.loss_ssim={ kind = \"linear\", from = 0.5, to = 2.0 }";
    assert_eq!(traces(&bench, "ramp", &[ramp]), steady);
    let from_zero = "distill.loss_schedules.loss_ssim={ kind = \"linear\" }";
    assert_eq!(traces(&bench, "from_zero", &[from_zero]), steady + 1);
    // The weight of each step is written down, and the loss carries it.
    let text = metrics(&bench.path("ramp"));
    let lines = text
        .lines()
        .filter(|line| line.contains("train/loss_total"));
    let weights: Vec<f64> = lines
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["train/weight_kd_ssim"].as_f64().unwrap()
        })
        .collect();
    assert_eq!(weights.len(), 6);
    for (step, weight) in weights.iter().enumerate() {
        let factor = 0.5 + 1.5 * step as f64 / 6.0;
        let ratio = weight / weights[0] * 0.5;
        assert!((ratio - factor).abs() < 1e-12, "step {step}: {weight}");
    }
}

#[test]
fn a_term_that_is_switched_off_is_not_reported_as_zero() {
    let bench = Workbench::new();
    let run = |out: &str, schedule: &str| {
        let plugin = plugin("kd_ssim");
        let setting = format!("distill.loss_schedules.loss_ssim={schedule}");
        let epochs = "train.epochs=6";
        let args = ["--plugin", &plugin, "--set", &setting, "--set", epochs];
        stderr(&succeed(&mut bench.train_command(out, &args)))
    };
    let log = run("until", "{ kind = \"until\", end = { iters = 2 } }");
    assert!(!log.contains("exactly zero"), "{log}");
    assert!(!log.contains("gets no gradient"), "{log}");
}

/// What stands between fences of `language` in the README's chapter on several methods.
fn readme(language: &str) -> String {
    let text = fs::read_to_string(workspace_root().join("README.md")).unwrap();
    let (_, chapter) = text.split_once("### Several at once").unwrap();
    let (_, block) = chapter.split_once(&format!("```{language}\n")).unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

#[test]
fn what_the_readme_shows_runs() {
    let bench = Workbench::new();
    let small = [
        "--config",
        "tiny.toml",
        "--quiet",
        "--set",
        "train.max_iters=2",
    ];
    let shown = readme("sh");
    let mut words = shown.split_whitespace();
    assert_eq!(words.next(), Some("target/release/kdhost"));
    let args: Vec<&str> = words.chain(small).collect();
    let output = succeed(&mut bench.command(&args));
    assert!(
        stdout(&output).contains("student + hint + ssim"),
        "{}",
        stdout(&output)
    );

    fs::write(bench.path("several.toml"), readme("toml")).unwrap();
    let args = [&["train", "--config", "several.toml"][..], &small].concat();
    let output = succeed(&mut bench.command(&args));
    assert!(
        stdout(&output).contains("student + far + near"),
        "{}",
        stdout(&output)
    );
    succeed(&mut bench.command(&["config", "check", "several.toml"]));
}
