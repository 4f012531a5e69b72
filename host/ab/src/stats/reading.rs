//! A verdict as a sentence, with its numbers.

use super::{POWER, PairedT, Rule, paired_t, pairs_needed, resolvable_in_sd, verdict};
use crate::report::{Interval, Verdict};

/// More seeds than this are not worth naming.
const MOST_SEEDS: usize = 1000;

/// The [`verdict`] on `differences` and its reasons, in one sentence without a full stop.
///
/// Intervals are those that the verdict goes by: at the level 1 − α where a difference is shown (Holm's p
/// value is never below the plain one, so that this one leaves out 0), otherwise at 1 − α/m.
///
/// # Panics
/// As [`verdict`].
#[must_use]
pub fn reading(differences: &[f64], p_holm: Option<f64>, rule: &Rule) -> String {
    let verdict = verdict(differences, p_holm, rule);
    let (test, p_holm) = match (differences, paired_t(differences), p_holm) {
        (_, Some(test), Some(p_holm)) => (test, p_holm),
        ([only], ..) => {
            let only = signed(*only);
            return format!("{only} points from a single pair: {TOO_FEW}");
        }
        _ => return format!("no pair of results: {TOO_FEW}"),
    };
    let threshold = points(rule.threshold);
    let said = match (verdict, rule.threshold == 0.0) {
        (Verdict::Better, true) => "better".to_owned(),
        (Verdict::Better, false) => format!("better, at or above the threshold of {threshold}"),
        (Verdict::Worse, true) => "worse".to_owned(),
        (Verdict::Worse, false) => format!("worse, by the threshold of {threshold} or more"),
        (Verdict::NoDifferenceShown, _) if test.is_of_identical() => {
            return format!("all {} pairs are identical: no difference", test.n);
        }
        (Verdict::NoDifferenceShown, _) => {
            let smaller = match rule.found(&test, p_holm) {
                true => "; a smaller difference is there",
                false => "",
            };
            format!("no difference shown, {threshold} and more is excluded either way{smaller}")
        }
        (Verdict::Underpowered, _) => underpowered(&test, p_holm, rule),
    };
    let level = match verdict {
        Verdict::Better | Verdict::Worse => 1.0 - rule.alpha,
        Verdict::NoDifferenceShown | Verdict::Underpowered => rule.level_together(),
    };
    let numbers = numbers(&test, test.interval(level), level, p_holm, rule);
    format!("{numbers}: {said}")
}

const TOO_FEW: &str = "underpowered, a test needs two seeds with both results";

/// Why nothing follows from the pairs, and what would help.
fn underpowered(test: &PairedT, p_holm: f64, rule: &Rule) -> String {
    let threshold = points(rule.threshold);
    let why = match (rule.found(test, p_holm), rule.threshold == 0.0) {
        (true, _) => {
            format!(
                "a difference is shown, but not whether it reaches the threshold of {threshold}"
            )
        }
        (false, true) => "no difference is shown, and none excluded".to_owned(),
        (false, false) => format!("differences of {threshold} are neither shown nor excluded"),
    };
    // A spread of 0 gives a verdict by itself.
    let alpha = rule.alpha_each();
    let in_sd = resolvable_in_sd(test.n, alpha, POWER).expect("there are two pairs");
    let now = format!(
        "{} pairs of this spread (sd {}) find {} with power {POWER}",
        test.n,
        points(test.sd),
        points(in_sd * test.sd),
    );
    let wish = if rule.threshold == 0.0 {
        "no number of seeds resolves a threshold of 0".to_owned()
    } else if in_sd * test.sd <= rule.threshold {
        "the difference is too near the threshold for them".to_owned()
    } else {
        match pairs_needed(rule.threshold / test.sd, alpha, POWER, MOST_SEEDS) {
            Some(n) => format!("{threshold} would need {n} seeds"),
            None => format!("{threshold} would need more than {MOST_SEEDS} seeds"),
        }
    };
    format!("underpowered, {why}; {now}, {wish}")
}

/// `+1.42 points [+0.61, +2.23] at 95 %, p = 0.004 after Holm for 3 comparisons`.
fn numbers(test: &PairedT, interval: Interval, level: f64, p_holm: f64, rule: &Rule) -> String {
    let correction = match rule.comparisons {
        1 => String::new(),
        m => format!(" after Holm for {m} comparisons"),
    };
    format!(
        "{} points [{}, {}] at {} %, {}{correction}",
        signed(test.mean),
        signed(interval.low),
        signed(interval.high),
        percent(level),
        p_value(p_holm, rule.alpha),
    )
}

/// With a sign, two decimals.
fn signed(points: f64) -> String {
    let text = format!("{points:+.2}");
    match text.as_str() {
        "-0.00" => "+0.00".to_owned(),
        _ => text,
    }
}

/// Two decimals, or as many as a smaller number needs to be told from 0.
fn points(value: f64) -> String {
    if value == 0.0 || value >= 0.01 {
        return format!("{value:.2}");
    }
    let decimals = (-value.log10()).ceil() as usize + 1;
    format!("{value:.decimals$}")
}

/// `95`, `98.3`.
fn percent(level: f64) -> String {
    let text = format!("{:.1}", 100.0 * level);
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// Three decimals, or as many as show on which side of `alpha` it is.
fn p_value(p: f64, alpha: f64) -> String {
    if p < 0.001 {
        return "p < 0.001".to_owned();
    }
    let shown = |decimals: usize| format!("{p:.decimals$}");
    let tells = |text: &String| p == alpha || text.parse() != Ok(alpha);
    let text = (3..=9).map(shown).find(tells).unwrap_or_else(|| shown(9));
    format!("p = {text}")
}
