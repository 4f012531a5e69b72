//! What the plan takes, what it refuses, and in which words.

use super::*;

fn refused(config: Value, taps: &[TapShape], needles: &[&str]) {
    let error = match bench(&config, taps) {
        Err(error) => error,
        Ok(_) => panic!("{config} is taken"),
    };
    for needle in needles {
        assert!(error.message.contains(needle), "{config}: {error}");
    }
}

#[test]
fn options_out_of_range_are_named() {
    for (config, needle) in [
        (json!({"k": 1.0}), "`k` is 1"),
        (json!({"alpha": 0.0}), "`alpha` is 0"),
        (json!({"alpha": 1.5}), "`alpha` is 1.5"),
        (json!({"temperature": 0.0}), "`temperature`"),
        (json!({"kd_weight": 0.0}), "`kd_weight`"),
        (json!({"fkd_weight": -1.0}), "`fkd_weight`"),
        (json!({"gate_tolerance": 1.5}), "`gate_tolerance`"),
        (json!({"retune_epochs_scale": 0.0}), "`retune_epochs_scale`"),
        (json!({"isrd": "off", "kd": "off", "fkd": "off"}), "all off"),
        (
            json!({"mode": "vanilla", "order": "compress_model_first"}),
            "`order`",
        ),
        (json!({"kd": "off"}), "stage `model` would have no loss"),
        (json!({"fkd_taps": ["backbone.c9"]}), "`backbone.c9`"),
        (json!({"attn_weight": 1.0}), "attn.*"),
        (json!({"kk": 2.0}), "unknown key `/kk`"),
    ] {
        refused(config, &classifier([4, 4]), &[needle]);
    }
}

#[test]
fn the_decoder_needs_sizes() {
    let error = Bench::new::<Pixel>(&json!({}), &classifier([4, 4]));
    // Without sizes a classifier's logits are told by their stride.
    let mut taps = classifier([4, 4]);
    for tap in taps.iter_mut().filter(|tap| tap.name == "logits") {
        tap.stride = 0;
    }
    for error in [
        error.unwrap_err(),
        Bench::new::<Pixel>(&json!({}), &taps).unwrap_err(),
    ] {
        for needle in [
            "`stem.conv`",
            "`image`",
            "data.transform.resize = \"fixed\"",
        ] {
            assert!(error.message.contains(needle), "{error}");
        }
    }
    let bench = Bench::new::<Pixel>(&json!({"isrd": "off"}), &taps).unwrap();
    assert!(bench.params().is_empty() && !bench.reads_target("image_sizes"));
    assert_eq!(names(&bench), ["loss_kd", "loss_fkd"]);
}

#[test]
fn a_detector_is_not_compressed_model_first() {
    let taps = detector(false, [4, 4]);
    let config = json!({"order": "compress_model_first"});
    refused(
        config,
        &taps,
        &["compress_model_first", "upsampled pyramid", "force_order"],
    );
    let config = json!({"order": "compress_model_first", "force_order": true});
    bench(&config, &taps).unwrap();
}

#[test]
fn a_detector_in_one_stage_has_no_predictions_to_compare() {
    let taps = detector(false, [4, 4]);
    let config = json!({"mode": "vanilla", "kd": "on"});
    refused(config, &taps, &["`kd = \"on\"`", "anchors", "tas"]);
    let bench = bench(&json!({"mode": "vanilla"}), &taps).unwrap();
    assert_eq!(names(&bench), ["loss_isrd", "loss_fkd"]);
    assert!(!bench.reads_target("assign.labels") && bench.reads_target("image_sizes"));
}

#[test]
fn widths_must_agree_where_they_are_compared() {
    let needles = [
        "`neck.p3`",
        "3 channels",
        "5 in the teacher",
        "adapter = \"auto\"",
    ];
    refused(json!({}), &detector(false, [3, 5]), &needles);
    let bench_of = |taps: &[TapShape]| bench(&json!({"adapter": "auto"}), taps).unwrap();
    let bench_auto = bench_of(&detector(false, [3, 5]));
    assert!((bench_auto.params().iter()).any(|(name, ..)| name == "adapter.neck.p4.weight"));
    let needles = ["`backbone.c2`", "3 channels", "4 in the teacher"];
    let config = json!({"mode": "vanilla", "fkd": "on"});
    refused(config, &classifier([3, 4]), &needles);
}

/// In the stage `model` of a classifier features of two architectures are there and not read.
#[test]
fn two_architectures_of_classifiers_share_predictions_alone() {
    let taps = classifier([3, 4]);
    let mut bench = bench(&json!({}), &taps).unwrap();
    let used: Vec<bool> = (0..taps.len()).map(|slot| bench.uses_tap(slot)).collect();
    assert_eq!(used, [true, true, true, true, false, false]);
    bench.fill(2);
    assert!(loss(&mut bench, "loss_kd") > 0.0);
    assert_eq!(loss(&mut bench, "loss_fkd"), 0.0);
    bench.set_stage(1);
    let error = bench.forward().unwrap_err();
    assert!(error.message.contains("`backbone.c2`"), "{error}");
}

#[test]
fn heads_that_do_not_fit_are_refused() {
    let mut taps = detector(false, [4, 4]);
    for tap in taps
        .iter_mut()
        .filter(|t| t.role == "teacher" && t.name.contains("box_deltas"))
    {
        tap.shape[1] = 4;
    }
    refused(
        json!({}),
        &taps,
        &["head.box_deltas.p3", "4 channels", "need 8"],
    );
    // FCOS of the student, RetinaNet with one anchor as its teacher.
    let taps: Vec<TapShape> = (detector(true, [4, 4]).into_iter())
        .filter(|tap| tap.role == "student" || !tap.name.contains("centerness"))
        .collect();
    refused(json!({}), &taps, &["the same anchors"]);
    let mut taps = classifier([4, 4]);
    taps[3].shape[1] = 5;
    refused(
        json!({}),
        &taps,
        &["3 classes in the student, 5 in the teacher"],
    );
    refused(
        json!({}),
        &images(3, [4, 4], [8, 8]),
        &["`logits`", "head.cls_logits.*"],
    );
}

#[test]
fn images_larger_than_planned_are_refused() {
    let mut taps = images(1, [4, 4], [16, 16]);
    taps.extend(TapShape::pair("logits", [1, 3, 1, 1], [1, 3, 1, 1]));
    let config = json!({"mode": "vanilla", "kd": "off"});
    let decoder = Decoder::new(1, 4, &Device::flex());
    let map = Tensor::zeros([1, 1, 4, 4], &Device::flex());
    assert!(bench(&config, &taps).is_ok());
    let error = decoder
        .forward(options::IsrdFit::Crop, map, [17, 16])
        .unwrap_err();
    assert!(error.message().contains("16 x 16"), "{error}");
    assert!(error.message().contains("17 x 16"), "{error}");
}

#[test]
fn a_teacher_of_smaller_images_is_refused() {
    let mut taps = classifier([4, 4]);
    for tap in taps
        .iter_mut()
        .filter(|t| t.role == "teacher" && t.name.contains("c2"))
    {
        tap.shape = [2, 4, 1, 2];
    }
    let mut bench = bench(&json!({}), &taps).unwrap();
    bench.fill(1);
    bench.set_stage(1);
    let error = bench.forward().unwrap_err();
    assert!(error.message.contains("at least as large"), "{error}");
}
