//! Each arm against the control, pair by pair.

use std::collections::BTreeMap;

use kdhost_ab::bootstrap::{MetricPair, Resamples, summarise};
use kdhost_ab::report::{Bootstrap, Comparison, Difference, LeftOut, Pair, RunState};
use kdhost_ab::stats::{self, mean_sd, paired_t};

use super::{CollectedRun, metrics_of};
use crate::ab::collect::Collected;
use crate::ab::plan::Plan;
use crate::eval::Metrics;

/// Seed of the draws of images: the same for every comparison, so that equal runs give equal reports.
const DRAWS_SEED: u64 = 0;

/// The main metric of a run on every draw; none without predictions.
type OnDraws = Option<Vec<Option<f64>>>;

/// Both runs of one seed, each with a result.
struct Both<'a> {
    seed: u64,
    control: &'a CollectedRun,
    arm: &'a CollectedRun,
    control_draws: &'a OnDraws,
    arm_draws: &'a OnDraws,
}

/// Every arm but the control.
pub(super) fn all(plan: &Plan, collected: &Collected, names: &[&str]) -> Vec<Comparison> {
    let draws = on_draws(plan, collected);
    let arms = 1..plan.arms.len();
    let pairs: Vec<Vec<Both<'_>>> = arms.map(|arm| both(plan, collected, &draws, arm)).collect();
    let differences = |pairs: &Vec<Both<'_>>| -> Vec<f64> {
        pairs
            .iter()
            .filter_map(|both| both.difference(names[0]))
            .collect()
    };
    let differences: Vec<Vec<f64>> = pairs.iter().map(differences).collect();
    let assessed = stats::assess(&differences, plan.fixed.alpha, plan.fixed.threshold);
    let each = assessed.into_iter().zip(&pairs).enumerate();
    each.map(|(index, (assessed, pairs))| Comparison {
        arm: plan.arms[index + 1].spec.name.clone(),
        control: plan.arms[0].spec.name.clone(),
        pairs: pairs
            .iter()
            .filter_map(|both| both.pair(names[0]))
            .collect(),
        left_out: left_out(plan, collected, index + 1),
        difference: assessed.difference,
        sd: assessed.sd,
        interval: assessed.interval,
        interval_together: assessed.interval_together,
        p: assessed.p,
        p_holm: assessed.p_holm,
        bootstrap: resampled(pairs),
        resolvable: assessed.resolvable,
        verdict: assessed.verdict,
        reading: assessed.reading,
        metrics: names
            .iter()
            .map(|name| described(name, pairs, |run| metrics_of(run).get(*name).copied()?))
            .collect(),
        by_class: by_class(pairs, collected.dataset.classes()),
    })
    .collect()
}

/// Every run on the same draws of the images, by arm and seed.
fn on_draws(plan: &Plan, collected: &Collected) -> Vec<Vec<OnDraws>> {
    let of_run = |run: &CollectedRun| {
        let resampled = &run.evaluation.as_ref()?.resampled;
        let replicates = plan.fixed.bootstrap;
        let draws = Resamples::new(resampled.num_images(), replicates, DRAWS_SEED);
        (replicates > 0).then(|| draws.metric(resampled))
    };
    let of_arm = |runs: &Vec<CollectedRun>| runs.iter().map(of_run).collect();
    collected.runs.iter().map(of_arm).collect()
}

/// The pairs of an arm that both have a result.
fn both<'a>(
    plan: &Plan,
    collected: &'a Collected,
    draws: &'a [Vec<OnDraws>],
    arm: usize,
) -> Vec<Both<'a>> {
    let mut pairs = Vec::new();
    for (index, &seed) in plan.fixed.seeds.iter().enumerate() {
        let (control, own) = (&collected.runs[0][index], &collected.runs[arm][index]);
        if control.state == RunState::Done && own.state == RunState::Done {
            pairs.push(Both {
                seed,
                control,
                arm: own,
                control_draws: &draws[0][index],
                arm_draws: &draws[arm][index],
            });
        }
    }
    pairs
}

fn left_out(plan: &Plan, collected: &Collected, arm: usize) -> Vec<LeftOut> {
    let mut left_out = Vec::new();
    for (index, &seed) in plan.fixed.seeds.iter().enumerate() {
        let runs = [0, arm].map(|arm| (&plan.arms[arm].spec.name, &collected.runs[arm][index]));
        let missing = runs.iter().filter(|(_, run)| run.state != RunState::Done);
        let reasons: Vec<String> = missing
            .map(|(name, run)| {
                let reason = run.reason.as_deref().unwrap_or("no result");
                format!("`{name}`: {}", reason.lines().next().unwrap_or_default())
            })
            .collect();
        if !reasons.is_empty() {
            left_out.push(LeftOut {
                seed,
                reason: reasons.join("; "),
            });
        }
    }
    left_out
}

impl Both<'_> {
    fn values(&self, metric: &str) -> Option<(f64, f64)> {
        let value = |run| metrics_of(run).get(metric).copied()?;
        Some((value(self.arm)?, value(self.control)?))
    }

    fn difference(&self, metric: &str) -> Option<f64> {
        self.values(metric).map(|(arm, control)| arm - control)
    }

    fn pair(&self, metric: &str) -> Option<Pair> {
        let (arm, control) = self.values(metric)?;
        Some(Pair {
            seed: self.seed,
            arm,
            control,
            difference: arm - control,
            bootstrap: resampled(std::slice::from_ref(self)),
        })
    }
}

/// Over the draws of the images; none where a run has no predictions.
fn resampled(pairs: &[Both<'_>]) -> Option<Bootstrap> {
    let metrics: Option<Vec<MetricPair<'_>>> = pairs
        .iter()
        .map(|both| {
            Some(MetricPair {
                arm: both.arm_draws.as_deref()?,
                control: both.control_draws.as_deref()?,
            })
        })
        .collect();
    summarise(&metrics?).0
}

/// The differences of what `value` gives of a run, described.
fn described(
    name: &str,
    pairs: &[Both<'_>],
    value: impl Fn(&CollectedRun) -> Option<f64>,
) -> Difference {
    let of_pair = |both: &Both<'_>| Some(value(both.arm)? - value(both.control)?);
    let differences: Vec<f64> = pairs.iter().filter_map(of_pair).collect();
    Difference {
        name: name.to_owned(),
        difference: mean_sd(&differences).map(|summary| summary.mean),
        interval: paired_t(&differences).map(|test| test.interval(stats::INTERVAL_LEVEL)),
    }
}

fn by_class(pairs: &[Both<'_>], classes: &[String]) -> Vec<Difference> {
    let of_run = |run: &CollectedRun| -> BTreeMap<String, f64> {
        let metrics: Option<&Metrics> = run.done.as_ref().map(|done| &done.row.metrics);
        let classes = metrics.into_iter().flat_map(Metrics::by_class);
        classes
            .filter_map(|(name, value)| Some((name.to_owned(), 100.0 * value?)))
            .collect()
    };
    let of_class = |class: &String| described(class, pairs, |run| of_run(run).get(class).copied());
    classes.iter().map(of_class).collect()
}
