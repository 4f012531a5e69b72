//! What an arm costs, beside what it brings.

use std::collections::BTreeMap;

use kdhost_ab::report::{Cost, Summary};
use kdhost_ab::stats::mean_sd;

use super::CollectedRun;
use crate::ab::collect::Collected;
use crate::ab::plan::Plan;
use crate::engine::table::Row;
use crate::state::StateDict;

/// By name of the arm.
pub(super) fn by_arm(plan: &Plan, collected: &Collected) -> BTreeMap<String, Cost> {
    let arms = plan.arms.iter().zip(&collected.runs);
    arms.map(|(arm, runs)| (arm.spec.name.clone(), cost(runs, plan.spec.jobs)))
        .collect()
}

fn cost(runs: &[CollectedRun], jobs: usize) -> Cost {
    let rows = || runs.iter().filter_map(|run| Some(&run.done.as_ref()?.row));
    let over = |value: &dyn Fn(&Row) -> Option<f64>| -> Option<Summary> {
        mean_sd(&rows().filter_map(value).collect::<Vec<f64>>())
    };
    let mut parts: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in rows() {
        for (name, seconds) in row.step.named() {
            let name = name.replace('_', " ");
            parts.entry(name).or_default().push(1e3 * seconds);
        }
    }
    let mean = |(name, values): (String, Vec<f64>)| Some((name, mean_sd(&values)?.mean));
    let evaluations = runs.iter().filter_map(|run| run.evaluation_seconds);
    Cost {
        step_ms: over(&|row| Some(1e3 * row.step.total())),
        parts_ms: parts
            .into_iter()
            .filter_map(mean)
            .filter(|(_, ms)| *ms > 0.0)
            .collect(),
        peak_mib: over(&|row| Some(row.peak_bytes as f64 / f64::from(1 << 20))),
        run_seconds: over(&|row| row.seconds),
        // Of several runs at once the packages' energy is everybody's.
        joules: match jobs {
            1 => over(&|row| row.joules),
            _ => None,
        },
        method_parameters: rows().next().map(|row| row.method_parameters as u64),
        student_parameters: runs.iter().find_map(student_parameters),
        evaluation_seconds: mean_sd(&evaluations.collect::<Vec<f64>>()),
    }
}

fn student_parameters(run: &CollectedRun) -> Option<u64> {
    let state = StateDict::load(&run.done.as_ref()?.student).ok()?;
    let numbers = state.entries.values().map(|array| array.data.len() as u64);
    Some(numbers.sum())
}
