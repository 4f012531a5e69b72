//! From what the runs left to the report's data.

use std::collections::BTreeMap;

use kdhost_ab::report::{Arm, CurvePoint, Design, Machine, Report, Run, SCHEMA, Settings, Summary};
use kdhost_ab::resampled::{RECALLS, Resampled};
use kdhost_ab::stats::mean_sd;

use super::AbError;
use super::collect::{Collected, CollectedRun};
use super::plan::Plan;
use super::samples::samples;
use crate::eval::Metrics;

mod comparisons;
mod costs;
mod proof;

/// IoU 0.5 among COCO's thresholds.
const IOU_50: usize = 0;

/// Makes the report. `finished` is the time, for people.
///
/// # Errors
/// If no run has a result, what was fed into a run differs where that was not allowed, or an image
/// cannot be read.
pub fn report(plan: &Plan, collected: &Collected, finished: String) -> Result<Report, AbError> {
    let differences = proof::fed_in(plan, collected)?;
    let Some(any) = done(collected.runs.iter().flatten()).next() else {
        let first = collected.runs[0].first().and_then(|run| run.reason.clone());
        return Err(AbError::Spec {
            what: "no run has a result".into(),
            reason: first.unwrap_or_default(),
        });
    };
    let names: Vec<&'static str> = any.columns().into_iter().map(|(name, _)| name).collect();
    let control = collected.runs[0].iter();
    let environment = control.filter_map(|run| run.environment.as_ref()).next();
    Ok(Report {
        schema: SCHEMA.into(),
        design: design(plan, collected, any, &names),
        arms: (0..plan.arms.len())
            .map(|index| arm(plan, collected, index))
            .collect(),
        comparisons: comparisons::all(plan, collected, &names),
        problems: proof::problems(plan, collected),
        settings: Settings {
            shared: plan.fixed.settings.clone(),
            allowed: plan.spec.allow_diff.clone(),
            differences,
            fingerprints: proof::fingerprints(collected),
        },
        samples: samples(plan, collected)?,
        machine: Machine {
            cpu: environment.and_then(|environment| environment.cpu.clone()),
            threads: plan.fixed.threads,
            jobs: plan.spec.jobs,
            kdhost: env!("CARGO_PKG_VERSION").into(),
            finished,
            costs: costs::by_arm(plan, collected),
        },
    })
}

/// The metrics of the runs that have some.
fn done<'a>(runs: impl Iterator<Item = &'a CollectedRun>) -> impl Iterator<Item = &'a Metrics> {
    runs.filter_map(|run| Some(&run.done.as_ref()?.row.metrics))
}

/// A fraction in points; none where it is undefined.
fn points(fraction: f64) -> Option<f64> {
    (fraction >= 0.0).then_some(100.0 * fraction)
}

/// The metrics of a table, points.
fn metrics_of(run: &CollectedRun) -> BTreeMap<String, Option<f64>> {
    let columns = done(std::iter::once(run)).flat_map(|metrics| metrics.columns());
    columns
        .map(|(name, value)| (name.to_owned(), points(value)))
        .collect()
}

fn design(plan: &Plan, collected: &Collected, any: &Metrics, names: &[&str]) -> Design {
    let config = &plan.arms[0].configs[0];
    let evaluated = collected.runs.iter().flatten();
    let evaluated = evaluated.filter_map(|run| run.evaluation.as_ref()).next();
    Design {
        task: config.task.name().into(),
        metric: names[0].into(),
        metrics: names.iter().map(|name| (*name).to_owned()).collect(),
        threshold: plan.fixed.threshold,
        alpha: plan.fixed.alpha,
        seeds: plan.fixed.seeds.clone(),
        bootstrap: plan.fixed.bootstrap,
        resolution: plan.fixed.resolution.clone(),
        dataset: config.data.dataset.clone(),
        classes: collected.dataset.classes().to_vec(),
        num_images: evaluated.map_or_else(
            || collected.dataset.records().len(),
            |evaluated| evaluated.resampled.num_images(),
        ),
        protocol: any.protocol().into(),
        image_list_hash: any.image_list_hash().into(),
    }
}

fn arm(plan: &Plan, collected: &Collected, index: usize) -> Arm {
    let spec = &plan.arms[index].spec;
    let runs = &collected.runs[index];
    let split = |text: &String| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (key.to_owned(), value.to_owned())
    };
    Arm {
        name: spec.name.clone(),
        control: index == 0,
        plugins: plan.plugins(index, &methods(runs)),
        set: spec.set.iter().map(split).collect(),
        runs: plan.fixed.seeds.iter().zip(runs).map(report_run).collect(),
        summary: summary(runs),
        curve: curve(runs),
        precision_recall: precision_recall(runs),
        by_class: by_class(runs, collected.dataset.classes().len()),
    }
}

fn report_run((&seed, run): (&u64, &CollectedRun)) -> Run {
    Run {
        seed,
        folder: run.folder.clone(),
        state: run.state,
        reason: run.reason.clone(),
        metrics: metrics_of(run),
        student_hash: run.done.as_ref().map(|done| done.student_hash.clone()),
    }
}

/// Ids of methods by the hash of their plugin's file.
fn methods(runs: &[CollectedRun]) -> BTreeMap<String, String> {
    let environments = runs.iter().filter_map(|run| run.environment.as_ref());
    let plugins = environments.flat_map(|environment| environment.plugins.values());
    plugins
        .map(|plugin| (plugin.sha256.clone(), plugin.method.clone()))
        .collect()
}

fn summary(runs: &[CollectedRun]) -> BTreeMap<String, Summary> {
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in runs {
        for (name, value) in metrics_of(run) {
            values.entry(name).or_default().extend(value);
        }
    }
    let summaries = values.into_iter();
    summaries
        .filter_map(|(name, values)| Some((name, mean_sd(&values)?)))
        .collect()
}

fn curve(runs: &[CollectedRun]) -> Vec<CurvePoint> {
    let mut at: BTreeMap<(u64, u64), Vec<f64>> = BTreeMap::new();
    for run in runs {
        for &(iter, epoch, value) in &run.curve {
            at.entry((iter, epoch)).or_default().push(value);
        }
    }
    let points = at.into_iter().filter_map(|((iter, epoch), values)| {
        let value = mean_sd(&values)?;
        Some(CurvePoint { iter, epoch, value })
    });
    points.collect()
}

/// Mean over classes with objects, then over runs.
fn precision_recall(runs: &[CollectedRun]) -> Option<Vec<f64>> {
    let mut curves: Vec<[f64; RECALLS]> = Vec::new();
    for run in runs {
        let Some(Resampled::Detection(matches)) = run.evaluation.as_ref().map(|e| &e.resampled)
        else {
            continue;
        };
        let counts = vec![1; matches.num_images()];
        let classes = matches.precision_at(&counts, IOU_50);
        let classes: Vec<[f64; RECALLS]> = classes.into_iter().flatten().collect();
        curves.extend(mean_curve(&classes));
    }
    let fraction = |points: f64| points / 100.0;
    mean_curve(&curves).map(|mean| mean.map(fraction).to_vec())
}

fn mean_curve(curves: &[[f64; RECALLS]]) -> Option<[f64; RECALLS]> {
    let count = curves.len() as f64;
    let at = |index: usize| curves.iter().map(|curve| curve[index]).sum::<f64>() / count;
    (!curves.is_empty()).then(|| std::array::from_fn(at))
}

fn by_class(runs: &[CollectedRun], classes: usize) -> Vec<Option<f64>> {
    let of_class = |class: usize| {
        let metrics = done(runs.iter());
        let values = metrics.filter_map(|m| Some(100.0 * m.by_class().get(class)?.1?));
        mean_sd(&values.collect::<Vec<f64>>()).map(|summary| summary.mean)
    };
    (0..classes).map(of_class).collect()
}
