//! Phases of a method alone: the student is as without them, they resume within, and what was learned
//! is reused by content.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kdhost_tests::command::{Workbench, metrics, plugin, stderr, stdout, student, succeed};
use safetensors::SafeTensors;
use serde_json::{Value, json};

const CODER: &str = "kd_fixture_coder";
const FAIL_AT: &str = "KD_FIXTURE_FAIL_AT";
const FRESH: &str = "distill.pretrain=fresh";

fn command(bench: &Workbench, out: &str, settings: &[&str]) -> Command {
    let mut command = bench.train_command(out, &["--plugin", &plugin(CODER)]);
    command.args(["--set", "train.epochs=1"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command
}

fn train(bench: &Workbench, out: &str, settings: &[&str]) -> PathBuf {
    succeed(&mut command(bench, out, settings));
    bench.path(out)
}

/// Bytes of the tensors in a file, by name, whose names begin with `prefix`, without it.
fn tensors(path: &Path, prefix: &str) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let all = file.iter();
    let found: BTreeMap<String, Vec<u8>> = all
        .filter_map(|(name, view)| Some((name.strip_prefix(prefix)?.into(), view.data().to_vec())))
        .collect();
    assert!(!found.is_empty(), "no `{prefix}` in {}", path.display());
    found
}

/// The method's file of the last checkpoint.
fn method_file(run: &Path) -> PathBuf {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap();
    let folders = entries.map(|entry| entry.unwrap().path());
    let last = folders.filter(|path| path.is_dir()).max().unwrap();
    last.join("method.safetensors")
}

fn method_state(run: &Path) -> Vec<u8> {
    fs::read(method_file(run)).unwrap()
}

/// Folders of the cache whose names begin with `prefix`.
fn cached(bench: &Workbench, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(bench.path("runs/cache")) else {
        return Vec::new();
    };
    let folders = entries.map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(prefix)
    };
    let mut found: Vec<PathBuf> = folders.filter(named).collect();
    found.sort();
    found
}

/// Folders in which the cache keeps what methods learned.
fn kept(bench: &Workbench) -> Vec<PathBuf> {
    cached(bench, "method-")
}

fn lines(run: &Path) -> Vec<Value> {
    let text = metrics(run);
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

/// Lines of the log that have a key which begins with `prefix`.
fn lines_of(run: &Path, prefix: &str) -> Vec<Value> {
    let has = |line: &Value| {
        let keys = line.as_object().unwrap().keys();
        keys.into_iter().any(|key| key.starts_with(prefix))
    };
    lines(run).into_iter().filter(has).collect()
}

#[test]
fn the_student_and_its_run_are_as_without_the_phase() {
    let bench = Workbench::new();
    let settings = [
        "distill.weight=0",
        "train.weight_decay=0.1",
        "train.ema_decay=0.9",
    ];
    let ours = train(&bench, "ours", &settings);
    let without = ["distill.config.joint_only=true"];
    let without = train(&bench, "without", &[&settings[..], &without].concat());
    assert!(
        student(&ours) == student(&without),
        "the phase reached the student"
    );
    // The run's own records are equal but for the method's: as many steps, the same losses and rates.
    let of_run = |run: &Path| -> Vec<Value> {
        let steps = lines_of(run, "train/");
        let keys = [
            "iter",
            "epoch",
            "train/loss_cls",
            "train/loss_bbox",
            "train/lr",
        ];
        steps
            .iter()
            .map(|line| keys.iter().map(|key| line[key].clone()).collect())
            .collect()
    };
    assert_eq!(of_run(&ours), of_run(&without));
    assert_eq!(of_run(&ours).len(), 10);

    // The code was learned in its phase and then kept, though weights decay.
    let [kept] = &kept(&bench)[..] else {
        panic!("{:?}", kept(&bench));
    };
    let learned = tensors(&kept.join("method.safetensors"), "param.coder.");
    let at_end = tensors(&method_file(&ours), "coder.param.coder.");
    assert_eq!(learned, at_end);
    assert_ne!(
        learned,
        tensors(&method_file(&without), "coder.param.coder.")
    );
    // Where no loss has weight, the adapter only decays; the phase leaves it alone.
    let adapter = |run: &Path| tensors(&method_file(run), "coder.param.adapter.");
    assert_eq!(adapter(&ours), adapter(&without));

    // And the student is the plain one.
    let plain = bench.train("plain", &["--set", "train.epochs=1"]);
    let zero = train(&bench, "zero", &["distill.weight=0"]);
    assert!(student(&zero) == student(&plain), "not the plain student");
}

#[test]
fn a_phase_is_logged_under_its_name_by_its_own_steps() {
    let bench = Workbench::new();
    let run = train(&bench, "run", &["distill.config.epochs=1"]);
    let code = lines_of(&run, "pretrain/code/");
    let iters: Vec<u64> = code.iter().map(|l| l["iter"].as_u64().unwrap()).collect();
    assert_eq!(iters, [1, 2, 3, 4, 5, 6]);
    let more = lines_of(&run, "pretrain/more/");
    assert_eq!(more.len(), 10);
    assert_eq!(more[9]["epoch"], json!(1));
    let (first, last) = (&code[0], &more[9]);
    let value = |line: &Value, key: &str| line[key].as_f64().unwrap();
    assert!(
        value(last, "pretrain/more/loss_kd_code") < value(first, "pretrain/code/loss_kd_code"),
        "{first} {last}"
    );
    let lr = 0.1 * (1.0f64 - 5.0 / 6.0).powf(0.9);
    assert!((value(&code[5], "pretrain/code/lr") - lr).abs() < 1e-12);
    assert!(value(first, "pretrain/code/grad_norm_method") > 0.0);
    assert_eq!(
        value(first, "pretrain/code/loss_kd_code"),
        value(first, "pretrain/code/method/error")
    );
    // What would read the student is no number, and what does not count is not there.
    assert_eq!(first["pretrain/code/method/student_square"], Value::Null);
    assert!(!metrics(&run).contains("pretrain/code/loss_kd_distill"));
    let joint = lines_of(&run, "train/");
    assert_eq!(joint.len(), 10);
    assert_eq!(joint[0]["iter"], json!(1));
    assert_eq!(joint[0]["train/loss_kd_code"], json!(0.0));
    assert!(
        joint
            .iter()
            .all(|l| value(l, "train/loss_kd_distill") > 0.0)
    );
    // The buffer goes on where the phase left it.
    assert!(value(&joint[0], "method/student_square") > 0.0);
}

#[test]
fn program_and_plugin_learn_the_same() {
    let bench = Workbench::new();
    let run = |out: &str, execution: &str| {
        let execution = format!("distill.execution={execution}");
        train(&bench, out, &[FRESH, &execution])
    };
    let (program, by_plugin) = (run("program", "program"), run("plugin", "plugin"));
    assert_eq!(metrics(&program), metrics(&by_plugin));
    assert!(
        method_state(&program) == method_state(&by_plugin),
        "methods differ"
    );
    assert!(student(&program) == student(&by_plugin), "students differ");
}

#[test]
fn a_run_that_stopped_within_a_phase_goes_on_bit_for_bit() {
    let bench = Workbench::new();
    let settings = [
        FRESH,
        "distill.config.steps=13",
        "distill.config.epochs=1",
        "train.checkpoint_interval_iters=4",
        "train.accumulate=2",
    ];
    let straight = train(&bench, "straight", &settings);
    assert_eq!(lines_of(&straight, "pretrain/code/").len(), 13);
    assert_eq!(lines_of(&straight, "pretrain/more/").len(), 5);
    let run = bench.path("stopped");
    // In the first epoch, in a later one, and again before the first step of the resumed run.
    for (first, at) in [(true, "3"), (false, "11"), (false, "11")] {
        let mut command = match first {
            true => command(&bench, "stopped", &settings),
            false => bench.command(&["train", "--resume", "stopped", "--quiet"]),
        };
        let output = command.env(FAIL_AT, at).output().unwrap();
        assert!(!output.status.success(), "it went on");
        let text = stderr(&output);
        assert!(
            text.contains("phase `code`") && text.contains("asked to fail"),
            "{text}"
        );
        let progress = fs::read(run.join("checkpoints/iter_00000000/progress.json")).unwrap();
        let progress: Value = serde_json::from_slice(&progress).unwrap();
        let iter = &progress["progress"]["pretrain"]["iter"];
        assert_eq!(iter.as_u64().unwrap().to_string(), at);
    }
    assert!(
        run.join("checkpoints/iter_00000000/pretrain_optimizer.safetensors")
            .is_file(),
        "momentum is not saved"
    );
    bench.resume("stopped");
    assert_eq!(metrics(&straight), metrics(&run));
    assert!(
        method_state(&straight) == method_state(&run),
        "methods differ"
    );
    assert!(student(&straight) == student(&run), "students differ");
    assert!(kept(&bench).is_empty(), "`fresh` keeps nothing");
}

#[test]
fn what_was_learned_is_reused_by_content() {
    let bench = Workbench::new();
    let learned = train(&bench, "learned", &[]);
    assert_eq!(kept(&bench).len(), 1);
    let reused = train(&bench, "reused", &[]);
    let fresh = train(&bench, "fresh", &[FRESH]);
    for run in [&reused, &fresh] {
        assert!(student(run) == student(&learned), "students differ");
        assert!(
            method_state(run) == method_state(&learned),
            "methods differ"
        );
        let of_run = |run: &Path| lines_of(run, "train/");
        assert_eq!(of_run(run), of_run(&learned));
    }
    assert_eq!(
        lines_of(&reused, "pretrain/")[0]["pretrain/reused"],
        json!(1.0)
    );
    assert!(
        lines_of(&reused, "pretrain/code/").is_empty(),
        "steps were not skipped"
    );
    assert_eq!(lines_of(&fresh, "pretrain/code/").len(), 6);

    // From here on the same teacher, which settings of the run would train differently.
    let [teacher] = &cached(&bench, "teacher-")[..] else {
        panic!("one teacher was trained");
    };
    let teacher = teacher.join("student.safetensors");
    let teacher = format!("teacher.checkpoint={}", teacher.display());
    // Neither weights nor the run's length nor its learning rate play a part.
    let other = [
        teacher.as_str(),
        "distill.loss_weights.loss_distill=3",
        "train.max_iters=2",
        "train.lr=0.001",
        "train.ema_decay=0.9",
    ];
    let other = train(&bench, "other", &other);
    assert_eq!(lines_of(&other, "pretrain/reused").len(), 1);
    assert_eq!(kept(&bench).len(), 1);
    // The phase's own settings, the seed's draws and the images do.
    for (out, setting) in [
        ("steps", "distill.config.steps=5"),
        ("batch", "data.batch_size=5"),
        ("clip", "train.grad_clip_norm=0.01"),
        ("seed", "seed=9"),
    ] {
        let before = kept(&bench).len();
        let run = train(&bench, out, &[&teacher, "train.max_iters=1", setting]);
        assert!(lines_of(&run, "pretrain/reused").is_empty(), "{setting}");
        assert_eq!(kept(&bench).len(), before + 1, "{setting}");
    }
}

#[test]
fn a_damaged_file_of_the_cache_is_refused_with_its_folder() {
    let bench = Workbench::new();
    train(&bench, "learned", &["train.max_iters=1"]);
    let folder = kept(&bench).pop().unwrap();
    let path = folder.join("method.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let output = command(&bench, "run", &["train.max_iters=1"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let text = stderr(&output);
    assert!(
        text.contains(&name) && text.contains("remove the folder"),
        "{text}"
    );
}

#[test]
fn a_method_that_reads_the_student_there_is_stopped_with_the_name() {
    let bench = Workbench::new();
    for (setting, needle) in [
        ("distill.config.code_reads_student=true", "loss `loss_code`"),
        ("distill.config.buffer_reads_student=true", "buffer `mean`"),
    ] {
        for execution in ["program", "plugin"] {
            let execution = format!("distill.execution={execution}");
            let out = format!("{}{execution}", &needle[..4]);
            let output = command(&bench, &out, &[setting, &execution])
                .output()
                .unwrap();
            assert!(!output.status.success(), "{setting} was accepted");
            let text = stderr(&output);
            assert!(
                text.contains(needle) && text.contains("phase `code`"),
                "{text}"
            );
        }
    }
}

#[test]
fn what_a_phase_cannot_ask_for_is_refused_before_anything_runs() {
    let bench = Workbench::new();
    for (setting, needle) in [
        (
            "distill.config.reads_predictions=true",
            "target `student.loss_cls`",
        ),
        (
            "distill.config.code_losses=[\"loss_x\"]",
            "`loss_x`; the method has: loss_code, loss_distill",
        ),
        (
            "distill.config.code_params=[\"encoder.*\"]",
            "pattern `encoder.*`",
        ),
        (
            "distill.config.joint_params=[\"adaptor.*\"]",
            "pattern `adaptor.*`",
        ),
        (
            "distill.config.code_weight=0",
            "weight 0 in the method's plan",
        ),
        ("distill.config.steps=0", "it has no steps"),
    ] {
        let output = command(&bench, "run", &[setting]).output().unwrap();
        assert!(!output.status.success(), "{setting} was accepted");
        let text = stderr(&output);
        assert!(
            text.contains(needle) && text.contains("phase `"),
            "{setting}: {text}"
        );
        assert!(!bench.path("run").exists(), "{setting}: something ran");
    }
}

#[test]
fn a_look_at_gradients_is_at_the_run() {
    let bench = Workbench::new();
    let plugin = plugin(CODER);
    let args = [
        "model",
        "gradients",
        "--json",
        "--config",
        "tiny.toml",
        "--plugin",
        &plugin,
    ];
    let output = succeed(&mut bench.command(&args));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["phase"], json!("joint"));
    assert_eq!(report["frozen"], json!(["coder"]));
}
