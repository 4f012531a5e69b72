//! Finite differences, and what a divergence cannot see.

use super::*;

/// Two levels of two images, two anchors a cell; 16 cells, 32 locations.
fn two_levels(config: &Value, widths: [usize; 2]) -> Bench {
    let maps = |place: &str, student: usize, teacher: usize| {
        let level = |level: &str, [h, w]: [usize; 2]| {
            let name = format!("{place}.{level}");
            TapShape::pair(&name, [2, student, h, w], [2, teacher, h, w])
        };
        [level("p3", [3, 4]), level("p4", [2, 2])].concat()
    };
    let place = match config["vectors"].as_str() {
        Some("neck") => "neck",
        Some("box_feat") => "head.box_feat",
        _ => "head.cls_feat",
    };
    let taps = [
        maps("head.cls_logits", 6, 6),
        maps(place, widths[0], widths[1]),
    ]
    .concat();
    let mut bench = Bench::for_classes::<FgBg>(3, config, &taps).unwrap();
    bench.fill(11);
    let labels = (0..64).map(|i| i % 5 - 2).collect();
    bench.set_target_ints("assign.labels", &[2, 32], labels);
    let losses = |shift: usize| (0..64).map(|i| ((i * 7 + shift) % 11) as f32).collect();
    bench.set_target("student.task_loss", &[2, 32], losses(0));
    bench.set_target("teacher.task_loss", &[2, 32], losses(5));
    bench
}

#[test]
fn gradients_agree_with_differences() {
    // Gates that do not move with the logits: a step would cross their edges.
    for mut config in [
        json!({}),
        json!({"vectors": "neck"}),
        json!({"vectors": "box_feat", "fg_loss": "mse"}),
        json!({"vectors": "logits"}),
        json!({"vectors": "logits", "center": true, "bg_loss": "cosine"}),
        json!({"fg_loss": "kl", "temperature": 2.0}),
        json!({"bg_kl": "softmax", "bg_weight": "uniform"}),
        json!({"bg_loss": "cosine"}),
        json!({"fg_loss": "off"}),
        json!({"bg_loss": "off"}),
    ] {
        config["better_by"] = json!("task_loss");
        for widths in [[5, 5], [3, 5]] {
            let mut bench = two_levels(&config, widths);
            gradcheck::check(&mut bench, &gradcheck::Options::default())
                .unwrap_or_else(|error| panic!("{config} {widths:?}: {error}"));
        }
    }
}

#[test]
fn connectors_stand_where_a_loss_needs_them() {
    let params = |config: Value, widths| -> Vec<String> {
        let bench = two_levels(&config, widths);
        bench.params().iter().map(|param| param.0.clone()).collect()
    };
    let of = |place: &str| -> Vec<String> {
        let path = |level: &str, part: &str| format!("connector.{place}.{level}.{part}");
        [
            ("p3", "weight"),
            ("p3", "bias"),
            ("p4", "weight"),
            ("p4", "bias"),
        ]
        .map(|(level, part)| path(level, part))
        .to_vec()
    };
    assert_eq!(params(json!({}), [3, 5]), of("head.cls_feat"));
    assert_eq!(params(json!({"vectors": "neck"}), [3, 5]), of("neck"));
    assert_eq!(
        params(json!({"connector": "always"}), [5, 5]),
        of("head.cls_feat")
    );
    assert!(params(json!({}), [5, 5]).is_empty());
    assert!(params(json!({"vectors": "logits"}), [3, 5]).is_empty());
    assert!(params(json!({"fg_loss": "kl"}), [3, 5]).is_empty());
}

#[test]
fn what_options_do_not_read_is_not_made() {
    let bench = two_levels(&json!({}), [5, 5]);
    assert!(bench.reads_target("assign.labels") && !bench.reads_target("student.task_loss"));
    assert!((0..8).all(|slot| bench.uses_tap(slot)));
    // Vectors of unequal widths that no loss compares.
    let bench = two_levels(&json!({"fg_loss": "kl", "better_by": "iou"}), [3, 5]);
    assert!(bench.reads_target("assign.gt_index") && bench.reads_target("teacher.boxes_xyxy"));
    assert!(bench.uses_tap(0) && !bench.uses_tap(4));
    let bench = two_levels(&json!({"foreground": "boxes"}), [5, 5]);
    assert!(bench.reads_target("points_xy") && !bench.reads_target("assign.labels"));
}

fn norm(gradient: &[f32]) -> f64 {
    let squares = gradient.iter().map(|g| f64::from(*g).powi(2));
    squares.sum::<f64>().sqrt()
}

/// Norm of the gradient of `loss_fg` at the student's `tap`.
fn pull(config: Value, student: &Net, teacher: &Net, tap: usize) -> f64 {
    let mut bench = bench(&config, &[0], student, teacher);
    let out = bench.forward().unwrap();
    let gradients = bench.backward(&out, &[1.0], &[]).unwrap();
    norm(&gradients.taps[tap])
}

/// Saturated softmax predictions hide where the logits point: their divergence and its gradient are
/// almost nothing, and the cosine sees an angle of 32 to 68 degrees, centred or not.
#[test]
fn saturation_hides_directions_from_a_divergence() {
    let rows: [(&[f32], &[f32]); 2] = [
        (&[12.0, 0.0, 0.0, 0.0], &[12.0, -12.0, 1.0, -12.0]),
        (
            &[14.0, 4.0, 0.0, 0.0, 0.0, 0.0],
            &[9.0, -3.0, -12.0, -2.0, -14.0, -2.0],
        ),
    ];
    for (teacher, student) in rows {
        let net = |logits: &[f32]| Net::new(&[logits], &[&[1.0, 0.0]]);
        let (student, teacher) = (net(student), net(teacher));
        // The divergence as `loss_bg`, which has the form for softmax: the location is background.
        let config = json!({"bg_kl": "softmax", "fg_loss": "off", "gate": "off"});
        let mut divergence = bench(&config, &[-1], &student, &teacher);
        let out = divergence.forward().unwrap();
        assert!(out.losses[0] < 2e-4, "{:?}", out.losses);
        let of_divergence = norm(&divergence.backward(&out, &[1.0], &[]).unwrap().taps[0]);
        for center in [false, true] {
            let config =
                json!({"vectors": "logits", "center": center, "bg_loss": "off", "gate": "off"});
            let mut cosine = bench(&config, &[0], &student, &teacher);
            let out = cosine.forward().unwrap();
            assert!(out.losses[0] > 0.15, "{center} {:?}", out.losses);
            let of_cosine = norm(&cosine.backward(&out, &[1.0], &[]).unwrap().taps[0]);
            assert!(
                of_cosine > 100.0 * of_divergence,
                "{center} {of_cosine:e} {of_divergence:e}"
            );
        }
    }
}

/// With more channels than classes, features can be orthogonal and give the same logits: whatever
/// looks at logits is blind to that, and the features' cosine is not.
#[test]
fn the_null_space_of_the_classifier_hides_directions_from_any_loss_on_logits() {
    // W = [[1, 1, 0], [0, 0, 2]] maps both to (2, 0); their product is 0.
    let (student, teacher): (&[f32], &[f32]) = (&[2.0, 0.0, 0.0], &[0.0, 2.0, 0.0]);
    let logits = |f: &[f32]| vec![f[0] + f[1], 2.0 * f[2]];
    let net = |f: &[f32]| Net::new(&[&logits(f)], &[f]);
    let (student, teacher) = (net(student), net(teacher));
    assert_eq!(student.logits, teacher.logits);
    let with = |more: Value| {
        let mut config = json!({"bg_loss": "off", "gate": "off"});
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    };
    // Rounding of q - p.
    assert!(pull(with(json!({"fg_loss": "kl"})), &student, &teacher, 0) < 1e-6);
    assert!(pull(with(json!({"vectors": "logits"})), &student, &teacher, 0) < 1e-6);
    let cosine = pull(with(json!({})), &student, &teacher, 2);
    assert!(near(cosine, 0.5), "{cosine}");
}

#[test]
fn the_cosine_pulls_across_the_students_vector_and_not_along_it() {
    let mut bench = two_levels(&json!({"gate": "off", "bg_loss": "off"}), [5, 5]);
    let out = bench.forward().unwrap();
    let gradients = bench.backward(&out, &[1.0], &[]).unwrap();
    drop(out);
    // Taps: logits p3, p3, p4, p4 of student and teacher, features in the same order.
    let (values, gradient) = (bench.tap_mut(4).to_vec(), &gradients.taps[4]);
    let along: f64 = (values.iter().zip(gradient))
        .map(|(v, g)| f64::from(*v) * f64::from(*g))
        .sum();
    assert!(
        along.abs() < 1e-6 * norm(&values) * norm(gradient),
        "{along:e}"
    );
}
