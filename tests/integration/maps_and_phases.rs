//! Generated maps through the student's head, phases, the method's own optimizer: on the method that
//! uses all of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kdhost_tests::command::{Workbench, metrics, plugin, stderr, stdout, student, succeed};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// Lengths of phases in steps.
fn phases(freeze: u32, pre: u32, post: u32) -> Vec<String> {
    vec![
        "distill.config.phase_unit=\"iters\"".into(),
        format!("distill.config.pre_freeze_backbone={freeze}"),
        format!("distill.config.pre_nondistill={pre}"),
        format!("distill.config.post_nondistill={post}"),
    ]
}

/// Training with the method and these settings.
fn command(bench: &Workbench, out: &str, settings: &[impl AsRef<str>]) -> Command {
    let mut command = bench.train_command(out, &["--plugin", &plugin("kd_lgd")]);
    for setting in settings {
        command.args(["--set", setting.as_ref()]);
    }
    command
}

fn train(bench: &Workbench, out: &str, settings: &[impl AsRef<str>]) -> PathBuf {
    succeed(&mut command(bench, out, settings));
    bench.path(out)
}

/// Bytes of the tensors in a file, by name.
fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| (name.to_owned(), view.data().to_vec()))
        .collect()
}

/// Whether all tensors whose names begin with `prefix` are equal; there must be some.
fn equal(a: &Path, b: &Path, prefix: &str) -> bool {
    let (a, b) = (tensors(a), tensors(b));
    let mut names = a.keys().filter(|name| name.starts_with(prefix)).peekable();
    assert!(names.peek().is_some(), "no `{prefix}` in {:?}", a.keys());
    names.all(|name| a[name] == b[name])
}

/// The method's file of the checkpoint after step `iter`.
fn method_file(run: &Path, iter: u32) -> PathBuf {
    run.join(format!("checkpoints/iter_{iter:08}/method.safetensors"))
}

/// Rows of `model gradients` by term.
fn gradients(bench: &Workbench, settings: &[String], at: &str) -> (Value, BTreeMap<String, Value>) {
    let plugin = plugin("kd_lgd");
    let mut args = vec![
        "model",
        "gradients",
        "--json",
        "--config",
        "tiny.toml",
        "--plugin",
        &plugin,
        "--at",
        at,
    ];
    for setting in settings {
        args.extend(["--set", setting]);
    }
    let output = succeed(&mut bench.command(&args));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let by_term = rows.iter().map(|row| {
        (
            row["term"].as_str().unwrap().to_owned(),
            row["norms"].clone(),
        )
    });
    (report.clone(), by_term.collect())
}

/// The table of the paper's official code: which loss teaches what, in which phase.
#[test]
fn every_loss_teaches_the_parts_it_should_in_every_phase() {
    /// `+`: a gradient; `0`: a gradient that is zero; `.`: none at all (frozen).
    const PARTS: [&str; 5] = ["backbone", "neck", "head", "teacher", "adapter"];
    let bench = Workbench::new();
    let detach = "distill.config.detach_appearance_embed=true".to_owned();
    for (settings, at, phase, task, maps, distill) in [
        (vec![], "0.05", "frozen backbone", ".++00", ".+++0", ".000+"),
        (vec![], "0.14", "before", "+++00", "++++0", "0000+"),
        (vec![], "0.5", "distill", "+++00", "++++0", "++00+"),
        (
            vec![detach.clone()],
            "0.05",
            "frozen backbone",
            ".++00",
            ".0++0",
            ".000+",
        ),
        (
            vec![detach.clone()],
            "0.5",
            "distill",
            "+++00",
            "00++0",
            "++00+",
        ),
        (
            vec!["distill.config.post_nondistill=0.2".into()],
            "0.9",
            "after",
            "+++00",
            "++++0",
            "0000+",
        ),
        (
            vec!["distill.config.pre_freeze_backbone=0.6".into()],
            "0.5",
            "frozen backbone, distill",
            ".++00",
            ".+++0",
            ".+00+",
        ),
    ] {
        let (report, rows) = gradients(&bench, &settings, at);
        assert_eq!(report["phase"], json!(phase));
        for (term, expected) in [("task", task), ("maps", maps), ("loss_distill", distill)] {
            let got: String = PARTS
                .iter()
                .map(|part| match rows[term][part].as_f64() {
                    None => '.',
                    Some(0.0) => '0',
                    Some(_) => '+',
                })
                .collect();
            assert_eq!(
                got, expected,
                "{term} in `{phase}`, {settings:?}: {PARTS:?}"
            );
        }
    }
}

/// `it < pre` is off, `it > total - post` is off; everything between is on.
#[test]
fn distillation_begins_and_ends_at_the_official_steps() {
    let bench = Workbench::new();
    // The command lays schedules out for 10 000 steps.
    for (step, phase) in [
        (19, "frozen backbone"),
        (20, "before"),
        (29, "before"),
        (30, "distill"),
        (9980, "distill"),
        (9981, "after"),
    ] {
        let at = format!("{}", (f64::from(step) + 0.5) / 1e4);
        let (report, _) = gradients(&bench, &phases(20, 30, 20), &at);
        assert_eq!(report["phase"], json!(phase), "step {step}");
    }
}

#[test]
fn a_frozen_backbone_is_equal_to_the_bit_until_its_release() {
    let bench = Workbench::new();
    let run = |out: &str, steps: u32| {
        let mut settings = phases(6, 6, 0);
        settings.push(format!("train.max_iters={steps}"));
        train(&bench, out, &settings).join("student.safetensors")
    };
    let (early, last, released) = (run("early", 2), run("last", 6), run("released", 7));
    // Weights and running statistics alike.
    assert!(equal(&early, &last, "backbone.body."));
    assert!(!equal(&last, &released, "backbone.body."));
    assert!(!equal(&early, &last, "backbone.fpn."));
    assert!(!equal(&early, &last, "head."));
}

#[test]
fn distillation_off_trains_the_adapter_and_leaves_the_student_alone() {
    let bench = Workbench::new();
    let run = |out: &str, weight: &str| {
        let mut settings = phases(0, 1000, 0);
        settings.push("train.max_iters=6".into());
        settings.push(format!("distill.loss_weights.loss_distill={weight}"));
        train(&bench, out, &settings)
    };
    let (off, on) = (run("off", "0"), run("on", "1"));
    assert!(
        student(&off) == student(&on),
        "the loss reached the student"
    );
    let (off, on) = (method_file(&off, 6), method_file(&on, 6));
    assert!(
        equal(&off, &on, "lgd.param.teacher."),
        "the loss reached the teacher"
    );
    assert!(
        !equal(&off, &on, "lgd.param.adapter."),
        "the adapter did not learn"
    );
}

#[test]
fn the_student_is_the_plain_student_but_for_its_values() {
    let bench = Workbench::new();
    let limit = "train.max_iters=3".to_owned();
    let ours = train(&bench, "ours", std::slice::from_ref(&limit));
    let plain = bench.train("plain", &["--set", &limit]);
    assert!(
        student(&ours) != student(&plain),
        "the method has no effect"
    );
    let shapes = |run: &Path| -> BTreeMap<String, usize> {
        let tensors = tensors(&run.join("student.safetensors"));
        tensors.into_iter().map(|(n, v)| (n, v.len())).collect()
    };
    assert_eq!(shapes(&ours), shapes(&plain));
    let header = |run: &Path| {
        let bytes = student(run);
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        header.metadata().clone().unwrap()
    };
    assert_eq!(header(&ours), header(&plain));
}

#[test]
fn runs_with_maps_are_equal_for_any_number_of_threads_and_after_a_resume() {
    let bench = Workbench::new();
    let own = [
        "train.method.optimizer=\"sgd\"",
        "train.method.params=[\"teacher.\"]",
        "train.checkpoint_interval_iters=4",
        "train.epochs=1",
    ];
    let run = |out: &str, threads: &str| {
        succeed(command(&bench, out, &own).env("RAYON_NUM_THREADS", threads));
        bench.path(out)
    };
    let one = run("one", "1");
    let two = run("two", "3");
    assert!(student(&one) == student(&two), "threads change the student");
    assert_eq!(metrics(&one), metrics(&two));
    assert!(
        one.join("checkpoints/iter_00000010/method_optimizer.safetensors")
            .is_file(),
        "the method's optimizer is not saved"
    );

    // Back to step 8 of 10, then on.
    fs::remove_dir_all(two.join("checkpoints/iter_00000010")).unwrap();
    fs::write(two.join("checkpoints/latest"), "iter_00000008").unwrap();
    fs::remove_file(two.join("student.safetensors")).unwrap();
    bench.resume("two");
    assert!(
        student(&one) == student(&two),
        "the resumed student differs"
    );
    assert_eq!(metrics(&one), metrics(&two));
}

#[test]
fn the_oracle_is_scored_beside_the_student_and_marked() {
    let bench = Workbench::new();
    let settings = ["eval.oracle=true", "train.max_iters=3"];
    let output = succeed(&mut command(&bench, "run", &settings));
    let text = stdout(&output);
    assert!(text.contains("diagnostic, not a result"), "{text}");
    assert!(metrics(&bench.path("run")).contains("\"oracle/AP\""));
    let without = train(&bench, "without", &settings[1..]);
    assert!(
        student(&bench.path("run")) == student(&without),
        "looking at the maps changed the student"
    );

    // The same numbers from the run's files alone.
    let logged: Value = metrics(&bench.path("run"))
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .rfind(|line| line.get("oracle/AP").is_some())
        .unwrap();
    for (oracle, key) in [(false, "val/AP"), (true, "oracle/AP")] {
        let mut args = vec!["eval", "--run", "run", "--json"];
        args.extend(oracle.then_some("--oracle"));
        let output = succeed(&mut bench.command(&args));
        let again: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(again["ap"], logged[key], "{key}");
    }

    let args = ["--plugin", &plugin("kd_hint"), "--set", "eval.oracle=true"];
    let output = bench.train_command("other", &args).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("`hint` makes none"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn what_the_method_cannot_do_is_refused_with_the_reason() {
    let bench = Workbench::new();
    for (setting, needle) in [
        ("distill.taps=[\"neck.p3\"]", "takes the place of neck.p4"),
        (
            "distill.config.nr_transformer_heads=3",
            "does not divide the 16 channels",
        ),
        ("distill.config.pre_nondistill=1.5", "a share of the run"),
        ("distill.loss_weights.mapss=1", "loss_distill, maps"),
        ("distill.config.interact_pattern=\"stuguided\"", "stuGuided"),
    ] {
        let output = command(&bench, "run", &[setting]).output().unwrap();
        assert!(!output.status.success(), "{setting} was accepted");
        let text = stderr(&output);
        assert!(text.contains(needle), "{setting}: {text}");
    }
}

/// Batches without any object: the task losses have no foreground, the method its dummies.
#[test]
fn images_without_objects_train() {
    let bench = Workbench::new();
    let folder = bench.path("empty");
    fs::create_dir(&folder).unwrap();
    let mut images = Vec::new();
    for id in 1..=8 {
        let name = format!("{id}.png");
        let pixels = image::RgbImage::from_fn(64, 64, |x, y| {
            image::Rgb([(x * 4) as u8, (y * 4) as u8, (id * 20) as u8])
        });
        pixels.save(folder.join(&name)).unwrap();
        images.push(json!({"id": id, "file_name": name, "width": 64, "height": 64}));
    }
    let annotations = json!({
        "images": images,
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [],
    });
    fs::write(folder.join("instances.json"), annotations.to_string()).unwrap();
    let settings = [
        "data.dataset=\"coco\"",
        "data.coco.train_images=empty",
        "data.coco.val_images=empty",
        "data.coco.train_annotations=empty/instances.json",
        "data.coco.val_annotations=empty/instances.json",
        "train.max_iters=2",
    ];
    let run = train(&bench, "run", &settings);
    let text = metrics(&run);
    assert!(text.contains("train/loss_cls_maps"), "{text}");
}
