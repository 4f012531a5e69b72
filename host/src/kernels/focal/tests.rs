//! The loss and its gradient against f64, and on any number of threads.

use super::*;
use crate::kernels::testing::{assert_threads_change_nothing, check, error, normal};
use crate::rng::KeyedRng;

/// A few roundings a term, of 6e-8 each: 1.3e-7 measured.
const TOLERANCE: f64 = 3e-7;

const PART_WEIGHTS: [f32; 3] = [0.5, 0.125, 2.0];

/// Logits and classes of three parts; the last spans several tasks.
fn case(num_classes: usize) -> (Vec<f32>, [Vec<i32>; 3]) {
    let mut rng = KeyedRng::new("focal classes", &[num_classes as u64]);
    let sizes = [1, 130, 3 * TASK_LOGITS / num_classes + 5];
    let classes = sizes.map(|size| {
        (0..size)
            .map(|_| match rng.below(4) {
                0 => IGNORED,
                1 => rng.below(num_classes) as i32,
                _ => BACKGROUND,
            })
            .collect()
    });
    let anchors = sizes.iter().sum::<usize>();
    let mut logits = normal("focal logits", anchors * num_classes);
    // From certain to wrong.
    logits.iter_mut().for_each(|logit| *logit *= 4.0);
    (logits, classes)
}

fn focal(num_classes: usize, gamma: f32) -> Focal {
    Focal {
        num_classes,
        foreground: 0.25,
        background: 0.75,
        gamma,
    }
}

fn parts(classes: &[Vec<i32>; 3]) -> Vec<Anchors<'_>> {
    classes
        .iter()
        .zip(PART_WEIGHTS)
        .map(|(classes, weight)| Anchors { classes, weight })
        .collect()
}

/// The formula in f64.
fn reference(focal: &Focal, logits: &[f32], parts: &[Anchors<'_>]) -> (f64, Vec<f64>) {
    let gamma = f64::from(focal.gamma);
    let mut value = 0.0;
    let mut gradient = Vec::with_capacity(logits.len());
    let anchors = parts
        .iter()
        .flat_map(|part| part.classes.iter().map(|&class| (class, part.weight)));
    for (logits, (class, weight)) in logits.chunks_exact(focal.num_classes).zip(anchors) {
        for (k, &logit) in logits.iter().enumerate() {
            if class == IGNORED {
                gradient.push(0.0);
                continue;
            }
            let foreground = class == k as i32;
            let (alpha, sign) = match foreground {
                true => (focal.foreground, -1.0),
                false => (focal.background, 1.0),
            };
            let z = sign * f64::from(logit);
            let factor = f64::from(alpha) * f64::from(weight);
            let softplus = z.max(0.0) + (-z.abs()).exp().ln_1p();
            let sigmoid = 1.0 / (1.0 + (-z).exp());
            let complement = 1.0 / (1.0 + z.exp());
            let modulation = sigmoid.powf(gamma);
            value += factor * modulation * softplus;
            let slope = modulation * (sigmoid + gamma * complement * softplus);
            gradient.push(sign * factor * slope);
        }
    }
    (value, gradient)
}

#[test]
fn value_and_gradient_equal_double_precision() {
    for num_classes in [1, 3, 91] {
        let (logits, classes) = case(num_classes);
        let parts = parts(&classes);
        for gamma in [2.0, 1.5] {
            let focal = focal(num_classes, gamma);
            let (value, gradient) = focal_loss(&focal, &logits, &parts);
            let (want, want_gradient) = reference(&focal, &logits, &parts);
            let what = format_args!("{num_classes} classes, gamma {gamma}");
            check(what, error(&[value], &[want]), TOLERANCE);
            check(what, error(&gradient, &want_gradient), TOLERANCE);
        }
    }
}

#[test]
fn ignored_anchors_may_hold_anything() {
    let classes = [IGNORED, 0, IGNORED];
    let part = [Anchors {
        classes: &classes,
        weight: 1.0,
    }];
    let logits = [f32::NAN, 0.5, f32::INFINITY];
    let (value, gradient) = focal_loss(&focal(1, 2.0), &logits, &part);
    let alone = [Anchors {
        classes: &classes[1..2],
        weight: 1.0,
    }];
    let (want, want_gradient) = focal_loss(&focal(1, 2.0), &logits[1..2], &alone);
    assert_eq!(value, want);
    assert_eq!(gradient, [0.0, want_gradient[0], 0.0]);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for num_classes in [1, 3, 91] {
        let (logits, classes) = case(num_classes);
        assert_threads_change_nothing("focal", || {
            let (value, gradient) = focal_loss(&focal(num_classes, 1.5), &logits, &parts(&classes));
            vec![vec![value], gradient]
        });
    }
}
