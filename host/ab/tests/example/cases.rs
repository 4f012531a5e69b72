//! Comparisons where something is missing, or more than usual.

use std::collections::BTreeMap;

use kdhost_ab::report::{Machine, Problem, Report, RunState, Sample, Settings, Verdict};

use super::complete;
use super::maker::{Plan, Tested, arm, compare, cost};

pub(super) fn all() -> Vec<(&'static str, Report)> {
    vec![
        ("control_alone", control_alone()),
        ("one_seed", one_seed()),
        ("all_failed", all_failed()),
        ("bare", bare()),
        ("many", many()),
        ("hostile", hostile()),
    ]
}

/// No arm but the control.
fn control_alone() -> Report {
    let mut report = complete();
    report.arms.truncate(1);
    report.comparisons.clear();
    report.samples.clear();
    report.problems.clear();
    report.settings.differences.clear();
    report.machine.costs.retain(|arm, _| arm == "none");
    report
}

/// No spread, so no interval, no test and no band.
fn one_seed() -> Report {
    let mut report = complete();
    let plan = Plan {
        metrics: report.design.metrics.clone(),
        seeds: vec![7],
        classes: report.design.classes.clone(),
    };
    report.arms = vec![
        arm(&plan, "none", 0, &[Some(30.1)]),
        arm(&plan, "ssim", 1, &[Some(31.2)]),
    ];
    let tested = Tested {
        quantiles: None,
        p: None,
        resolvable: None,
        verdict: Verdict::Underpowered,
        reading: "+1.10 points from one pair: a single seed has no spread; run at least 2."
            .to_owned(),
    };
    report.comparisons = vec![compare(&plan, &report.arms[0], &report.arms[1], 1, tested)];
    report.design.seeds = plan.seeds;
    report.design.resolution.in_sd = None;
    report.design.resolution.sd = None;
    report.design.resolution.sd_source = None;
    report.design.resolution.difference = None;
    report.problems.clear();
    report.samples.clear();
    report.machine.costs = (0..2)
        .map(|at| (report.arms[at].name.clone(), cost(at, 1)))
        .collect();
    report
}

/// Not one run has a result.
fn all_failed() -> Report {
    let mut report = complete();
    let plan = Plan {
        metrics: report.design.metrics.clone(),
        seeds: report.design.seeds.clone(),
        classes: report.design.classes.clone(),
    };
    report.arms = vec![
        arm(&plan, "none", 0, &[None; 5]),
        arm(&plan, "ssim", 1, &[None; 5]),
    ];
    report.arms[1].runs[3].state = RunState::Killed;
    report.arms[1].runs[4].state = RunState::Missing;
    let tested = Tested {
        quantiles: None,
        p: None,
        resolvable: None,
        verdict: Verdict::Underpowered,
        reading: "No pair: not one seed has a result in both arms.".to_owned(),
    };
    report.comparisons = vec![compare(&plan, &report.arms[0], &report.arms[1], 1, tested)];
    let failed = |seed| Problem {
        arm: Some("none".to_owned()),
        seed: Some(seed),
        message: "The run failed: the disk is full.".to_owned(),
    };
    report.problems = (1..=5).map(failed).collect();
    report.samples.clear();
    report.settings.fingerprints.clear();
    report.machine.costs.clear();
    report
}

/// A classifier without curve, pictures, costs or settings, and a metric that is undefined.
fn bare() -> Report {
    let mut report = complete();
    report.design.task = "classification".to_owned();
    report.design.metric = "top1".to_owned();
    report.design.metrics = vec!["top1".to_owned(), "top5".to_owned()];
    report.design.threshold = 0.0;
    for arm in &mut report.arms {
        let summary = arm.summary["AP"];
        arm.summary = BTreeMap::from([("top1".to_owned(), summary)]);
        for run in &mut arm.runs {
            let quality = run.metrics.get("AP").copied();
            run.metrics = quality
                .into_iter()
                .flat_map(|q| [("top1".to_owned(), q), ("top5".to_owned(), None)])
                .collect();
        }
        arm.curve.clear();
        arm.precision_recall = None;
        arm.by_class = vec![None; arm.by_class.len()];
    }
    for comparison in &mut report.comparisons {
        comparison.metrics.truncate(1);
        comparison.metrics[0].name = "top5".to_owned();
        for difference in comparison
            .metrics
            .iter_mut()
            .chain(&mut comparison.by_class)
        {
            difference.difference = None;
            difference.interval = None;
        }
        comparison.bootstrap = None;
    }
    report.samples.clear();
    report.settings = Settings {
        shared: BTreeMap::new(),
        allowed: Vec::new(),
        differences: Vec::new(),
        fingerprints: BTreeMap::new(),
    };
    report.machine = Machine::default();
    report
}

/// Ten arms with long names, eighty classes.
fn many() -> Report {
    let mut report = complete();
    let plan = Plan {
        metrics: vec!["mIoU".to_owned(), "pixel_acc".to_owned()],
        seeds: (1..=5).collect(),
        classes: (0..80)
            .map(|at| format!("class {at:02} with a rather long name"))
            .collect(),
    };
    let name = |at: usize| match at {
        0 => "none".to_owned(),
        _ => format!(
            "method-{at}:weight=2.5,temperature=4.0,levels=p3-p4-p5-p6-p7,warmup_iters=1000,variant={at}"
        ),
    };
    let quality = |arm: usize, seed: usize| {
        let value = 61.0
            + 0.7 * (seed as f64 - 2.0)
            + (arm as f64 - 4.0) * 0.3 * f64::from(u8::from(arm > 0));
        Some((value * 1000.0).round() / 1000.0 + 0.125 * ((arm * seed) % 3) as f64)
    };
    report.arms = (0..10)
        .map(|at| {
            arm(
                &plan,
                &name(at),
                at,
                &[0, 1, 2, 3, 4].map(|seed| quality(at, seed)),
            )
        })
        .collect();
    let tested = |at: usize| Tested {
        quantiles: Some([2.77645, 5.43659]),
        p: Some([0.0004, 0.0036]),
        resolvable: Some(3.0697),
        verdict: match at {
            1 | 2 => Verdict::Worse,
            3..=5 => Verdict::NoDifferenceShown,
            6 | 7 => Verdict::Underpowered,
            _ => Verdict::Better,
        },
        reading: format!("A made-up sentence about comparison {at} of 9."),
    };
    report.comparisons = (1..10)
        .map(|at| compare(&plan, &report.arms[0], &report.arms[at], at, tested(at)))
        .collect();
    report.design.task = "segmentation".to_owned();
    report.design.metric = "mIoU".to_owned();
    report.design.metrics = plan.metrics;
    report.design.classes = plan.classes;
    for arm in &mut report.arms {
        arm.precision_recall = None;
    }
    report.samples.clear();
    report.settings.differences.clear();
    report.machine.jobs = 4;
    report.machine.costs = (0..10).map(|at| (name(at), cost(at, 5))).collect();
    if let Some(cost) = report.machine.costs.get_mut(&name(9)) {
        cost.student_parameters = Some(500_000);
    }
    report
}

/// Names and reasons that would be HTML, JavaScript or a table's column if nobody took care.
fn hostile() -> Report {
    let attack =
        "</script><script>window.broken=1</script><img src=x onerror=window.broken=1>|`*_<!--";
    let mut report = complete();
    let renamed = |name: &str| {
        if name == "hint" {
            attack.to_owned()
        } else {
            name.to_owned()
        }
    };
    for arm in &mut report.arms {
        arm.name = renamed(&arm.name);
    }
    for comparison in &mut report.comparisons {
        comparison.arm = renamed(&comparison.arm);
        for class in &mut comparison.by_class {
            class.name.push_str(attack);
        }
    }
    report.machine.costs = report
        .machine
        .costs
        .iter()
        .map(|(arm, cost)| (renamed(arm), cost.clone()))
        .collect();
    for class in &mut report.design.classes {
        class.push_str(attack);
    }
    report.design.dataset = attack.to_owned();
    report.problems.push(Problem {
        arm: Some(attack.to_owned()),
        seed: None,
        message: attack.to_owned(),
    });
    // Not a picture, and an address that a page must not follow.
    report.samples.push(Sample {
        caption: attack.to_owned(),
        control_image: "https://example.invalid/x.png".to_owned(),
        ..report.samples[0].clone()
    });
    report
        .settings
        .shared
        .insert(attack.to_owned(), attack.to_owned());
    report
}
