//! What the plan and the step refuse, and in which words.

use super::*;

fn taps(logits: [usize; 2], features: [usize; 2]) -> Vec<TapShape> {
    let pair = |name, [s, t]: [usize; 2]| TapShape::pair(name, [1, s, 2, 2], [1, t, 2, 2]);
    [pair(LOGITS, logits), pair(FEATURES, features)].concat()
}

#[test]
fn heads_that_do_not_fit_are_refused() {
    for (classes, logits, needles) in [
        (
            3,
            [27, 3],
            vec!["[N, 27, H, W]", "[N, 3, H, W]", "3 classes", "same anchors"],
        ),
        (4, [6, 6], vec!["[N, 6, H, W]", "4 classes"]),
    ] {
        let error = Bench::for_classes::<FgBg>(classes, &json!({}), &taps(logits, [4, 4]));
        let error = error.unwrap_err();
        assert_eq!(error.entry, "plan");
        for needle in needles {
            assert!(error.message.contains(needle), "{needle}: {error}");
        }
    }
    let error = Bench::new::<FgBg>(&json!({}), &taps([3, 3], [4, 4])).unwrap_err();
    assert!(error.message.contains("number of classes"), "{error}");
}

#[test]
fn a_level_of_one_side_alone_is_refused() {
    for role in ["student", "teacher"] {
        let extra = TapShape {
            role,
            name: "head.cls_logits.p4".to_owned(),
            shape: [1, 3, 1, 1],
            stride: 16,
        };
        let taps = [taps([3, 3], [4, 4]), vec![extra]].concat();
        let error = Bench::for_classes::<FgBg>(3, &json!({}), &taps).unwrap_err();
        assert!(error.message.contains("p4"), "{error}");
        assert!(error.message.contains("same levels"), "{error}");
    }
}

#[test]
fn vectors_that_are_not_bound_are_named() {
    let config = json!({"vectors": "neck"});
    let error = Bench::for_classes::<FgBg>(3, &config, &taps([3, 3], [4, 4])).unwrap_err();
    assert!(error.message.contains("neck.p3"), "{error}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for (classes, config, needle) in [
        (3, json!({"temperature": 0.0}), "`temperature` is 0"),
        (3, json!({"soft_scale": -1.0}), "`soft_scale` is -1"),
        (3, json!({"margin": -0.1}), "`margin` is -0.1"),
        (
            3,
            json!({"fg_loss": "off", "bg_loss": "off"}),
            "both \"off\"",
        ),
        (
            3,
            json!({"gate_box": true, "better_by": "iou"}),
            "`gate_box",
        ),
        (3, json!({"center": true}), "`vectors = \"logits\"`"),
        (1, json!({"vectors": "logits"}), "at least 2"),
        (
            2,
            json!({"vectors": "logits", "center": true}),
            "at least 3",
        ),
        (1, json!({"bg_kl": "softmax"}), "always 0"),
    ] {
        let channels = classes as usize;
        let taps = taps([channels, channels], [4, 4]);
        let error = Bench::for_classes::<FgBg>(classes, &config, &taps).unwrap_err();
        assert_eq!(error.status, 3, "{config}: {error}");
        assert!(error.message.contains(needle), "{config}: {error}");
    }
    let error =
        Bench::for_classes::<FgBg>(3, &json!({"connector": "never"}), &taps([3, 3], [4, 6]));
    assert!(error.unwrap_err().message.contains("4 channels"));
    // What no loss compares may be of any kind.
    let config = json!({"vectors": "logits", "fg_loss": "kl"});
    assert!(Bench::for_classes::<FgBg>(1, &config, &taps([1, 1], [4, 4])).is_ok());
}

#[test]
fn targets_of_another_grid_are_refused() {
    let run = |config: Value, set: &dyn Fn(&mut Bench)| {
        let taps = taps([3, 3], [4, 4]);
        let mut bench = Bench::for_classes::<FgBg>(3, &config, &taps).unwrap();
        bench.set_target_ints("assign.labels", &[1, 4], vec![0, -1, -1, -1]);
        set(&mut bench);
        bench.forward().unwrap_err()
    };
    let error = run(json!({}), &|bench| {
        bench.set_target_ints("assign.labels", &[1, 5], vec![0; 5]);
    });
    assert!(
        error.message.contains("assign.labels") && error.message.contains("4 locations"),
        "{error}"
    );
    let error = run(json!({"better_by": "task_loss"}), &|bench| {
        bench.set_target("student.task_loss", &[1, 3], vec![0.0; 3]);
    });
    assert!(error.message.contains("student.task_loss"), "{error}");
    let error = run(json!({"foreground": "boxes"}), &|bench| {
        bench.set_target("points_xy", &[3, 2], vec![0.0; 6]);
    });
    assert!(error.message.contains("points_xy"), "{error}");
}

#[test]
fn maps_of_unequal_sizes_are_refused() {
    let taps = [
        TapShape::pair(LOGITS, [1, 3, 2, 2], [1, 3, 2, 2]),
        TapShape::pair(FEATURES, [1, 4, 2, 2], [1, 4, 2, 3]),
    ]
    .concat();
    let mut bench = Bench::for_classes::<FgBg>(3, &json!({}), &taps).unwrap();
    bench.set_target_ints("assign.labels", &[1, 4], vec![0; 4]);
    let error = bench.forward().unwrap_err();
    assert_eq!(error.status, 4);
    assert!(error.message.contains(FEATURES), "{error}");
}
