//! Classification as a user runs it: training, evaluation, prediction, methods, and pixel distillation
//! in its stages on classifiers and detectors.

use std::fs;
use std::path::Path;

use kdhost_tests::command::{Workbench, metrics, plugin, series, stderr, stdout, student, succeed};
use safetensors::SafeTensors;
use serde_json::Value;

const TASK: [&str; 2] = ["--task", "classification"];
const CONVNET: [&str; 2] = ["--set", "train.epochs=2"];
const MOBILENET: [&str; 4] = [
    "--set",
    "student.backbone=mobilenet_v2",
    "--set",
    "student.mobilenet_width=0.1",
];
const VIT: [&str; 10] = [
    "--set",
    "student.classifier=vit",
    "--set",
    "student.vit.dim=24",
    "--set",
    "student.vit.depth=2",
    "--set",
    "student.vit.heads=2",
    "--set",
    "student.vit.patch_size=8",
];

/// Names of the tensors in a run's student.
fn names(run: &Path) -> Vec<String> {
    let bytes = student(run);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn every_classifier_trains_is_evaluated_and_resumes() {
    let bench = Workbench::new();
    for (name, settings, key) in [
        ("convnet", &CONVNET[..], "fc.weight"),
        ("mobilenet", &MOBILENET[..], "classifier.1.weight"),
        ("vit", &VIT[..], "head.weight"),
    ] {
        let arguments = [&TASK[..], settings].concat();
        let run = bench.train(name, &arguments);
        assert!(names(&run).iter().any(|name| name == key), "{name}: {key}");
        let losses = series(&metrics(&run), "train/loss_ce");
        assert_eq!(losses.len(), 20, "{name}");
        assert!(losses.iter().all(|loss| loss.is_finite()), "{name}");

        let eval = ["eval", "--json", "--run", name];
        let of_run: Value =
            serde_json::from_slice(&succeed(&mut bench.command(&eval)).stdout).unwrap();
        let file = format!("{name}/student.safetensors");
        let mut of_file = bench.command(&["eval", "--json", "--config", "tiny.toml"]);
        of_file.args(TASK).args(["--checkpoint", &file]);
        let of_file: Value = serde_json::from_slice(&succeed(&mut of_file).stdout).unwrap();
        assert_eq!(of_run, of_file, "{name}");
        assert_eq!(of_run["images"], 8);
        assert_eq!(of_run["top5"], 1.0, "there are five classes");
        assert!(of_run["protocol"].as_str().unwrap().starts_with("top1-"));

        // Half of it, then the rest.
        let half = format!("{name}-half");
        let mut cut = bench.train_command(&half, &arguments);
        cut.args(["--set", "train.checkpoint_interval_iters=5"]);
        let mut child = cut.spawn().unwrap();
        while !bench.path(&half).join("checkpoints/latest").is_file() {
            assert!(child.try_wait().unwrap().is_none(), "{name}: over already");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        bench.resume(&half);
        assert!(student(&bench.path(&half)) == student(&run), "{name}");
    }
}

#[test]
fn a_prediction_names_the_likeliest_classes() {
    let bench = Workbench::new();
    bench.train("run", &TASK);
    let picture = image::RgbImage::from_fn(80, 60, |x, y| image::Rgb([x as u8, y as u8, 9]));
    picture.save(bench.path("a.png")).unwrap();
    let output = succeed(&mut bench.command(&[
        "predict",
        "a.png",
        "--checkpoint",
        "run/student.safetensors",
        "--out",
        "drawn",
    ]));
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 6, "{text}");
    let drawn = image::open(bench.path("drawn/a.png")).unwrap();
    assert_eq!(drawn.width(), 80);
    assert!(drawn.height() > 60, "the class stands below the picture");
}

#[test]
fn a_class_folder_is_a_data_set() {
    let bench = Workbench::new();
    for split in ["train", "val"] {
        for (class, red) in [("cat", 250), ("dog", 20)] {
            let folder = bench.path(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for index in 0..6u8 {
                let pixel = image::Rgb([red, 10 * index, 100]);
                let picture = image::RgbImage::from_pixel(40, 50, pixel);
                picture.save(folder.join(format!("{index}.png"))).unwrap();
            }
        }
    }
    let settings = [
        "--set",
        "data.dataset=class_folder",
        "--set",
        "data.class_folder.train=train",
        "--set",
        "data.class_folder.val=val",
        "--set",
        "train.epochs=8",
    ];
    bench.train("run", &[&TASK[..], &settings].concat());
    let eval = succeed(&mut bench.command(&["eval", "--json", "--run", "run"]));
    let metrics: Value = serde_json::from_slice(&eval.stdout).unwrap();
    assert_eq!(metrics["per_class"][0]["name"], "cat");
    assert_eq!(metrics["top1"], 1.0, "red or not is learned at once");
}

#[test]
fn methods_of_logits_and_features_work_on_classifiers() {
    let bench = Workbench::new();
    for (name, library, loss) in [
        ("logits", "kd_logits", "train/loss_kd_kd"),
        ("null", "kd_null", "train/loss_ce"),
    ] {
        let library = plugin(library);
        let run = bench.train(name, &[&TASK[..], &["--plugin", &library]].concat());
        let losses = series(&metrics(&run), loss);
        assert!(losses.iter().any(|loss| *loss > 0.0), "{name}");
    }
    let plain = bench.train("plain", &TASK);
    assert!(
        student(&plain) == student(&bench.path("null")),
        "null changes nothing"
    );
}

#[test]
fn pixel_distillation_of_a_classifier_leaves_a_plain_student_of_small_images() {
    let bench = Workbench::new();
    let library = plugin("kd_pixel");
    let arguments = [&TASK[..], &["--plugin", &library]].concat();
    for (name, settings) in [("convnet", &CONVNET[..]), ("vit", &VIT[..])] {
        let job = bench.train(name, &[&arguments[..], settings].concat());
        let plain = bench.train(&format!("{name}-plain"), &[&TASK[..], settings].concat());
        assert_eq!(
            names(&job),
            names(&plain),
            "{name}: nothing of the decoder is left"
        );
        let input = metrics(&job.join("stages/2-input"));
        for loss in ["isrd", "kd", "fkd"] {
            let losses = series(&input, &format!("train/loss_kd_{loss}"));
            assert!(losses.iter().all(|loss| *loss > 0.0), "{name}: {loss}");
        }
        let config = fs::read_to_string(job.join("stages/2-input/config.resolved.toml")).unwrap();
        let config: toml::Table = toml::from_str(&config).unwrap();
        let size = &config["data"]["transform"]["size"];
        assert_eq!(size.as_array().unwrap()[0].as_integer(), Some(32), "{name}");
    }
}

#[test]
fn pixel_distillation_of_a_detector_compresses_the_input_first() {
    let bench = Workbench::new();
    let library = plugin("kd_pixel");
    // Models that have seen a few images pass no gate.
    let arguments = ["--plugin", &library, "--set", "distill.gate=warn"];
    let job = bench.train("job", &arguments);
    let config = |stage: &str| -> toml::Table {
        let path = job.join("stages").join(stage).join("config.resolved.toml");
        toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let scale = |stage: &str| config(stage)["student"]["pyramid_scale"].as_float();
    assert_eq!(scale("1-input"), Some(2.0));
    assert_eq!(scale("2-retune"), Some(1.0));
    assert_eq!(scale("3-model"), Some(1.0));
    for stage in ["1-input", "3-model"] {
        let log = metrics(&job.join("stages").join(stage));
        for loss in ["kd", "kd_bbox", "fkd"] {
            let losses = series(&log, &format!("train/loss_kd_{loss}"));
            assert!(losses.iter().any(|loss| *loss > 0.0), "{stage}: {loss}");
        }
    }
    let wrong = [
        &arguments[..],
        &["--set", "distill.config.order=compress_model_first"],
    ]
    .concat();
    let refused = bench.train_command("wrong", &wrong).output().unwrap();
    assert!(
        !refused.status.success() && stderr(&refused).contains("force_order"),
        "{}",
        stderr(&refused)
    );
    let forced = [&wrong[..], &["--set", "distill.config.force_order=true"]].concat();
    let forced = bench.train("forced", &forced);
    assert!(forced.join("stages/2-input/student.safetensors").is_file());
}
