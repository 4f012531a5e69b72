//! Made-up comparisons, the same on every machine: a whole one, and those where something is missing.

mod cases;
mod maker;
mod picture;

use std::collections::BTreeMap;

use kdhost_ab::report::{
    Design, Machine, Problem, Report, Resolution, SCHEMA, Sample, SettingDifference, Settings,
    Verdict,
};
use maker::{Plan, Tested, arm, compare, cost, hash};

/// Every comparison, by name; `complete` is the first.
pub(crate) fn all() -> Vec<(&'static str, Report)> {
    let mut all = vec![("complete", complete())];
    all.extend(cases::all());
    all
}

/// A control and three arms with five seeds of a detector on four classes; one run has failed.
pub(crate) fn complete() -> Report {
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
    let plan = Plan {
        metrics: words(&["AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L"]),
        seeds: (1..=5).collect(),
        classes: words(&["person", "bicycle", "car", "traffic light"]),
    };
    let plain = [30.1, 30.6, 29.8, 30.4, 30.2];
    let with = |differences: [Option<f64>; 5]| -> Vec<Option<f64>> {
        plain
            .iter()
            .zip(differences)
            .map(|(q, d)| Some(((q + d?) * 1000.0f64).round() / 1000.0))
            .collect()
    };
    let arms = vec![
        arm(&plan, "none", 0, &plain.map(Some)),
        arm(
            &plan,
            "ssim:weight=2",
            1,
            &with([1.3, 1.6, 1.1, 1.5, 1.4].map(Some)),
        ),
        arm(
            &plan,
            "hint",
            2,
            &with([0.02, -0.05, 0.08, 0.01, -0.04].map(Some)),
        ),
        arm(
            &plan,
            "lgd",
            3,
            &with([Some(0.9), Some(-0.4), None, Some(1.6), Some(0.2)]),
        ),
    ];
    let tested = [
        Tested {
            quantiles: Some([2.77645, 3.96079]),
            p: Some([0.0000883, 0.000265]),
            resolvable: Some(2.29165),
            verdict: Verdict::Better,
            reading: "+1.38 points [+1.14, +1.62], p = 0.0003 after Holm for 3 comparisons: better, at or above the threshold of 0.30.".to_owned(),
        },
        Tested {
            quantiles: Some([2.77645, 3.96079]),
            p: Some([0.87239, 0.87239]),
            resolvable: Some(2.29165),
            verdict: Verdict::NoDifferenceShown,
            reading: "+0.00 points; the interval that holds for all comparisons, [-0.09, +0.10], excludes differences of 0.30.".to_owned(),
        },
        Tested {
            quantiles: Some([3.18245, 4.85666]),
            p: Some([0.27599, 0.55198]),
            resolvable: Some(3.12421),
            verdict: Verdict::Underpowered,
            reading: "+0.58 points [-0.80, +1.95], p = 0.55 after Holm: 4 pairs do not tell; about 92 seeds would resolve 0.30 at this spread.".to_owned(),
        },
    ];
    let comparisons = tested.into_iter().enumerate();
    let comparisons = comparisons
        .map(|(at, tested)| compare(&plan, &arms[0], &arms[at + 1], at + 1, tested))
        .collect();
    Report {
        schema: SCHEMA.to_owned(),
        design: Design {
            task: "detection".to_owned(),
            metric: "AP".to_owned(),
            metrics: plan.metrics.clone(),
            threshold: 0.3,
            alpha: 0.05,
            seeds: plan.seeds.clone(),
            bootstrap: 2000,
            resolution: Resolution {
                power: 0.8,
                in_sd: Some(2.29165),
                sd: Some(0.4),
                sd_source: Some("stated".to_owned()),
                difference: Some(0.917),
            },
            dataset: "shapes".to_owned(),
            classes: plan.classes.clone(),
            num_images: 300,
            protocol: "coco/1 maxDets 1,10,100 IoU 0.50:0.05:0.95".to_owned(),
            image_list_hash: hash(5, 64),
        },
        comparisons,
        problems: vec![Problem {
            arm: Some("lgd".to_owned()),
            seed: Some(3),
            message: "The run failed: loss_cls is NaN at iter 812. Its seed is left out of the comparison.".to_owned(),
        }],
        settings: settings(&arms),
        samples: vec![sample("ssim:weight=2", 17), sample("lgd", 204)],
        machine: Machine {
            cpu: Some("Example CPU, 2 cores".to_owned()),
            threads: 2,
            jobs: 1,
            kdhost: "0.1.0".to_owned(),
            finished: "2026-01-31T12:00:00Z".to_owned(),
            costs: arms.iter().enumerate().map(|(at, arm)| (arm.name.clone(), cost(at, plan.seeds.len()))).collect(),
        },
        arms,
    }
}

fn settings(arms: &[kdhost_ab::report::Arm]) -> Settings {
    let mut shared = BTreeMap::new();
    for (group, keys) in [
        (
            "data",
            &["batch_size", "num_images", "image_size", "flip", "workers"][..],
        ),
        (
            "optimizer",
            &["name", "lr", "momentum", "weight_decay", "clip_norm"][..],
        ),
        (
            "schedule",
            &["iters", "warmup_iters", "milestones", "gamma", "eval_every"][..],
        ),
        (
            "student",
            &["detector", "backbone", "width", "norm", "weights"][..],
        ),
    ] {
        for (at, key) in keys.iter().enumerate() {
            shared.insert(
                format!("{group}.{key}"),
                format!("{}", (at + 1) * group.len()),
            );
        }
    }
    shared.insert(
        "data.classes".to_owned(),
        "[\"person\", \"bicycle\", \"car\", \"traffic light\"]".to_owned(),
    );
    let runs = arms.iter().flat_map(|arm| &arm.runs).enumerate();
    let fingerprints = runs.map(|(at, run)| {
        let seed = run.seed as usize;
        let mut hashes = BTreeMap::from([
            ("initial weights".to_owned(), hash(seed, 64)),
            ("image order".to_owned(), hash(seed + 20, 64)),
            ("augmentation".to_owned(), hash(seed + 40, 64)),
            ("evaluation images".to_owned(), hash(5, 64)),
        ]);
        if run.student_hash.is_some() {
            hashes.insert("trained weights".to_owned(), hash(at + 300, 64));
        }
        (run.folder.clone(), hashes)
    });
    Settings {
        shared,
        allowed: vec!["optimizer.lr".to_owned()],
        differences: vec![SettingDifference {
            key: "optimizer.lr".to_owned(),
            arm: "lgd".to_owned(),
            seed: None,
            control_value: "0.01".to_owned(),
            arm_value: "0.005".to_owned(),
        }],
        fingerprints: fingerprints.collect(),
    }
}

fn sample(arm: &str, image_id: i64) -> Sample {
    let (truth, found) = ([0, 158, 115], [230, 159, 0]);
    Sample {
        arm: arm.to_owned(),
        seed: 1,
        image_id,
        source: format!("val/{image_id:012}.png"),
        caption: format!("{arm} finds 2 of 2 objects, none finds 1"),
        control_image: picture::boxes(&[
            ([20, 60, 60, 70], truth),
            ([140, 50, 70, 90], truth),
            ([24, 64, 58, 62], found),
        ]),
        arm_image: picture::boxes(&[
            ([20, 60, 60, 70], truth),
            ([140, 50, 70, 90], truth),
            ([22, 62, 57, 66], found),
            ([143, 54, 68, 84], found),
        ]),
    }
}
