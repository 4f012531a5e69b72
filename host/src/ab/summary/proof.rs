//! Proof that the runs of a seed differ in their methods alone.

use std::collections::BTreeMap;

use kdhost_ab::report::{Problem, RunState, SettingDifference};

use crate::ab::AbError;
use crate::ab::collect::{Collected, CollectedRun};
use crate::ab::plan::Plan;
use crate::engine::fingerprint::{Facts, Fingerprint};

/// Where runs of one seed differ, all of it allowed: in their settings, in what was fed in, and in how
/// they were judged.
///
/// # Errors
/// With everything that is not allowed.
pub(super) fn fed_in(
    plan: &Plan,
    collected: &Collected,
) -> Result<Vec<SettingDifference>, AbError> {
    let (mut allowed, mut refused) = (Vec::new(), Vec::new());
    for (index, &seed) in plan.fixed.seeds.iter().enumerate() {
        let Some(control) = whole(&collected.runs[0][index]) else {
            continue;
        };
        // The control too: where it was continued under other facts.
        for (arm, runs) in collected.runs.iter().enumerate() {
            for facts in all(&runs[index]) {
                let (may_be, other) = plan.unequal(arm, seed, &control, &facts);
                allowed.extend(may_be);
                refused.extend(other);
            }
        }
    }
    allowed.dedup();
    refused.dedup();
    if !refused.is_empty() {
        return Err(AbError::Unequal {
            differences: refused,
        });
    }
    let mut differences = plan.differences.clone();
    differences.append(&mut allowed);
    Ok(differences)
}

/// The facts of a run that is done: of its start, and what only the end knows.
fn whole(run: &CollectedRun) -> Option<Facts> {
    all(run).into_iter().next()
}

/// The facts under which a run that is done was started or continued, each with those of the end.
fn all(run: &CollectedRun) -> Vec<Facts> {
    let Some(Fingerprint { starts, end, .. }) = &run.fingerprint else {
        return Vec::new();
    };
    let Some(end) = end else { return Vec::new() };
    let with_end = |start: &Facts| {
        let mut facts = end.clone();
        facts.extend(start.clone());
        facts
    };
    starts.iter().map(with_end).collect()
}

/// The facts of every run that has some, by its directory.
pub(super) fn fingerprints(collected: &Collected) -> BTreeMap<String, BTreeMap<String, String>> {
    let runs = collected.runs.iter().flatten();
    runs.filter_map(|run| Some((run.folder.clone(), whole(run)?)))
        .collect()
}

/// Runs without a result, and whatever changed under a run.
pub(super) fn problems(plan: &Plan, collected: &Collected) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (arm, runs) in plan.arms.iter().zip(&collected.runs) {
        for (run, &seed) in runs.iter().zip(&plan.fixed.seeds) {
            let problem = |message: String| Problem {
                arm: Some(arm.spec.name.clone()),
                seed: Some(seed),
                message,
            };
            if run.state != RunState::Done {
                let reason = run.reason.as_deref().unwrap_or("no result");
                problems.push(problem(format!("no result: {reason}")));
                continue;
            }
            if run.evaluation.is_none() {
                let message = "its predictions are gone: it takes no part in resampling the images";
                problems.push(problem(message.into()));
            }
            problems.extend(changed(run).into_iter().map(problem));
        }
    }
    problems
}

/// What was read at the end of a run and is not what it began with.
fn changed(run: &CollectedRun) -> Vec<String> {
    let Some(Fingerprint { starts, end, .. }) = &run.fingerprint else {
        return vec!["it has no fingerprint: nothing proves what it was fed".into()];
    };
    let Some(end) = end else {
        return vec!["its fingerprint has no end: nothing proves how it was judged".into()];
    };
    let mut changed = Vec::new();
    for (key, value) in end {
        let before = starts.iter().filter_map(|facts| facts.get(key));
        if before.into_iter().any(|before| before != value) {
            changed.push(format!("`{key}` changed while it ran: files were replaced"));
        }
    }
    changed
}
