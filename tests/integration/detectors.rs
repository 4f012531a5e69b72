//! A detector without anchors does everything that the one with anchors does.

use std::fs;

use kdhost_tests::command::{Workbench, metrics, plugin, series, stderr, stdout, student, succeed};

const FCOS: [&str; 2] = ["--set", "student.detector=fcos"];

#[test]
fn fcos_learns_from_a_teacher_with_anchors_and_its_losses_fall() {
    let bench = Workbench::new();
    let ssim = plugin("kd_ssim");
    let more = ["--set", "train.epochs=4", "--plugin", &ssim];
    let run = bench.train("run", &[&FCOS[..], &more].concat());
    let text = metrics(&run);
    for key in ["train/loss_cls", "train/loss_bbox", "train/loss_kd_ssim"] {
        let values = series(&text, key);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&values[..8]), mean(&values[values.len() - 8..]));
        assert!(last < first, "{key}: {first} -> {last}");
    }
    // Its target is soft, so that it has a floor of its own.
    assert_eq!(series(&text, "train/loss_ctrness").len(), 40);
}

#[test]
fn threads_change_no_bit_and_the_file_runs_alone() {
    let bench = Workbench::new();
    let more = ["--set", "train.max_iters=6", "--set", "train.ema_decay=0.9"];
    let train = |out: &str, threads: &str| {
        let mut command = bench.train_command(out, &[&FCOS[..], &more].concat());
        succeed(command.env("RAYON_NUM_THREADS", threads));
        bench.path(out)
    };
    let (one, two) = (train("one", "1"), train("two", "2"));
    assert!(student(&one) == student(&two), "students differ");
    assert_eq!(metrics(&one), metrics(&two));

    bench.photo("photo.jpg");
    let student = ["--checkpoint", "one/student.safetensors"];
    let rest = ["--out", "drawn", "--score-threshold", "0"];
    let output = bench.run(&[&["predict", "photo.jpg"], &student[..], &rest].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(fs::exists(bench.path("drawn/photo.png")).unwrap());

    for args in [
        &["eval", "--run", "one"][..],
        &[
            "visualize",
            "--run",
            "one",
            "--images",
            "1",
            "--out",
            "maps",
        ],
    ] {
        let output = bench.run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn the_head_alone_judges_the_maps_of_a_method() {
    let bench = Workbench::new();
    let lgd = plugin("kd_lgd");
    let more = ["--set", "train.max_iters=3", "--plugin", &lgd];
    let run = bench.train("run", &[&FCOS[..], &more].concat());
    let text = metrics(&run);
    for key in ["loss_cls_maps", "loss_bbox_maps", "loss_ctrness_maps"] {
        assert_eq!(series(&text, &format!("train/{key}")).len(), 3, "{key}");
    }
}

#[test]
fn groups_that_do_not_divide_are_refused_with_both_keys() {
    let bench = Workbench::new();
    let groups = ["--set", "student.fcos.norm_groups=5"];
    let output = bench.run(&[&["config", "show"], &FCOS[..], &groups].concat());
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    for key in ["student.fcos.norm_groups", "student.fpn_channels"] {
        assert!(stderr(&output).contains(key), "{}", stderr(&output));
    }
}
