//! What the arms of a comparison must have in common, and where they do not.

use kdhost_ab::report::SettingDifference;

use super::AbError;
use crate::config::{Config, KeyDifference, differences_of, flat};
use crate::engine::fingerprint::Facts;

/// Settings that belong to an arm, or change no result.
const OWN: [&str; 5] = ["distill", "stage", "output_dir", "cache_dir", "seed"];
/// Settings that a stage has from its method beyond those: who teaches it.
const OWN_OF_STAGE: [&str; 2] = ["teacher", "teachers"];
/// Facts that belong to an arm.
const OWN_FACTS: [&str; 1] = ["plugin"];
/// Facts that an arm may lack: plain training has no teacher.
const OF_SOME: [&str; 1] = ["teacher"];

/// Whether `key` is `table` or below it.
pub(super) fn is_in(key: &str, table: &str) -> bool {
    key.strip_prefix(table)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn is_in_any(key: &str, tables: &[&str]) -> bool {
    tables.iter().any(|table| is_in(key, table))
}

/// Every setting that arms share, by dotted key.
#[must_use]
pub fn shared(control: &Config) -> std::collections::BTreeMap<String, String> {
    let mut settings = flat(control);
    settings.retain(|key, _| !is_in_any(key, &OWN));
    settings
}

/// Where the settings of an arm differ from the control's.
#[must_use]
pub fn of_settings(arm: &str, control: &Config, config: &Config) -> Vec<SettingDifference> {
    let (control, own) = (shared(control), shared(config));
    between(arm, None, &control, &own, |_| false)
}

/// Where the settings of an arm's last stage differ from the control's.
#[must_use]
pub fn of_last_stage(arm: &str, control: &Config, stage: &Config) -> Vec<SettingDifference> {
    let mut differences = of_settings(arm, control, stage);
    differences.retain(|difference| !is_in_any(&difference.key, &OWN_OF_STAGE));
    differences
}

/// Where what was fed into an arm's run of one seed differs from what was fed into the control's.
#[must_use]
pub fn of_facts(arm: &str, seed: u64, control: &Facts, own: &Facts) -> Vec<SettingDifference> {
    let mut differences = between(arm, Some(seed), control, own, |key| {
        is_in_any(key, &OF_SOME)
    });
    differences.retain(|difference| !is_in_any(&difference.key, &OWN_FACTS));
    differences
}

fn between(
    arm: &str,
    seed: Option<u64>,
    control: &Facts,
    own: &Facts,
    may_lack: impl Fn(&str) -> bool,
) -> Vec<SettingDifference> {
    let said = |value: Option<String>| value.unwrap_or_else(|| "(none)".to_owned());
    let found = differences_of(control, own).into_iter();
    let counts = |found: &KeyDifference| {
        let is_lacking = found.a.is_none() || found.b.is_none();
        !(is_lacking && may_lack(&found.key))
    };
    found
        .filter(counts)
        .map(|KeyDifference { key, a, b }| SettingDifference {
            key,
            arm: arm.to_owned(),
            seed,
            control_value: said(a),
            arm_value: said(b),
        })
        .collect()
}

/// Splits differences into those that may be (`allowed` names a key, or a table that it is in) and the
/// rest.
#[must_use]
pub fn split(
    differences: Vec<SettingDifference>,
    allowed: &[String],
) -> (Vec<SettingDifference>, Vec<SettingDifference>) {
    let may_be = |d: &SettingDifference| allowed.iter().any(|allowed| is_in(&d.key, allowed));
    differences.into_iter().partition(may_be)
}

/// The differences, all of which must be allowed.
///
/// # Errors
/// With those that are not.
pub fn all_allowed(
    differences: Vec<SettingDifference>,
    allowed: &[String],
) -> Result<Vec<SettingDifference>, AbError> {
    let (allowed, refused) = split(differences, allowed);
    match refused.is_empty() {
        true => Ok(allowed),
        false => Err(AbError::Unequal {
            differences: refused,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pairs: &[(&str, &str)]) -> Facts {
        let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        pairs.collect()
    }

    #[test]
    fn a_learning_rate_is_found_and_a_method_is_an_arms_own() {
        let control = Config::base();
        let mut arm = control.clone();
        arm.distill.single.plugin = "libkd_x.so".into();
        arm.distill.single.weight = 2.0;
        arm.seed += 1;
        assert_eq!(of_settings("x", &control, &arm), []);
        arm.train.lr *= 2.0;
        arm.data.batch_size += 1;
        let found = of_settings("x", &control, &arm);
        let keys: Vec<&str> = found.iter().map(|d| d.key.as_str()).collect();
        assert_eq!(keys, ["data.batch_size", "train.lr"]);
        let (allowed, rest) = split(found, &["train".to_owned()]);
        assert_eq!((allowed[0].key.as_str(), rest.len()), ("train.lr", 1));
        assert_eq!(rest[0].control_value, control.data.batch_size.to_string());
    }

    #[test]
    fn who_teaches_a_stage_is_its_methods_own() {
        let control = Config::base();
        let mut stage = control.clone();
        stage.teacher.input_size = vec![64, 64];
        stage.data.transform.size = [64, 64];
        let found = of_last_stage("x", &control, &stage);
        let keys: Vec<&str> = found.iter().map(|d| d.key.as_str()).collect();
        assert_eq!(keys, ["data.transform.size"]);
    }

    #[test]
    fn facts_of_one_seed_are_compared_where_both_have_them() {
        let control = facts(&[("order", "1"), ("threads", "2"), ("student_init", "a")]);
        let arm = facts(&[
            ("order", "1"),
            ("threads", "1"),
            ("teacher.big", "t"),
            ("plugin.x", "p"),
        ]);
        let found = of_facts("x", 3, &control, &arm);
        let keys: Vec<&str> = found.iter().map(|d| d.key.as_str()).collect();
        assert_eq!(keys, ["student_init", "threads"]);
        assert_eq!(found[0].arm_value, "(none)");
        assert_eq!(found[1].seed, Some(3));
        let one = facts(&[("teacher.big", "t")]);
        let other = facts(&[("teacher.big", "u")]);
        assert_eq!(of_facts("x", 3, &one, &other).len(), 1);
    }

    #[test]
    fn a_name_that_begins_alike_is_another_key() {
        assert!(is_in("train.lr", "train") && is_in("train", "train"));
        assert!(!is_in("train_images", "train") && !is_in("train", "train.lr"));
    }
}
