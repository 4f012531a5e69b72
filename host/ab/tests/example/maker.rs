//! Builds the parts of a report from the qualities of its runs.

use std::collections::BTreeMap;

use kdhost_ab::report::{
    Arm, Bootstrap, Comparison, Cost, CurvePoint, Difference, Interval, LeftOut, Pair, Plugin, Run,
    RunState, Summary, Verdict,
};

/// What [`arm`] needs to know of the comparison.
pub(super) struct Plan {
    pub metrics: Vec<String>,
    pub seeds: Vec<u64>,
    pub classes: Vec<String>,
}

/// Numbers that need a distribution: worked out by scipy for the reports that have them.
pub(super) struct Tested {
    /// Quantile of the interval at 95 %, and of the intervals that hold together.
    pub quantiles: Option<[f64; 2]>,
    /// Before and after the correction.
    pub p: Option<[f64; 2]>,
    /// Resolvable difference in standard deviations.
    pub resolvable: Option<f64>,
    pub verdict: Verdict,
    pub reading: String,
}

/// A number in [-1, 1) that looks drawn and is the same everywhere.
pub(super) fn jitter(a: usize, b: usize) -> f64 {
    let mixed = ((a as u64 + 1) * 0x9E37_79B9 + (b as u64 + 7) * 0x85EB_CA6B) % 10_007;
    mixed as f64 / 10_007.0 * 2.0 - 1.0
}

/// Thousandths: what is compared with committed text has no trailing bits.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

pub(super) fn summary(values: &[f64]) -> Option<Summary> {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (n > 0).then(|| Summary {
        n,
        mean: rounded(mean),
        sd: (n > 1).then(|| rounded((squares / (n - 1) as f64).sqrt())),
    })
}

/// An arm with one run a seed; a seed without a quality has failed.
pub(super) fn arm(plan: &Plan, name: &str, index: usize, qualities: &[Option<f64>]) -> Arm {
    let runs: Vec<Run> = plan
        .seeds
        .iter()
        .zip(qualities)
        .map(|(&seed, &quality)| run(plan, name, index, seed, quality))
        .collect();
    let done: Vec<f64> = qualities.iter().flatten().copied().collect();
    let mut by_metric = BTreeMap::new();
    for metric in &plan.metrics {
        let values: Vec<f64> = runs
            .iter()
            .filter_map(|run| run.metrics.get(metric).copied().flatten())
            .collect();
        if let Some(summary) = summary(&values) {
            by_metric.insert(metric.clone(), summary);
        }
    }
    let file = format!("libkd_{}.so", name.split([':', ' ']).next().unwrap());
    Arm {
        name: name.to_owned(),
        control: index == 0,
        plugins: if index == 0 {
            Vec::new()
        } else {
            vec![Plugin {
                method: file[6..file.len() - 3].to_owned(),
                sha256: hash(index, 64),
                file,
            }]
        },
        set: if index == 0 {
            BTreeMap::new()
        } else {
            BTreeMap::from([("method.weight".to_owned(), format!("{index}.0"))])
        },
        summary: by_metric,
        curve: curve(index, &done),
        precision_recall: (!done.is_empty()).then(|| precision_recall(index)),
        by_class: (0..plan.classes.len())
            .map(|class| {
                summary(&done)
                    .map(|s| rounded(s.mean + 9.0 * jitter(class, 0) + 0.6 * jitter(class, index)))
            })
            .collect(),
        runs,
    }
}

fn run(plan: &Plan, name: &str, index: usize, seed: u64, quality: Option<f64>) -> Run {
    let offsets = [0.0, 21.3, -3.1, -14.2, 2.4, 9.7];
    let metrics = plan.metrics.iter().enumerate().map(|(at, metric)| {
        let offset = offsets[at % offsets.len()];
        let value = quality.map(|q| {
            if at == 0 {
                q
            } else {
                rounded(q + offset + 0.4 * jitter(at, index * 31 + seed as usize))
            }
        });
        (metric.clone(), value)
    });
    Run {
        seed,
        folder: format!("{}/seed-{seed}", name.replace([':', '='], "-")),
        state: if quality.is_some() {
            RunState::Done
        } else {
            RunState::Failed
        },
        reason: quality
            .is_none()
            .then(|| "loss_cls is NaN at iter 812; the last good state is kept".to_owned()),
        metrics: if quality.is_some() {
            metrics.collect()
        } else {
            BTreeMap::new()
        },
        student_hash: quality.map(|_| hash(index * 100 + seed as usize, 64)),
    }
}

pub(super) fn hash(of: usize, digits: usize) -> String {
    (0..digits)
        .map(|at| char::from_digit(((jitter(of, at) + 1.0) * 8.0) as u32, 16).unwrap())
        .collect()
}

fn curve(index: usize, done: &[f64]) -> Vec<CurvePoint> {
    let points = (1..=12u64).filter_map(|epoch| {
        let grown = 1.0 - (-0.32 * epoch as f64).exp();
        let last = 1.0 - (-0.32f64 * 12.0).exp();
        let at = |(run, q): (usize, &f64)| {
            q * grown / last + (1.0 - grown) * jitter(run + index * 10, epoch as usize)
        };
        let values: Vec<f64> = done.iter().enumerate().map(at).collect();
        Some(CurvePoint {
            iter: epoch * 500,
            epoch,
            value: summary(&values)?,
        })
    });
    points.collect()
}

fn precision_recall(index: usize) -> Vec<f64> {
    let reach = 0.62 + 0.03 * index as f64;
    (0..=100)
        .map(|at| rounded((0.97 - 0.75 * (f64::from(at) / 100.0 / reach).powi(2)).max(0.0)))
        .collect()
}

/// An arm against the control, pair by pair.
pub(super) fn compare(
    plan: &Plan,
    control: &Arm,
    arm: &Arm,
    index: usize,
    tested: Tested,
) -> Comparison {
    let metric = &plan.metrics[0];
    let mut pairs = Vec::new();
    let mut left_out = Vec::new();
    for (ours, plain) in arm.runs.iter().zip(&control.runs) {
        match (ours.metrics.get(metric), plain.metrics.get(metric)) {
            (Some(&Some(ours_at)), Some(&Some(plain_at))) => {
                let difference = rounded(ours_at - plain_at);
                let bootstrap = Some(bootstrap(difference, 0.5));
                pairs.push(Pair {
                    seed: ours.seed,
                    arm: ours_at,
                    control: plain_at,
                    difference,
                    bootstrap,
                });
            }
            _ => left_out.push(LeftOut {
                seed: ours.seed,
                reason: format!("{} failed: loss_cls is NaN at iter 812", ours.folder),
            }),
        }
    }
    let differences: Vec<f64> = pairs.iter().map(|pair| pair.difference).collect();
    let over_pairs = summary(&differences);
    let sd = over_pairs.and_then(|s| s.sd);
    let around = |mean: f64, half: f64| Interval {
        low: rounded(mean - half),
        high: rounded(mean + half),
    };
    let half = |which: usize| Some(tested.quantiles?[which] * sd? / (pairs.len() as f64).sqrt());
    let interval = over_pairs.and_then(|s| Some(around(s.mean, half(0)?)));
    let describe = |name: &String, at: usize, spread: f64| {
        let difference = over_pairs.map(|s| rounded(s.mean + spread * jitter(at, index)));
        let interval = interval
            .and(difference)
            .map(|mean| around(mean, spread * (0.6 + 0.3 * jitter(at, 3))));
        Difference {
            name: name.clone(),
            difference,
            interval,
        }
    };
    Comparison {
        arm: arm.name.clone(),
        control: control.name.clone(),
        left_out,
        difference: over_pairs.map(|s| s.mean),
        sd,
        interval,
        interval_together: over_pairs.and_then(|s| Some(around(s.mean, half(1)?))),
        p: tested.p.map(|p| p[0]),
        p_holm: tested.p.map(|p| p[1]),
        bootstrap: over_pairs.map(|s| bootstrap(s.mean, 0.3)),
        resolvable: tested
            .resolvable
            .and_then(|in_sd| Some(rounded(in_sd * sd?))),
        verdict: tested.verdict,
        reading: tested.reading,
        metrics: plan
            .metrics
            .iter()
            .enumerate()
            .skip(1)
            .map(|(at, name)| describe(name, at, 0.9))
            .collect(),
        by_class: plan
            .classes
            .iter()
            .enumerate()
            .map(|(at, name)| describe(name, at + 40, 1.6))
            .collect(),
        pairs,
    }
}

fn bootstrap(difference: f64, se: f64) -> Bootstrap {
    Bootstrap {
        interval: Interval {
            low: rounded(difference - 1.96 * se),
            high: rounded(difference + 1.96 * se),
        },
        se,
        share_above: (0.5 + difference / se / 5.0).clamp(0.0, 1.0),
    }
}

/// Costs that grow with the number of the arm.
pub(super) fn cost(index: usize, runs: usize) -> Cost {
    let measured = |mean: f64| {
        summary(
            &(0..runs)
                .map(|run| rounded(mean * (1.0 + 0.02 * jitter(run, index))))
                .collect::<Vec<_>>(),
        )
    };
    let mut parts_ms = BTreeMap::from([
        ("student forward".to_owned(), 4.1),
        ("student backward".to_owned(), 7.0),
        ("optimizer".to_owned(), 0.8),
    ]);
    if index > 0 {
        parts_ms.insert("teacher forward".to_owned(), 11.2);
        parts_ms.insert("method forward".to_owned(), 1.1 + index as f64);
        parts_ms.insert("method backward".to_owned(), 0.9 + index as f64);
    }
    let step = parts_ms.values().sum::<f64>() + 0.6;
    Cost {
        step_ms: measured(step),
        parts_ms,
        peak_mib: measured(213.0 + 6.0 * index as f64),
        run_seconds: measured(step * 6.2),
        joules: measured(step * 230.0),
        method_parameters: Some(if index == 0 { 0 } else { 24_832 * index as u64 }),
        student_parameters: Some(412_034),
        evaluation_seconds: measured(3.4),
    }
}
