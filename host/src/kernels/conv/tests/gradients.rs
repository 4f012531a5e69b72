//! Gradients against central differences of an objective summed in f64.

use super::*;
use crate::kernels::testing::{check, dot, error, slopes};
use crate::rng::KeyedRng;

/// Without ReLU the outputs are linear in every operand: only their rounding remains, over the
/// step. 1.2e-5 measured (Winograd).
const TOLERANCE: f64 = 4e-5;
/// The outputs are linear: a large step drowns their rounding.
const STEP: f32 = 0.25;
/// Operands whose gradients are compared, of those that there are.
const PICKS: usize = 150;

/// All indices below `len`, or a random selection.
fn picks(len: usize) -> Vec<usize> {
    let mut rng = KeyedRng::new("picks", &[len as u64]);
    if len <= PICKS {
        (0..len).collect()
    } else {
        (0..PICKS).map(|_| rng.below(len)).collect()
    }
}

fn at(values: &[f32], picks: &[usize]) -> Vec<f32> {
    picks.iter().map(|&i| values[i]).collect()
}

/// Takes outputs out of the objective whose ReLU could switch within a step.
fn avoid_kinks(case: &Case, operands: &mut Operands) {
    let mut linear = case.clone();
    linear.conv.relu = false;
    let before = plain(&linear, &operands.x, &operands.weight, &operands.bias);
    let largest = |values: &[f32]| values.iter().fold(1.0f32, |most, v| most.max(v.abs()));
    let reach = STEP * largest(&operands.x).max(largest(&operands.weight));
    let mut active = [0, 0];
    for (upstream, before) in operands.upstream.iter_mut().zip(before) {
        if before.abs() < 1.01 * reach {
            *upstream = 0.0;
        } else {
            active[usize::from(before > 0.0)] += 1;
        }
    }
    let most = operands.upstream.len();
    assert!(active.iter().all(|&count| count * 5 > most), "{active:?}");
}

#[test]
fn gradients_equal_finite_differences() {
    let sizes = [[6, 4, 5], [6, 3, 2], [6, 1, 1]];
    for (name, channels, window, groups) in [
        ("direct", [12, 5], Window::square(3, 2, 1), 1),
        ("pointwise", [20, 6], Window::square(1, 1, 0), 1),
        ("grouped", [16, 8], Window::square(3, 1, 1), 2),
        ("Winograd", [16, 17], Window::square(3, 1, 1), 1),
        ("depthwise", [7, 7], Window::square(5, 1, 2), 7),
    ] {
        for relu in [false, true] {
            let mut case = Case::new(&sizes, channels, window, groups);
            case.conv.relu = relu;
            assert_eq!(case.is_winograd(), name == "Winograd");
            let mut operands = case.operands();
            if relu {
                avoid_kinks(&case, &mut operands);
            }
            let results = on_the_tape(&case, &operands, true);
            let Operands {
                x,
                weight,
                bias,
                upstream,
            } = &operands;
            let objective = |x: &[f32], weight: &[f32], bias: &[f32]| {
                dot(&plain(&case, x, weight, bias), upstream)
            };
            let of = [picks(x.len()), picks(weight.len()), picks(bias.len())];
            let dx = slopes(x, &of[0], STEP, |x| objective(x, weight, bias));
            let dw = slopes(weight, &of[1], STEP, |weight| objective(x, weight, bias));
            let db = slopes(bias, &of[2], STEP, |bias| objective(x, weight, bias));
            for (operand, got, of, want) in [
                ("x", &results.dx, &of[0], dx),
                ("weight", &results.dw, &of[1], dw),
                ("bias", &results.db, &of[2], db),
            ] {
                let what = format_args!("{name}, relu {relu}: {operand}");
                check(what, error(&at(got, of), &want), TOLERANCE);
            }
        }
    }
}
