//! How often the statistics err where the truth is known to be no difference:
//! `cargo bench -p kdhost-ab --bench false_positives`, with a factor to simulate more (default 1).
//!
//! Every row is a share of simulated comparisons, with the share that theory states and the standard
//! error of the simulation. Draws are keyed: two runs print the same.

#![allow(
    clippy::print_stdout,
    reason = "a table on standard output is what it makes"
)]

use kdhost_ab::bootstrap::{MetricPair, Resamples, summarise};
use kdhost_ab::report::{Interval, Verdict};
use kdhost_ab::resampled::{
    ClassMatches, DetectionMatches, IOU_THRESHOLDS, ImageHits, MatchedDetection, Resampled,
};
use kdhost_ab::stats::{Rule, holm, paired_t, verdict};
use kdhost_rng::KeyedRng;
use rayon::prelude::*;

const ALPHA: f64 = 0.05;
const NUM_IMAGES: usize = 300;
const RESAMPLES: usize = 400;

fn main() {
    // `cargo bench` hands on `--bench`.
    let factor: usize = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(1);
    println!(
        "{:<96} {:>9} {:>9} {:>8}",
        "share of", "nominal", "found", "± se"
    );
    seeds(factor);
    images(factor);
}

fn row(what: &str, nominal: &str, events: usize, of: usize) {
    let share = events as f64 / of as f64;
    let se = (share * (1.0 - share) / of as f64).sqrt();
    println!(
        "{what:<96} {nominal:>9} {:>7.2} % {:>6.2} %",
        100.0 * share,
        100.0 * se
    );
}

/// Of independent simulations, in which `event` happens.
fn count(name: &str, simulations: usize, event: impl Fn(&mut KeyedRng) -> bool + Sync) -> usize {
    (0..simulations)
        .into_par_iter()
        .filter(|&i| event(&mut KeyedRng::new(name, &[i as u64])))
        .count()
}

/// Standard normal (Box–Muller).
fn normal(rng: &mut KeyedRng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.uniform()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.uniform()).cos()
}

/// What one run's quality has of its own.
type Noise = fn(&mut KeyedRng) -> f64;

const NOISES: [(&str, Noise); 3] = [
    ("normal", normal),
    // Student's t with 3 degrees of freedom: now and then a run far off.
    ("heavy-tailed", |rng| {
        let squares: f64 = (0..3).map(|_| normal(rng).powi(2)).sum();
        normal(rng) / (squares / 3.0).sqrt()
    }),
    // One run in ten diverges and ends far below.
    ("one run in ten 10 sd below", |rng| {
        normal(rng) - if rng.below(10) == 0 { 10.0 } else { 0.0 }
    }),
];

/// Differences from one control of `arms` that are no better or worse: what a seed does to all runs
/// cancels, and what it does to the control is in every difference.
fn differences(rng: &mut KeyedRng, arms: usize, seeds: usize, noise: Noise) -> Vec<Vec<f64>> {
    let control: Vec<f64> = (0..seeds).map(|_| noise(rng)).collect();
    let arm = |rng: &mut KeyedRng| control.iter().map(|c| noise(rng) - c).collect();
    (0..arms).map(|_| arm(rng)).collect()
}

fn seeds(factor: usize) {
    let simulations = 20_000 * factor;
    for (noise_name, noise) in NOISES {
        for seeds in [3, 5] {
            let name = format!("one arm, {seeds} seeds, {noise_name}");
            let positives = count(&name, simulations, |rng| {
                let arms = differences(rng, 1, seeds, noise);
                paired_t(&arms[0]).is_some_and(|test| test.p <= ALPHA)
            });
            row(&format!("p ≤ 0.05: {name}"), "5 %", positives, simulations);
        }
    }
    for seeds in [3, 5] {
        // Noise of one kind cancels to symmetric differences; this is what the t test is not made for.
        let name = format!("one arm, {seeds} seeds, only the arm's noise is exponential");
        let positives = count(&name, simulations, |rng| {
            let skewed = |rng: &mut KeyedRng| -(1.0 - rng.uniform()).ln() - 1.0;
            let differences: Vec<f64> = (0..seeds).map(|_| skewed(rng) - normal(rng)).collect();
            paired_t(&differences).is_some_and(|test| test.p <= ALPHA)
        });
        row(&format!("p ≤ 0.05: {name}"), "5 %", positives, simulations);
    }
    for (noise_name, noise) in NOISES {
        for seeds in [3, 5] {
            let name = format!("any of 3 arms, one control, {seeds} seeds, {noise_name}");
            let uncorrected = count(&name, simulations, |rng| {
                let arms = differences(rng, 3, seeds, noise);
                arms.iter()
                    .any(|arm| paired_t(arm).is_some_and(|test| test.p <= ALPHA))
            });
            row(
                &format!("p ≤ 0.05, not corrected: {name}"),
                "-",
                uncorrected,
                simulations,
            );
            for threshold in [0.0, 0.5] {
                let verdicts = count(&name, simulations, |rng| {
                    let arms = differences(rng, 3, seeds, noise);
                    any_difference(&arms, threshold)
                });
                // At a threshold of 0, p ≤ 0.05 after Holm's correction and nothing else.
                let what = format!("better or worse, threshold {threshold} sd: {name}");
                row(&what, "≤ 5 %", verdicts, simulations);
            }
        }
    }
}

/// Whether any arm is called better or worse.
fn any_difference(arms: &[Vec<f64>], threshold: f64) -> bool {
    let rule = Rule {
        alpha: ALPHA,
        threshold,
        comparisons: arms.len(),
    };
    let p: Vec<Option<f64>> = arms.iter().map(|arm| paired_t(arm).map(|t| t.p)).collect();
    let verdicts = arms
        .iter()
        .zip(holm(&p))
        .map(|(arm, p)| verdict(arm, p, &rule));
    verdicts
        .into_iter()
        .any(|v| matches!(v, Verdict::Better | Verdict::Worse))
}

fn covers(interval: Interval) -> bool {
    interval.low <= 0.0 && 0.0 <= interval.high
}

/// Whether the 95 % interval of the difference of two evaluations contains 0.
fn bootstrap_covers(rng: &mut KeyedRng, [arm, control]: &[Resampled; 2]) -> bool {
    let resamples = Resamples::new(NUM_IMAGES, RESAMPLES, rng.next_u64());
    let [arm, control] = [arm, control].map(|run| resamples.metric(run));
    let pair = MetricPair {
        arm: &arm,
        control: &control,
    };
    covers(
        summarise(&[pair])
            .0
            .expect("every draw has objects")
            .interval,
    )
}

/// The same with each drawn image once, however often it is drawn: what this crate does not do.
fn distinct_covers(rng: &mut KeyedRng, runs: &[Resampled; 2]) -> bool {
    let resamples = Resamples::new(NUM_IMAGES, RESAMPLES, rng.next_u64());
    let [arm, control] = runs.each_ref().map(|run| {
        let metric = |draw| {
            let counts: Vec<u32> = resamples.counts(draw).iter().map(|&n| n.min(1)).collect();
            run.metric(&counts)
        };
        (0..RESAMPLES).map(metric).collect::<Vec<_>>()
    });
    let pair = MetricPair {
        arm: &arm,
        control: &control,
    };
    covers(
        summarise(&[pair])
            .0
            .expect("every draw has objects")
            .interval,
    )
}

/// Two classifiers that are right with the same probability on every image, which differs by image.
fn classifiers(rng: &mut KeyedRng) -> [Resampled; 2] {
    let easy: Vec<f64> = (0..NUM_IMAGES).map(|_| rng.uniform().sqrt()).collect();
    [(); 2].map(|()| {
        let right = easy.iter().map(|&p| rng.uniform() < p).collect();
        Resampled::Classification(ImageHits::new(right))
    })
}

/// Two detectors of 5 classes that find every object with the same probability, higher at lower IoU
/// thresholds, and make as many false detections with scores that are lower on the whole.
fn detectors(rng: &mut KeyedRng) -> [Resampled; 2] {
    let mut ground_truths = vec![Vec::new(); 5];
    for image in 0..NUM_IMAGES {
        // Crowded images have more of everything.
        let crowded = 1 + rng.below(4);
        for class in &mut ground_truths {
            let objects: u32 = (0..crowded).map(|_| u32::from(rng.below(3) == 0)).sum();
            if objects > 0 {
                class.push((image, objects));
            }
        }
    }
    [(); 2].map(|()| {
        let class = |ground_truths: &Vec<(usize, u32)>| {
            let mut detections = Vec::new();
            for &(image, objects) in ground_truths {
                for _ in 0..objects {
                    // Found at thresholds below its IoU.
                    let found = (rng.uniform().sqrt() * 13.0) as usize;
                    detections.push(MatchedDetection {
                        score: 0.4 * normal(rng) + 0.1 * found as f64,
                        image,
                        matched: (1u16 << found.min(IOU_THRESHOLDS)) - 1,
                        ignored: 0,
                    });
                }
            }
            for _ in 0..2 * NUM_IMAGES {
                detections.push(MatchedDetection {
                    score: 0.4 * normal(rng),
                    image: rng.below(NUM_IMAGES),
                    matched: 0,
                    ignored: 0,
                });
            }
            detections.sort_by(|a, b| b.score.total_cmp(&a.score));
            ClassMatches {
                detections,
                ground_truths: ground_truths.clone(),
            }
        };
        let classes = ground_truths.iter().map(class).collect();
        Resampled::Detection(DetectionMatches::new(NUM_IMAGES, classes))
    })
}

fn images(factor: usize) {
    let drawn = format!("{NUM_IMAGES} images, {RESAMPLES} draws");
    let many = 2000 * factor;
    let covered = count("classifiers", many, |rng| {
        let runs = classifiers(rng);
        bootstrap_covers(rng, &runs)
    });
    row(
        &format!("image interval holds 0: top-1, {drawn}"),
        "95 %",
        covered,
        many,
    );
    let covered = count("classifiers", many, |rng| {
        let runs = classifiers(rng);
        distinct_covers(rng, &runs)
    });
    let what = format!("the same, repeated draws dropped (not what is used): top-1, {drawn}");
    row(&what, "95 %", covered, many);
    let some = 400 * factor;
    let covered = count("detectors", some, |rng| {
        let runs = detectors(rng);
        bootstrap_covers(rng, &runs)
    });
    row(
        &format!("image interval holds 0: AP, {drawn}"),
        "95 %",
        covered,
        some,
    );
}
