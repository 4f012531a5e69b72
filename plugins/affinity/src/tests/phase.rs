//! The auto-encoder's phase: what it asks for, what it reads, what it leaves alone.

use kd_plugin::Schedule;
use kd_plugin::schedule::Until;
use kd_plugin::testkit::{Gradients, traced};

use super::*;

fn taps() -> Vec<TapShape> {
    neck(3..=5, [3, 4])
}

fn schedule(config: Value) -> Option<Schedule> {
    let bench = Bench::new::<Affinity>(&config, &taps()).unwrap();
    bench
        .schedule()
        .map(|text| serde_json::from_str(text).unwrap())
}

#[test]
fn the_schedule_is_the_options() {
    let phases = |config| schedule(config).unwrap().stages[0].phases.clone();
    let [first, second] = phases(json!({})).try_into().unwrap();
    assert_eq!(first.name, "autoencoder");
    assert_eq!(first.until, Some(Until::Epochs(1)));
    assert_eq!(first.losses, ["loss_ae"]);
    assert_eq!(first.params, ["encoder.*", "decoder.*"]);
    let learn = first.learn;
    assert_eq!(
        [learn.backbone, learn.neck, learn.head, learn.method],
        [false, false, false, true]
    );
    let recipe = first.pretrain.unwrap();
    assert_eq!((recipe.lr, recipe.momentum), (0.1, 0.9));
    assert_eq!((recipe.weight_decay, recipe.poly_power), (1e-4, 0.9));
    assert_eq!((second.until, second.pretrain), (None, None));
    assert_eq!(second.losses, ["loss_adapt", "loss_aff"]);
    assert_eq!(second.params, ["feature_adapter.*", "affinity_adapter.*"]);

    let config = json!({
        "autoencoder_iters": 7, "autoencoder_lr": 0.5, "autoencoder_weight_decay": 0.0,
        "loss_weight_adapt": 0.0,
    });
    let [first, second] = phases(config).try_into().unwrap();
    assert_eq!(first.until, Some(Until::Iters(7)));
    assert_eq!(first.pretrain.unwrap().lr, 0.5);
    assert_eq!(second.losses, ["loss_aff"]);
    assert_eq!(second.params, ["affinity_adapter.*"]);
    assert_eq!(schedule(json!({"autoencoder": "none"})), None);
}

/// Every pattern of a phase names parameters, and together they name all.
#[test]
fn the_phases_share_all_parameters() {
    let bench = Bench::new::<Affinity>(&json!({}), &taps()).unwrap();
    let schedule: Schedule = serde_json::from_str(bench.schedule().unwrap()).unwrap();
    let patterns = schedule.stages[0]
        .phases
        .iter()
        .flat_map(|phase| &phase.params);
    let prefixes: Vec<&str> = patterns.map(|p| p.strip_suffix('*').unwrap()).collect();
    let names = || bench.params().iter().map(|(name, ..)| name.as_str());
    for prefix in &prefixes {
        assert!(names().any(|name| name.starts_with(prefix)), "{prefix}");
    }
    for name in names() {
        let of = prefixes.iter().filter(|prefix| name.starts_with(**prefix));
        assert_eq!(of.count(), 1, "{name}");
    }
}

/// One forward and backward, all of it that is not finite counted.
fn run(bench: &mut Bench, upstream: [f32; 3]) -> (Vec<f32>, Gradients) {
    let out = bench.forward().unwrap();
    let gradients = bench.backward(&out, &upstream, &[]).unwrap();
    (out.losses.clone(), gradients)
}

#[test]
fn the_first_phase_never_reads_the_student() {
    let mut bench = Bench::new::<Affinity>(&json!({}), &taps()).unwrap();
    bench.fill(3);
    let (plain, gradients) = run(&mut bench, [1.0, 0.0, 0.0]);
    for slot in [0, 2, 4] {
        bench.tap_mut(slot).fill(f32::NAN);
    }
    let (with_nan, with_nan_gradients) = run(&mut bench, [1.0, 0.0, 0.0]);
    assert_eq!(plain, with_nan);
    assert!(plain[0] > 0.0 && plain[1..] == [0.0, 0.0], "{plain:?}");
    assert_eq!(gradients, with_nan_gradients);
    traced::check(&mut bench, &[1.0, 0.0, 0.0], &[]).unwrap();
    for ((name, ..), gradient) in bench.params().iter().zip(&gradients.params) {
        let learns = name.starts_with("encoder.") || name.starts_with("decoder.");
        assert_eq!(gradient.iter().any(|g| *g != 0.0), learns, "{name}");
    }
    // And the second does, so that NaN shows.
    bench.set_phase(JOINT);
    let out = bench.forward().unwrap();
    assert!(
        out.losses[0] == 0.0 && out.losses[1..].iter().all(|l| l.is_nan()),
        "{:?}",
        out.losses
    );
}

#[test]
fn the_second_phase_leaves_the_auto_encoder_alone() {
    let mut bench = joint(&json!({}), &taps());
    bench.fill(3);
    let frozen = |bench: &Bench| -> Vec<Vec<f32>> {
        let slots = bench.buffers().iter().enumerate();
        let of = slots.filter(|(_, (name, _))| !name.starts_with("feature_adapter."));
        of.map(|(slot, _)| bench.buffer(slot).to_vec()).collect()
    };
    let before = frozen(&bench);
    let (values, gradients) = run(&mut bench, [0.0, 1.0, 1.0]);
    assert_eq!(before, frozen(&bench));
    assert!(
        values[0] == 0.0 && values[1] > 0.0 && values[2] > 0.0,
        "{values:?}"
    );
    for ((name, ..), gradient) in bench.params().iter().zip(&gradients.params) {
        let learns = name.contains("_adapter.");
        assert_eq!(gradient.iter().any(|g| *g != 0.0), learns, "{name}");
    }
    traced::check(&mut bench, &[0.0, 1.0, 1.0], &[]).unwrap();
    // The fixed encoder works on each image by itself, whatever its batch's statistics are.
    let mut other = joint(&json!({}), &taps());
    other.fill(3);
    other
        .buffer_mut("encoder.shared.norm1.running_mean")
        .fill(0.5);
    assert_ne!(run(&mut other, [0.0, 1.0, 1.0]).0, values);
}

/// Plain gradient descent on one batch: reconstruction improves, and the metric says so.
#[test]
fn the_auto_encoder_learns_and_r2_shows_it() {
    let taps = feat(([2, 3, 4, 4], 16), ([2, 6, 8, 8], 8));
    let mut bench = Bench::new::<Affinity>(&json!({}), &taps).unwrap();
    bench.fill(9);
    let r2 = |bench: &Bench| {
        let metrics = &bench.log().metrics;
        let found = metrics.iter().rfind(|(name, _)| name == "ae_r2");
        found.unwrap().1
    };
    let mut course = Vec::new();
    for _ in 0..60 {
        let (values, gradients) = run(&mut bench, [1.0, 0.0, 0.0]);
        course.push((values[0], r2(&bench)));
        let names: Vec<String> = bench.params().iter().map(|(n, ..)| n.clone()).collect();
        for (name, gradient) in names.iter().zip(&gradients.params) {
            for (value, gradient) in bench.param_mut(name).iter_mut().zip(gradient) {
                *value -= 0.2 * gradient;
            }
        }
    }
    let (first, last) = (course[0], course[course.len() - 1]);
    assert!(last.0 < 0.8 * first.0, "{course:?}");
    assert!(first.1 < 0.1 && last.1 > 0.15, "{course:?}");
}

#[test]
fn a_loss_of_no_weight_is_not_there() {
    for (key, losses, adapter) in [
        (
            "loss_weight_adapt",
            ["loss_ae", "loss_aff"],
            "feature_adapter.",
        ),
        (
            "loss_weight_aff",
            ["loss_ae", "loss_adapt"],
            "affinity_adapter.",
        ),
    ] {
        let bench = Bench::new::<Affinity>(&json!({key: 0.0}), &taps()).unwrap();
        let names: Vec<&str> = bench
            .losses()
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, losses);
        let has = |prefix: &str| {
            bench
                .params()
                .iter()
                .any(|(name, ..)| name.starts_with(prefix))
        };
        assert!(!has(adapter) && has("encoder."));
    }
    let bench = Bench::new::<Affinity>(&json!({}), &taps()).unwrap();
    let weights: Vec<f64> = bench.losses().iter().map(|(_, weight)| *weight).collect();
    assert_eq!(weights, [1.0, 50.0, 1.0]);
}
