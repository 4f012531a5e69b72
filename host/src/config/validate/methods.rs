//! Rules of `[distill]`: one method or several, labels, schedules of weights.

use serde_json::Value as Json;

use super::super::{
    DistillConfig, MethodConfig, MethodEntry, Moment, WeightSchedule, WeightScheduleKind,
};
use super::Rules;
use crate::config::plugins::fits_label;

pub(super) fn rules(distill: &DistillConfig, default: &Json, rules: &mut Rules) {
    one_form(distill, default, rules);
    let single = MethodEntry {
        label: None,
        config: &distill.single,
    };
    schedules(single, rules);
    for (label, config) in &distill.methods {
        let entry = MethodEntry {
            label: Some(label),
            config,
        };
        schedules(entry, rules);
        if !is_label(label) {
            rules.refuse(
                entry.path(),
                format!("the label {label:?} is not made of letters, digits, `_` and `-`"),
            );
        }
        if config.plugin == MethodConfig::NO_PLUGIN {
            rules.refuse(
                [entry.path(), vec!["plugin".to_owned()]].concat(),
                "an entry needs a plugin: the name of a file, or a path".to_owned(),
            );
        }
    }
}

/// A single method's keys say nothing about entries, so beside entries each of them is a mistake.
fn one_form(distill: &DistillConfig, default: &Json, rules: &mut Rules) {
    let Some(label) = distill.methods.keys().next() else {
        return;
    };
    let single = serde_json::to_value(&distill.single).expect("a configuration is plain data");
    for (key, value) in single.as_object().into_iter().flatten() {
        if default.get(key) != Some(value) {
            rules.refuse(
                ["distill", key].map(str::to_owned).to_vec(),
                format!(
                    "is of a single method, and `distill.methods.{label}` is one of several; move \
                     it to `distill.methods.NAME.{key}`, or leave `distill.methods` out"
                ),
            );
        }
    }
}

pub(super) fn is_label(text: &str) -> bool {
    !text.is_empty() && text.chars().all(fits_label)
}

fn schedules(entry: MethodEntry<'_>, rules: &mut Rules) {
    for (term, schedule) in &entry.config.loss_schedules {
        let path = |key: &str| {
            let below = ["loss_schedules", term, key].map(str::to_owned);
            [entry.path(), below.to_vec()].concat()
        };
        for (key, moment) in [("start", schedule.start), ("end", schedule.end)] {
            if let Some(Moment::Fraction(share)) = moment
                && !(0.0..=1.0).contains(&share)
            {
                rules.refuse(path(key), format!("`fraction` is {share}, expected 0..=1"));
            }
        }
        if schedule.kind == WeightScheduleKind::Until && schedule.end.is_none() {
            rules.refuse(
                path("end"),
                "`kind = \"until\"` needs it, as in `end = { epochs = 3 }`".to_owned(),
            );
        }
        if ends_before_it_starts(schedule) {
            rules.refuse(path("end"), "lies before `start`".to_owned());
        }
    }
}

/// As far as it can be told without the length of an epoch.
fn ends_before_it_starts(schedule: &WeightSchedule) -> bool {
    match (schedule.start, schedule.end) {
        (Some(Moment::Fraction(start)), Some(Moment::Fraction(end))) => end < start,
        (Some(Moment::Iters(start)), Some(Moment::Iters(end)))
        | (Some(Moment::Epochs(start)), Some(Moment::Epochs(end)))
        | (Some(Moment::ItersBeforeEnd(end)), Some(Moment::ItersBeforeEnd(start))) => end < start,
        _ => false,
    }
}
