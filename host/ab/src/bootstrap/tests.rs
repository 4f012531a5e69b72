use serde::Deserialize;

use super::*;
use crate::golden::{close, read};
use crate::report::Interval;
use crate::resampled::ImageHits;

const FILE: &str = "stats.json";

/// Both sides round sums of a few hundred terms.
const ROUNDING: f64 = 1e-12;

#[derive(Deserialize)]
struct DrawCase {
    num_images: usize,
    seed: u64,
    draw: usize,
    counts: Vec<u32>,
}

#[test]
fn draws_are_the_same_everywhere() {
    for case in read::<Vec<DrawCase>>(FILE, "resamples") {
        let resamples = Resamples::new(case.num_images, 2000, case.seed);
        assert_eq!(resamples.counts(case.draw), case.counts);
    }
}

#[test]
fn every_draw_has_as_many_images_as_there_are() {
    for num_images in [0, 1, 2, 300] {
        let resamples = Resamples::new(num_images, 50, 7);
        for draw in 0..50 {
            let counts = resamples.counts(draw);
            assert_eq!(counts.len(), num_images);
            assert_eq!(counts.iter().sum::<u32>() as usize, num_images);
        }
    }
}

#[test]
fn counts_are_spread_as_a_multinomial() {
    let (images, draws) = (50, 4000);
    let resamples = Resamples::new(images, draws, 3);
    let mut sums = vec![0u32; images];
    let mut zeros = 0;
    for draw in 0..draws {
        let counts = resamples.counts(draw);
        zeros += counts.iter().filter(|&&n| n == 0).count();
        sums.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
    }
    // Each image's total is binomial with mean 4000 and sd 63: five of them.
    assert!(sums.iter().all(|&n| n.abs_diff(4000) < 315), "{sums:?}");
    // (1 − 1/50)^50 of the images are left out; five standard errors, generously as if independent.
    let share = zeros as f64 / (images * draws) as f64;
    assert!((share - 0.98f64.powi(50)).abs() < 0.006, "{share}");
}

#[derive(Deserialize)]
struct IntervalCase {
    values: Vec<f64>,
    level: f64,
    low: f64,
    high: f64,
    se: f64,
    share_above: f64,
}

#[test]
fn percentile_intervals_are_numpys() {
    for case in read::<Vec<IntervalCase>>(FILE, "intervals") {
        let ours = percentile_interval(&case.values, case.level).unwrap();
        assert!(close(ours.low, case.low, ROUNDING), "{ours:?}");
        assert!(close(ours.high, case.high, ROUNDING), "{ours:?}");
        let described = describe(&case.values).unwrap();
        assert!(close(described.se, case.se, ROUNDING), "{described:?}");
        assert_eq!(described.share_above, case.share_above);
        if case.level == INTERVAL_LEVEL {
            assert_eq!(described.interval, ours);
        }
    }
}

fn hits(every: usize) -> Resampled {
    let right = (0..60).map(|image| image % every != 0).collect();
    Resampled::Classification(ImageHits::new(right))
}

#[test]
fn identical_runs_differ_by_nothing() {
    let resamples = Resamples::new(60, 200, 1);
    let metric = resamples.metric(&hits(3));
    let pair = MetricPair {
        arm: &metric,
        control: &metric,
    };
    let (bootstrap, left_out) = summarise(&[pair, pair]);
    let zero = Interval {
        low: 0.0,
        high: 0.0,
    };
    let expected = Bootstrap {
        interval: zero,
        se: 0.0,
        share_above: 0.0,
    };
    assert_eq!((bootstrap, left_out), (Some(expected), 0));
}

#[test]
fn both_runs_are_evaluated_on_the_same_images() {
    let resamples = Resamples::new(60, 500, 1);
    let [arm, control, third] = [hits(5), hits(3), hits(4)].map(|run| resamples.metric(&run));
    let pair = |arm, control| MetricPair { arm, control };
    let one = summarise(&[pair(&arm, &control)]).0.unwrap();
    // Of an arm and its mirror image: the same interval mirrored.
    let mirrored = summarise(&[pair(&control, &arm)]).0.unwrap();
    assert_eq!(one.interval.low, -mirrored.interval.high);
    assert_eq!(one.se, mirrored.se);
    // 20 wrong against 12 wrong of 60, wrong together on the 4 multiples of 15: by the central limit
    // theorem se² = (24 − 64/60) / 60², to the noise of 500 draws.
    let se = 100.0 * ((24.0 - 64.0f64 / 60.0) / 3600.0).sqrt();
    assert!(close(one.se, se, 0.15), "{} {se}", one.se);
    // The mean over pairs is taken on each draw.
    let two = summarise(&[pair(&arm, &control), pair(&arm, &third)])
        .0
        .unwrap();
    let mean = |draw: usize| {
        arm[draw].unwrap() - f64::midpoint(control[draw].unwrap(), third[draw].unwrap())
    };
    let means: Vec<f64> = (0..500).map(mean).collect();
    let expected = describe(&means).unwrap();
    assert!(close(two.se, expected.se, ROUNDING));
    assert!(close(two.interval.high, expected.interval.high, ROUNDING));
}

#[test]
fn draws_without_a_number_are_left_out_and_counted() {
    let arm = [Some(3.0), None, Some(1.0), Some(2.0)];
    let control = [Some(1.0), Some(1.0), None, Some(1.0)];
    let pair = MetricPair {
        arm: &arm,
        control: &control,
    };
    let (bootstrap, left_out) = summarise(&[pair]);
    assert_eq!(left_out, 2);
    assert_eq!(bootstrap, describe(&[2.0, 1.0]));
    assert_eq!(summarise(&[]), (None, 0));
    assert_eq!(describe(&[1.0]), None);
}
