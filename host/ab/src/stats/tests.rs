use serde::Deserialize;

use super::*;
use crate::golden::{close, read};
use crate::report::{Interval, Verdict};
use kdhost_rng::KeyedRng;

const FILE: &str = "stats.json";

/// Of means and standard deviations: both sides round sums of at most 200 terms.
const ROUNDING: f64 = 1e-12;

/// Of probabilities and critical values: statrs' incomplete beta function against Cephes' and
/// Boost's, far finer than any digit that is shown.
const SPECIAL_FUNCTIONS: f64 = 1e-9;

#[derive(Deserialize)]
struct PairedCase {
    differences: Vec<f64>,
    mean: f64,
    sd: f64,
    t: f64,
    p: f64,
    intervals: Vec<(f64, f64, f64)>,
}

#[test]
fn paired_t_is_scipys() {
    for case in read::<Vec<PairedCase>>(FILE, "paired_t") {
        let ours = paired_t(&case.differences).unwrap();
        assert_eq!(ours.n, case.differences.len());
        assert!(close(ours.mean, case.mean, ROUNDING), "{ours:?}");
        assert!(close(ours.sd, case.sd, ROUNDING), "{ours:?}");
        assert!(close(ours.t, case.t, ROUNDING), "{ours:?} {}", case.t);
        assert!(
            close(ours.p, case.p, SPECIAL_FUNCTIONS),
            "{ours:?} {}",
            case.p
        );
        for (level, low, high) in case.intervals {
            let ours = ours.interval(level);
            let near = |a: f64, b: f64| (a - b).abs() <= SPECIAL_FUNCTIONS * (high - low);
            assert!(
                near(ours.low, low) && near(ours.high, high),
                "{ours:?} at {level}, not {low} to {high}"
            );
        }
    }
}

#[test]
fn pairs_without_spread_are_told_apart_from_none() {
    // 0.1 three times has a naive mean of 0.10000000000000002.
    let test = paired_t(&[0.1; 3]).unwrap();
    let both = |x| Interval { low: x, high: x };
    assert_eq!((test.mean, test.sd, test.p), (0.1, 0.0, 0.0));
    assert_eq!(test.t, f64::INFINITY);
    assert_eq!(test.interval(0.95), both(0.1));
    assert_eq!(paired_t(&[-0.1; 3]).unwrap().t, f64::NEG_INFINITY);
    let none = paired_t(&[0.0, -0.0]).unwrap();
    assert_eq!((none.t, none.p), (0.0, 1.0));
    assert_eq!(none.interval(0.95), both(0.0));
    // Balanced, not identical.
    assert_eq!(paired_t(&[1.0, -1.0]).unwrap().p, 1.0);
    assert_eq!(paired_t(&[1.0]), None);
    assert_eq!(mean_sd(&[]), None);
    assert_eq!(mean_sd(&[2.5]).unwrap().sd, None);
}

#[derive(Deserialize)]
struct HolmCase {
    p: Vec<f64>,
    adjusted: Vec<f64>,
}

#[test]
fn holm_is_statsmodels() {
    for case in read::<Vec<HolmCase>>(FILE, "holm") {
        let p: Vec<_> = case.p.iter().copied().map(Some).collect();
        for (ours, theirs) in holm(&p).into_iter().zip(&case.adjusted) {
            assert!(close(ours.unwrap(), *theirs, ROUNDING), "{:?}", case.p);
        }
    }
}

#[test]
fn holm_never_lowers_a_p_value_and_counts_missing_tests() {
    let mut rng = KeyedRng::new("holm", &[]);
    for _ in 0..200 {
        let p: Vec<_> = (0..1 + rng.below(9))
            .map(|_| (rng.below(5) > 0).then(|| rng.uniform()))
            .collect();
        let adjusted = holm(&p);
        for (a, a_adjusted) in p.iter().zip(&adjusted) {
            assert_eq!(a.is_some(), a_adjusted.is_some());
            assert!(a_adjusted >= a && a_adjusted.is_none_or(|p| p <= 1.0));
            for (b, b_adjusted) in p.iter().zip(&adjusted) {
                assert!(a > b || a_adjusted <= b_adjusted, "{p:?} {adjusted:?}");
            }
        }
    }
    assert_eq!(holm(&[Some(0.01), None]), [Some(0.02), None]);
    assert_eq!(holm(&[]), []);
}

#[test]
fn powers_are_those_of_the_noncentral_t() {
    for (effect, n, alpha, theirs) in read::<Vec<(f64, usize, f64, f64)>>(FILE, "powers") {
        let ours = power(effect, n, alpha);
        assert!(
            close(ours, theirs, SPECIAL_FUNCTIONS),
            "{effect} {n} {alpha}: {ours} {theirs}"
        );
    }
}

#[test]
fn resolvable_differences_have_the_power() {
    for (n, alpha, theirs) in read::<Vec<(usize, f64, f64)>>(FILE, "resolvable") {
        let ours = resolvable_in_sd(n, alpha, POWER).unwrap();
        assert!(
            close(ours, theirs, SPECIAL_FUNCTIONS),
            "{n} {alpha}: {ours} {theirs}"
        );
    }
    assert_eq!(resolvable_in_sd(1, 0.05, POWER), None);
}

#[test]
fn numbers_of_pairs_are_the_smallest_that_have_the_power() {
    for (effect, alpha, theirs) in read::<Vec<(f64, f64, usize)>>(FILE, "pairs") {
        assert_eq!(pairs_needed(effect, alpha, POWER, theirs), Some(theirs));
        assert_eq!(pairs_needed(effect, alpha, POWER, 2000), Some(theirs));
        assert_eq!(pairs_needed(effect, alpha, POWER, theirs - 1), None);
    }
}

#[derive(Deserialize)]
struct QuantileCase {
    values: Vec<f64>,
    quantiles: Vec<(f64, f64)>,
}

#[test]
fn quantiles_are_numpys() {
    for case in read::<Vec<QuantileCase>>(FILE, "quantiles") {
        for (q, theirs) in case.quantiles {
            let ours = quantile(&case.values, q);
            assert!((ours - theirs).abs() <= ROUNDING, "{q}: {ours} {theirs}");
        }
    }
    assert_eq!(percentile_interval(&[], 0.95), None);
}

fn rule(threshold: f64, comparisons: usize) -> Rule {
    Rule {
        alpha: 0.05,
        threshold,
        comparisons,
    }
}

/// The verdict on one comparison by itself.
fn alone(differences: &[f64], threshold: f64) -> Verdict {
    let p = paired_t(differences).map(|t| t.p);
    verdict(differences, p, &rule(threshold, 1))
}

#[test]
fn verdicts_follow_the_rules() {
    use Verdict::*;
    let cases: [(&[f64], f64, Verdict, &str); 15] = [
        (
            &[1.3, 1.5, 1.4],
            0.3,
            Better,
            "+1.40 points [+1.15, +1.65] at 95 %, p = 0.002: better, at or above the threshold of 0.30",
        ),
        (
            &[-1.3, -1.5, -1.4],
            0.3,
            Worse,
            "-1.40 points [-1.65, -1.15] at 95 %, p = 0.002: worse, by the threshold of 0.30 or more",
        ),
        (
            &[1.3, 1.5, 1.4],
            0.0,
            Better,
            "+1.40 points [+1.15, +1.65] at 95 %, p = 0.002: better",
        ),
        (
            &[0.01, -0.02, 0.03],
            0.3,
            NoDifferenceShown,
            "+0.01 points [-0.06, +0.07] at 95 %, p = 0.691: no difference shown, 0.30 and more is \
             excluded either way",
        ),
        (
            &[0.1, 0.11, 0.12],
            0.3,
            NoDifferenceShown,
            "+0.11 points [+0.09, +0.13] at 95 %, p = 0.003: no difference shown, 0.30 and more is \
             excluded either way; a smaller difference is there",
        ),
        (
            &[0.0; 5],
            0.0,
            NoDifferenceShown,
            "all 5 pairs are identical: no difference",
        ),
        (
            &[0.2; 3],
            0.3,
            NoDifferenceShown,
            "+0.20 points [+0.20, +0.20] at 95 %, p < 0.001: no difference shown, 0.30 and more is \
             excluded either way; a smaller difference is there",
        ),
        (
            &[0.3; 3],
            0.3,
            Better,
            "+0.30 points [+0.30, +0.30] at 95 %, p < 0.001: better, at or above the threshold of 0.30",
        ),
        (
            &[1.0, -0.2, 0.7],
            0.3,
            Underpowered,
            "+0.50 points [-1.05, +2.05] at 95 %, p = 0.300: underpowered, differences of 0.30 are \
             neither shown nor excluded; 3 pairs of this spread (sd 0.62) find 2.04 with power 0.8, \
             0.30 would need 36 seeds",
        ),
        (
            &[1.0, -0.2, 0.7],
            0.01,
            Underpowered,
            "+0.50 points [-1.05, +2.05] at 95 %, p = 0.300: underpowered, differences of 0.01 are \
             neither shown nor excluded; 3 pairs of this spread (sd 0.62) find 2.04 with power 0.8, \
             0.01 would need more than 1000 seeds",
        ),
        (
            &[1.0, -0.2, 0.7],
            0.0,
            Underpowered,
            "+0.50 points [-1.05, +2.05] at 95 %, p = 0.300: underpowered, no difference is shown, and \
             none excluded; 3 pairs of this spread (sd 0.62) find 2.04 with power 0.8, no number of \
             seeds resolves a threshold of 0",
        ),
        (
            &[0.2, 0.3, 0.25],
            0.3,
            Underpowered,
            "+0.25 points [+0.13, +0.37] at 95 %, p = 0.013: underpowered, a difference is shown, but \
             not whether it reaches the threshold of 0.30; 3 pairs of this spread (sd 0.05) find 0.16 \
             with power 0.8, the difference is too near the threshold for them",
        ),
        (
            &[],
            0.3,
            Underpowered,
            "no pair of results: underpowered, a test needs two seeds with both results",
        ),
        (
            &[0.8],
            0.3,
            Underpowered,
            "+0.80 points from a single pair: underpowered, a test needs two seeds with both results",
        ),
        (
            &[0.0],
            0.3,
            Underpowered,
            "+0.00 points from a single pair: underpowered, a test needs two seeds with both results",
        ),
    ];
    for (differences, threshold, expected, text) in cases {
        assert_eq!(alone(differences, threshold), expected, "{differences:?}");
        let p = paired_t(differences).map(|t| t.p);
        assert_eq!(reading(differences, p, &rule(threshold, 1)), text);
    }
}

#[test]
fn bounds_belong_to_the_verdicts_that_the_rules_say() {
    // The threshold itself is better; an interval that touches it excludes nothing.
    let differences = [0.5, 1.0, 0.75];
    let test = paired_t(&differences).unwrap();
    assert_eq!(alone(&differences, 0.75), Verdict::Better);
    let high = test.interval(0.95).high;
    assert_eq!(alone(&differences, high), Verdict::Underpowered);
    assert_eq!(
        alone(&differences, high * (1.0 + 1e-9)),
        Verdict::NoDifferenceShown
    );
    // p = α counts, and is shown as it is; what rounds to α without being it gets more digits.
    let rule = rule(0.3, 2);
    let at = |p| {
        let verdict = verdict(&differences, Some(p), &rule);
        (verdict, reading(&differences, Some(p), &rule))
    };
    let (verdict, text) = at(0.05);
    assert_eq!(verdict, Verdict::Better);
    assert!(
        text.contains("p = 0.050 after Holm for 2 comparisons"),
        "{text}"
    );
    let (verdict, text) = at(0.050_01);
    assert_eq!(verdict, Verdict::Underpowered);
    assert!(text.contains("p = 0.05001 after"), "{text}");
}

#[test]
fn verdicts_of_several_comparisons_are_corrected_together() {
    // By itself p = 0.027; the smallest of three by Holm is three times that.
    let differences = vec![0.9, 0.5, 0.6, 1.4, 0.2];
    let one = assess(std::slice::from_ref(&differences), 0.05, 0.3);
    let three = assess(&[differences, vec![0.1, -0.4], vec![]], 0.05, 0.3);
    assert_eq!(one[0].verdict, Verdict::Better);
    assert_eq!(three[0].verdict, Verdict::Underpowered);
    let (p, p_holm) = (three[0].p.unwrap(), three[0].p_holm.unwrap());
    assert_eq!(one[0].p, Some(p));
    assert_eq!(p_holm, 3.0 * p);
    let width = |interval: Option<Interval>| interval.map(|i| i.high - i.low).unwrap();
    assert_eq!(one[0].interval, three[0].interval);
    assert!(width(three[0].interval_together) > width(three[0].interval));
    assert!(
        three[0].reading.contains("at 98.3 %"),
        "{}",
        three[0].reading
    );
    assert!(three[0].resolvable > one[0].resolvable);
    let none = &three[2];
    assert_eq!((none.difference, none.sd, none.p), (None, None, None));
    assert_eq!((none.p_holm, none.resolvable), (None, None));
}

#[test]
fn a_verdict_is_the_mirror_image_of_the_mirrored_one() {
    let mut rng = KeyedRng::new("mirror", &[]);
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..2000 {
        let scale = [0.02, 0.1, 0.5][rng.below(3)];
        let shift = [0.0, 0.2, 0.6][rng.below(3)];
        let n = rng.below(7);
        let differences: Vec<f64> = (0..n)
            .map(|_| shift + scale * (rng.uniform() + rng.uniform() - 1.0))
            .collect();
        let mirrored: Vec<f64> = differences.iter().map(|d| -d).collect();
        let p = paired_t(&differences).map(|t| t.p);
        assert_eq!(p, paired_t(&mirrored).map(|t| t.p));
        let p = holm(&[p, None])[0];
        let [ours, theirs] = [&differences, &mirrored].map(|d| verdict(d, p, &rule(0.3, 2)));
        let expected = match ours {
            Verdict::Better => Verdict::Worse,
            Verdict::Worse => Verdict::Better,
            same => same,
        };
        assert_eq!(theirs, expected, "{differences:?}");
        *seen.entry(format!("{ours:?}")).or_insert(0) += 1;
    }
    assert!(seen.len() >= 3, "every kind is met: {seen:?}");
}
