//! A few locations whose values can be verified by eye.

use super::*;

const RIGHT: &[f32] = &[1.0, 0.0];
const UP: &[f32] = &[0.0, 2.0];

/// Two foregrounds of class 0, two backgrounds. The teacher is better at the first of each.
fn four() -> ([i64; 4], Net, Net) {
    let student = Net::new(
        &[&[0.0], &[0.0], &[0.0], &[0.0]],
        &[RIGHT, RIGHT, RIGHT, RIGHT],
    );
    let teacher = Net::new(&[&[1.0], &[-1.0], &[-1.0], &[1.0]], &[UP, UP, UP, UP]);
    ([0, 0, -1, -1], student, teacher)
}

/// `p` of a logit, and the KL of two coins.
fn p(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

fn coin(p: f64, q: f64) -> f64 {
    p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln()
}

#[test]
fn the_student_follows_where_the_teacher_is_better() {
    let (labels, student, teacher) = four();
    let (losses, metric) = run(&mut bench(&json!({}), &labels, &student, &teacher));
    // One of two foregrounds is followed, and its vectors are orthogonal.
    assert!(near(losses[0], 0.5), "{losses:?}");
    // The first background weighs p(-1) and is followed, the second p(1).
    let expected = p(-1.0) * coin(p(-1.0), 0.5) / (p(-1.0) + p(1.0));
    assert!(near(losses[1], expected), "{losses:?} {expected}");
    for name in [
        "gated_fg",
        "gated_bg",
        "teacher_better_fg",
        "teacher_better_bg",
    ] {
        assert_eq!(metric(name), 0.5, "{name}");
    }
    assert_eq!(metric("num_fg"), 2.0);
    assert_eq!(metric("mean_cos"), 0.0);
    assert!(near(metric("student_norm"), 1.0));
    assert!(near(
        metric("mean_kl_bg"),
        (coin(p(-1.0), 0.5) + coin(p(1.0), 0.5)) / 2.0
    ));
}

#[test]
fn every_gate_decides_as_it_says() {
    let (labels, student, teacher) = four();
    let gated = |config: Value| {
        let (losses, metric) = run(&mut bench(&config, &labels, &student, &teacher));
        assert_eq!(metric("teacher_better_fg"), 0.5, "{config}");
        (f64::from(losses[0]), metric("gated_fg"), metric("gated_bg"))
    };
    assert_eq!(gated(json!({"gate": "off"})), (1.0, 1.0, 1.0));
    assert_eq!(gated(json!({"gate_on": "fg"})), (0.5, 0.5, 1.0));
    assert_eq!(gated(json!({"gate_on": "bg"})), (1.0, 1.0, 0.5));
    // The price falls from log 2 to -log p(1) = 0.313, by 0.380.
    assert_eq!(gated(json!({"margin": 0.37})).1, 0.5);
    assert_eq!(gated(json!({"margin": 0.39})).1, 0.0);
    // In sum the teacher loses: it wins 0.380 where it is better and pays 0.620 where it is worse.
    assert_eq!(gated(json!({"gate": "image"})), (0.0, 0.0, 0.0));
    // At the scale of the price itself the gate is half open where both are equal.
    let (_, fg, _) = gated(json!({"gate": "soft", "soft_scale": 1.0}));
    let ln_2 = 2.0f64.ln();
    let expected = (p(ln_2 + p(1.0).ln()) + p(ln_2 + p(-1.0).ln())) / 2.0;
    assert!(near(fg, expected), "{fg} {expected}");
}

#[test]
fn an_image_is_followed_as_a_whole() {
    let (labels, student, mut teacher) = four();
    teacher.logits[1] = vec![0.9];
    // Foreground wins 0.380 + 0.352, background 0.380 - 0.620: the teacher is better in sum.
    let config = json!({"gate": "image"});
    let (losses, metric) = run(&mut bench(&config, &labels, &student, &teacher));
    assert_eq!((metric("gated_fg"), metric("gated_bg")), (1.0, 1.0));
    assert!(near(losses[0], 1.0));
    assert_eq!(metric("teacher_better_bg"), 0.5);
}

#[test]
fn the_detectors_own_losses_may_decide() {
    let (labels, student, teacher) = four();
    let mut bench = bench(
        &json!({"better_by": "task_loss"}),
        &labels,
        &student,
        &teacher,
    );
    bench.set_target("student.task_loss", &[1, 4], vec![1.0, 1.0, 1.0, 1.0]);
    bench.set_target("teacher.task_loss", &[1, 4], vec![0.9, 1.0, 1.1, 0.0]);
    let (_, metric) = run(&mut bench);
    // Equal is not better.
    assert_eq!((metric("gated_fg"), metric("gated_bg")), (0.5, 0.5));
}

/// One object; the student's boxes are those of the teacher at other locations.
fn with_boxes(config: &Value, student: &[[f32; 4]; 4], teacher: &[[f32; 4]; 4]) -> Bench {
    let (labels, of_student, of_teacher) = four();
    let mut bench = bench(config, &labels, &of_student, &of_teacher);
    bench.set_target_ints("assign.gt_index", &[1, 4], vec![0, 0, -1, -1]);
    bench.set_target("student.boxes_xyxy", &[1, 4, 4], student.concat());
    bench.set_target("teacher.boxes_xyxy", &[1, 4, 4], teacher.concat());
    bench.set_target("gt_boxes_xyxy", &[1, 4], vec![0.0, 0.0, 4.0, 4.0]);
    bench
}

#[test]
fn the_better_box_may_decide() {
    let half = [0.0, 0.0, 4.0, 2.0];
    let all = [0.0, 0.0, 4.0, 4.0];
    let away = [9.0, 9.0, 9.0, 9.0];
    let config = json!({"better_by": "iou"});
    let (_, metric) = run(&mut with_boxes(
        &config,
        &[half, half, away, away],
        &[half, all, all, all],
    ));
    // The second foreground's box is better, the first's is equal; background goes by scores.
    assert_eq!((metric("gated_fg"), metric("gated_bg")), (0.5, 0.5));
    // Added to the score: the teacher's second box wins 0.5, its second score loses 0.620; a box that
    // wins 1 turns it.
    let config = json!({"gate_box": true});
    let second = |student| {
        let boxes = [half, student, away, away];
        let (_, metric) = run(&mut with_boxes(&config, &boxes, &[half, all, all, all]));
        metric("gated_fg")
    };
    assert_eq!(second(half), 0.5);
    assert_eq!(second(away), 1.0);
}

#[test]
fn the_smallest_box_around_a_point_is_its_object() {
    let (labels, student, teacher) = four();
    let config = json!({"foreground": "boxes"});
    let at = |points: [f32; 8], boxes: Vec<f32>, gt_labels: Vec<i64>| {
        let mut bench = bench(&config, &labels, &student, &teacher);
        let t = gt_labels.len() as i64;
        bench.set_target("points_xy", &[4, 2], points.to_vec());
        bench.set_target("gt_boxes_xyxy", &[t, 4], boxes);
        bench.set_target_ints("gt_labels", &[t], gt_labels);
        bench.set_target_ints("gt_batch", &[t], vec![0; t as usize]);
        let (_, metric) = run(&mut bench);
        metric("num_fg")
    };
    let points = [1.0, 1.0, 4.0, 4.0, 2.0, 5.0, 9.0, 9.0];
    let boxes = vec![0.0, 0.0, 4.0, 4.0];
    // The second point is on the corner, which is outside.
    assert_eq!(at(points, boxes, vec![0]), 1.0);
    assert_eq!(at(points, Vec::new(), Vec::new()), 0.0);
    let boxes = vec![0.0, 0.0, 8.0, 8.0, 0.0, 0.0, 4.0, 4.0];
    assert_eq!(at(points, boxes, vec![0, 0]), 3.0);
}

#[test]
fn a_teacher_equal_to_the_student_costs_exactly_nothing() {
    let (labels, student, _) = four();
    for config in [
        json!({}),
        json!({"gate": "off"}),
        json!({"gate": "soft"}),
        json!({"gate": "off", "fg_loss": "kl", "bg_loss": "cosine"}),
        json!({"gate": "off", "fg_loss": "mse", "bg_kl": "bernoulli", "temperature": 2.0}),
    ] {
        let (losses, _) = run(&mut bench(&config, &labels, &student, &student));
        assert_eq!(losses, [0.0, 0.0], "{config}");
    }
}

#[test]
fn vectors_without_direction_cost_one_and_teach_nothing() {
    let (labels, student, teacher) = four();
    for zero_of_student in [true, false] {
        let (mut student, mut teacher) = (student.clone(), teacher.clone());
        let zero = if zero_of_student {
            &mut student
        } else {
            &mut teacher
        };
        zero.features = vec![vec![0.0, 0.0]; 4];
        let mut bench = bench(&json!({"gate": "off"}), &labels, &student, &teacher);
        let out = bench.forward().unwrap();
        assert_eq!(out.losses[0], 1.0);
        let gradients = bench.backward(&out, &[1.0, 1.0], &[]).unwrap();
        assert!(
            gradients.taps[2].iter().all(|g| *g == 0.0),
            "{:?}",
            gradients.taps[2]
        );
    }
}

#[test]
fn batches_without_foreground_or_background_are_defined() {
    let (_, student, teacher) = four();
    for labels in [[-1; 4], [0; 4], [-2; 4]] {
        for gate in ["location", "soft", "image", "off"] {
            let config = json!({"gate": gate});
            let mut bench = bench(&config, &labels, &student, &teacher);
            let out = bench.forward().unwrap();
            let gradients = bench.backward(&out, &[1.0, 1.0], &[]).unwrap();
            let all = gradients.taps.iter().flatten();
            assert!(
                all.chain(&out.losses).all(|v| v.is_finite()),
                "{labels:?} {gate}"
            );
            assert_eq!(
                out.losses[0] == 0.0,
                labels[0] != 0 || gate == "image",
                "{labels:?} {gate}"
            );
            assert_eq!(
                out.losses[1] == 0.0,
                labels[0] != -1 || gate == "image",
                "{labels:?} {gate}"
            );
        }
    }
}

#[test]
fn a_cell_serves_all_of_its_anchors() {
    let taps = [
        TapShape::pair(LOGITS, [1, 2, 1, 2], [1, 2, 1, 2]),
        TapShape::pair(FEATURES, [1, 2, 1, 2], [1, 2, 1, 2]),
    ]
    .concat();
    let config = json!({"gate": "off"});
    let mut bench = Bench::for_classes::<FgBg>(1, &config, &taps).unwrap();
    // The first cell's vectors are orthogonal, the second's equal.
    bench.tap_mut(2).copy_from_slice(&[1.0, 1.0, 0.0, 0.0]);
    bench.tap_mut(3).copy_from_slice(&[0.0, 1.0, 1.0, 0.0]);
    bench.set_target_ints("assign.labels", &[1, 4], vec![0, -1, 0, 0]);
    let (losses, metric) = run(&mut bench);
    assert!(near(losses[0], 1.0 / 3.0), "{losses:?}");
    assert!(near(metric("mean_cos"), 2.0 / 3.0));
}
