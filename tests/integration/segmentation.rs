//! The second task, as a user runs it: a class for every pixel.

use std::fs;
use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};
use kdhost_tests::command::{Workbench, metrics, plugin, series, stderr, stdout, student, succeed};
use serde_json::Value;

const TASK: [&str; 2] = ["--task", "segmentation"];

#[test]
fn shapes_are_learned_scored_and_drawn() {
    let bench = Workbench::new();
    let more = ["--set", "train.epochs=6", "--set", "train.ema_decay=0.9"];
    let train = |out: &str, threads: &str| {
        let mut command = bench.train_command(out, &[&TASK[..], &more].concat());
        succeed(command.env("RAYON_NUM_THREADS", threads));
        bench.path(out)
    };
    let (run, other) = (train("one", "1"), train("two", "2"));
    assert!(
        student(&run) == student(&other),
        "threads change the student"
    );
    let text = metrics(&run);
    assert_eq!(text, metrics(&other));
    let losses = series(&text, "train/loss_ce");
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..8]), mean(&losses[losses.len() - 8..]));
    assert!(last < first, "loss_ce: {first} -> {last}");
    let logged = *series(&text, "val/mIoU").last().unwrap();

    // The run, and its file alone, score what the run logged.
    for args in [
        &["eval", "--run", "one", "--json"][..],
        &[
            "eval",
            "--config",
            "tiny.toml",
            "--task",
            "segmentation",
            "--checkpoint",
            "one/student.safetensors",
            "--json",
        ],
    ] {
        let output = bench.run(args);
        assert!(output.status.success(), "{}", stderr(&output));
        let scored: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(scored["miou"].as_f64().unwrap(), logged, "{args:?}");
        let protocol = scored["protocol"].as_str().unwrap();
        assert!(protocol.starts_with("miou-mmseg"), "{protocol}");
    }

    bench.photo("photo.png");
    let photo = image::open(bench.path("photo.png")).unwrap().to_rgb8();
    let file = ["--checkpoint", "one/student.safetensors", "--out", "drawn"];
    let output = bench.run(&[&["predict", "photo.png"], &file[..]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains(" %"), "{}", stdout(&output));
    let drawn = image::open(bench.path("drawn/photo.png"))
        .unwrap()
        .to_rgb8();
    assert!(drawn.width() >= 90 && drawn.height() >= 70);
    assert!(drawn.get_pixel(3, 3) != photo.get_pixel(3, 3), "no colour");
}

#[test]
fn methods_of_both_tasks_teach_a_segmenter_and_those_of_boxes_say_why_not() {
    let bench = Workbench::new();
    for (library, term) in [
        ("kd_hint", "loss_kd_hint"),
        ("kd_logits", "loss_kd_kd"),
        ("kd_affinity", "loss_kd_aff"),
    ] {
        let library = plugin(library);
        let more = ["--set", "train.max_iters=3", "--plugin", &library];
        let run = bench.train(term, &[&TASK[..], &more].concat());
        let values = series(&metrics(&run), &format!("train/{term}"));
        assert_eq!(values.len(), 3, "{term}");
        assert!(values.iter().all(|v| *v > 0.0), "{term}: {values:?}");
    }
    for (library, reason) in [
        ("kd_lgd", "the student has no tap"),
        ("kd_fgbg", "the student has no tap"),
    ] {
        let library = plugin(library);
        let mut command = bench.train_command("no", &[&TASK[..], &["--plugin", &library]].concat());
        let output = command.output().unwrap();
        let message = stderr(&output);
        assert!(!output.status.success(), "{library}");
        assert!(
            message.contains("tap") && message.contains("logits"),
            "{reason}: {message}"
        );
        assert!(!bench.path("no").exists(), "a refused run leaves a folder");
    }
    let hint = plugin("kd_hint");
    let taps = ["model", "taps", "--config", "tiny.toml", "--json"];
    let output = bench.run(&[&taps[..], &TASK, &["--plugin", &hint]].concat());
    let report: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let pair = &report["pairs"]["pairs"][0];
    assert_eq!(pair["student"], "deeplabv3");
    assert!(
        pair["works"]["gradients"]["feat.last"].as_f64() > Some(0.0),
        "{pair}"
    );
}

/// Two halves, left class 0 and right class 1, with a line that is not labelled.
fn write_pair(folder: &Path, name: &str, label: impl Fn(u32, u32) -> u8) {
    for part in ["images", "labels"] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    let [width, height] = [48, 40];
    let image = RgbImage::from_fn(width, height, |x, _| match x < width / 2 {
        true => Rgb([200, 30, 30]),
        false => Rgb([30, 30, 200]),
    });
    image
        .save(folder.join("images").join(format!("{name}.jpg")))
        .unwrap();
    let labels = GrayImage::from_fn(width, height, |x, y| Luma([label(x, y)]));
    labels
        .save(folder.join("labels").join(format!("{name}.png")))
        .unwrap();
}

#[test]
fn a_folder_of_images_and_label_maps_is_learned_and_a_wrong_id_is_named() {
    let bench = Workbench::new();
    let halves = |x: u32, y: u32| match (x, y) {
        (_, 0) => 9,
        (0..24, _) => 0,
        _ => 1,
    };
    for index in 0..8 {
        write_pair(&bench.path("data"), &format!("{index}"), halves);
    }
    fs::write(
        bench.path("halves.toml"),
        r#"
task = "segmentation"
extends = "tiny.toml"
[data]
dataset = "seg_folder"
[data.seg_folder]
train_images = "data/images"
train_labels = "data/labels"
val_images = "data/images"
val_labels = "data/labels"
classes = ["left", "right"]
ignore = [9]
[data.transform]
scale_range = [0.5, 2.0]
crop_size = [64, 64]
flip_prob = 0.0
[train]
epochs = 20
"#,
    )
    .unwrap();
    let train = |out: &str| {
        bench
            .command(&[
                "train",
                "--config",
                "halves.toml",
                "--output",
                out,
                "--quiet",
            ])
            .output()
            .unwrap()
    };
    let output = train("run");
    assert!(output.status.success(), "{}", stderr(&output));
    let miou = *series(&metrics(&bench.path("run")), "val/mIoU")
        .last()
        .unwrap();
    assert!(miou > 0.9, "two plain halves are easy: mIoU {miou}");

    write_pair(&bench.path("data"), "3", |x, _| if x == 5 { 7 } else { 0 });
    let output = train("wrong");
    assert!(!output.status.success());
    let message = stderr(&output);
    for part in ["3.png", "7", "ignore"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

/// CamVid where `KDHOST_CAMVID` names its folder.
#[test]
fn camvid_goes_through() {
    let Some(root) = std::env::var_os("KDHOST_CAMVID") else {
        println!("skipped: KDHOST_CAMVID does not name the folder of CamVid");
        return;
    };
    let root = Path::new(&root);
    let bench = Workbench::new();
    let config = kdhost_tests::artifacts::workspace_root()
        .join("configs/camvid/deeplabv3_mnv2_120_camvid.toml");
    let folders = [
        ("train_images", "train"),
        ("train_labels", "trainannot"),
        ("val_images", "val"),
        ("val_labels", "valannot"),
    ];
    let sets: Vec<String> = folders
        .iter()
        .map(|(key, folder)| format!("data.seg_folder.{key}={}", root.join(folder).display()))
        .collect();
    let config = config.display().to_string();
    let mut args = vec!["train", "--config", &config, "--output", "run", "--quiet"];
    for set in sets.iter().map(String::as_str).chain([
        "train.max_iters=2",
        "eval.max_images=4",
        "student.mobilenet_width=0.25",
    ]) {
        args.extend(["--set", set]);
    }
    succeed(&mut bench.command(&args));
    let text = metrics(&bench.path("run"));
    assert!(series(&text, "val/aAcc")[0] > 0.0, "{text}");
}
