//! What a comparison comes to, as one of four words and as a sentence.

use super::{POWER, PairedT, paired_t, pairs_needed, resolvable_in_sd};
use crate::report::{Interval, Verdict};

/// More seeds than this are not worth naming.
const MOST_SEEDS: usize = 1000;

/// What verdicts go by, fixed before the first run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Two-sided error of the first kind of all comparisons together.
    pub alpha: f64,
    /// The smallest difference that matters, points; 0 or more.
    pub threshold: f64,
    /// How many comparisons there are.
    pub comparisons: usize,
}

impl Rule {
    /// α/m: Bonferroni's level of each test.
    #[must_use]
    pub fn alpha_each(&self) -> f64 {
        self.alpha / self.comparisons as f64
    }

    /// 1 − α/m: the level of intervals that hold together.
    #[must_use]
    pub fn level_together(&self) -> f64 {
        1.0 - self.alpha_each()
    }
}

/// A verdict and its reasons.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The verdict.
    pub verdict: Verdict,
    /// The verdict in a sentence, with its numbers.
    pub text: String,
}

/// The verdict on the paired `differences` of one comparison, whose p value after Holm's correction is
/// `p_holm`; [the rules](super#rules-of-the-verdict).
///
/// # Panics
/// If a difference is NaN or infinite, `p_holm` is missing with two pairs or more, `rule` has no
/// comparison, an α that is not between 0 and 1 or a negative threshold.
#[must_use]
pub fn verdict(differences: &[f64], p_holm: Option<f64>, rule: &Rule) -> Reading {
    assert!(rule.comparisons > 0, "a comparison is one of them");
    assert!(rule.threshold >= 0.0, "threshold {}", rule.threshold);
    let Some(test) = paired_t(differences) else {
        return too_few(differences);
    };
    let p_holm = p_holm.expect("two pairs have a p value");
    let together = test.interval(rule.level_together());
    let identical = differences.iter().all(|&d| d == 0.0);
    let found = p_holm <= rule.alpha && test.mean != 0.0;
    let verdict = if found && test.mean.abs() >= rule.threshold {
        if test.mean > 0.0 {
            Verdict::Better
        } else {
            Verdict::Worse
        }
    } else if identical || (-rule.threshold < together.low && together.high < rule.threshold) {
        Verdict::NoDifferenceShown
    } else {
        Verdict::Underpowered
    };
    let threshold = points(rule.threshold);
    let text = match verdict {
        Verdict::Better | Verdict::Worse => {
            // Holm's p value is never below the plain one, so that this interval leaves out 0.
            let word = match (verdict, rule.threshold == 0.0) {
                (Verdict::Better, true) => "better".to_owned(),
                (Verdict::Better, false) => {
                    format!("better, at or above the threshold of {threshold}")
                }
                (_, true) => "worse".to_owned(),
                (_, false) => format!("worse, by the threshold of {threshold} or more"),
            };
            let level = 1.0 - rule.alpha;
            let numbers = numbers(&test, test.interval(level), level, p_holm, rule);
            format!("{numbers}: {word}")
        }
        Verdict::NoDifferenceShown if identical => {
            format!("all {} pairs are identical: no difference", test.n)
        }
        Verdict::NoDifferenceShown => {
            let numbers = numbers(&test, together, rule.level_together(), p_holm, rule);
            let also = if found {
                "; a smaller difference is there"
            } else {
                ""
            };
            format!(
                "{numbers}: no difference shown, {threshold} and more is excluded either way{also}"
            )
        }
        Verdict::Underpowered => {
            let numbers = numbers(&test, together, rule.level_together(), p_holm, rule);
            format!("{numbers}: {}", underpowered(&test, found, rule))
        }
    };
    Reading { verdict, text }
}

fn too_few(differences: &[f64]) -> Reading {
    let text = match differences {
        [] => {
            "no pair of results: underpowered, a test needs two seeds with both results".to_owned()
        }
        [only] => format!(
            "{} points from a single pair: underpowered, a test needs two seeds with both results",
            signed(*only)
        ),
        _ => unreachable!("two differences have a test"),
    };
    Reading {
        verdict: Verdict::Underpowered,
        text,
    }
}

/// Why nothing follows from the pairs, and what would help.
fn underpowered(test: &PairedT, found: bool, rule: &Rule) -> String {
    let threshold = points(rule.threshold);
    let why = match (found, rule.threshold == 0.0) {
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
