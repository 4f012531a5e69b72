//! Against f64, by finite differences, on any number of threads.

use burn::tensor::Device;

use super::*;
use crate::kernels::testing::{
    assert_threads_change_nothing, check, dot, error, leaf, normal, slopes, tensor, values,
};

/// f32 sums of a row, put together in f64: 2e-7 measured.
const TOLERANCE: f64 = 1e-6;
/// Central differences of an f32 function.
const DIFFERENCE_TOLERANCE: f64 = 5e-4;
const STEP: f32 = 1e-2;
const EPSILON: f64 = 1e-6;

struct Case {
    shape: [usize; 2],
    x: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    upstream: Vec<f32>,
}

impl Case {
    /// Rows of different means and deviations.
    fn new(rows: usize, channels: usize) -> Self {
        let (mean, deviation) = (normal("mean", rows), normal("deviation", rows));
        let mut x = normal("x", rows * channels);
        for (i, x) in x.iter_mut().enumerate() {
            let row = i / channels;
            *x = *x * (0.2 + deviation[row].abs()) + 3.0 * mean[row];
        }
        Case {
            shape: [rows, channels],
            x,
            gamma: normal("gamma", channels),
            beta: normal("beta", channels),
            upstream: normal("upstream", rows * channels),
        }
    }

    /// Output, and gradients at `x`, `gamma` and `beta`.
    fn ours(&self) -> [Vec<f32>; 4] {
        let channels = [self.shape[1]];
        let x = leaf(&self.x, self.shape);
        let (gamma, beta) = (leaf(&self.gamma, channels), leaf(&self.beta, channels));
        let y = layer_norm(x.clone(), gamma.clone(), beta.clone(), EPSILON);
        let upstream: Tensor<2> = tensor(&self.upstream, self.shape, &Device::flex());
        let gradients = (y.clone() * upstream).sum().backward();
        [
            values(y),
            values(x.grad(&gradients).unwrap()),
            values(gamma.grad(&gradients).unwrap()),
            values(beta.grad(&gradients).unwrap()),
        ]
    }

    /// The same by the formulas, value by value.
    fn reference(&self) -> [Vec<f64>; 4] {
        let [rows, channels] = self.shape;
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| f64::from(v)).collect() };
        let (gamma, beta) = (wide(&self.gamma), wide(&self.beta));
        let (mut y, mut dx) = (Vec::new(), Vec::new());
        let (mut d_gamma, mut d_beta) = (vec![0.0; channels], vec![0.0; channels]);
        for row in 0..rows {
            let at = row * channels..(row + 1) * channels;
            let (x, dy) = (wide(&self.x[at.clone()]), wide(&self.upstream[at]));
            let mean_of = |f: &dyn Fn(usize) -> f64| -> f64 {
                (0..channels).map(f).sum::<f64>() / channels as f64
            };
            let mean = mean_of(&|c| x[c]);
            let inverse = 1.0 / (mean_of(&|c| (x[c] - mean).powi(2)) + EPSILON).sqrt();
            let hat: Vec<f64> = x.iter().map(|x| (x - mean) * inverse).collect();
            let g = mean_of(&|c| gamma[c] * dy[c]);
            let gx = mean_of(&|c| gamma[c] * dy[c] * hat[c]);
            for c in 0..channels {
                y.push(gamma[c] * hat[c] + beta[c]);
                dx.push((gamma[c] * dy[c] - g - hat[c] * gx) * inverse);
                d_gamma[c] += dy[c] * hat[c];
                d_beta[c] += dy[c];
            }
        }
        [y, dx, d_gamma, d_beta]
    }
}

/// One row and several tasks of them, channels that are no multiple of a register.
const EXTENTS: [[usize; 2]; 5] = [[1, 2], [3, 16], [7, 37], [150, 48], [64, 192]];

#[test]
fn value_and_gradients_are_the_formulas() {
    for [rows, channels] in EXTENTS {
        let case = Case::new(rows, channels);
        let names = ["y", "dx", "dgamma", "dbeta"];
        for ((name, ours), want) in names.iter().zip(case.ours()).zip(case.reference()) {
            if channels == 2 && *name == "dx" {
                // Of two values the normalised ones are a sign: nothing but rounding is left.
                continue;
            }
            let what = format_args!("{rows}x{channels} {name}");
            check(what, error(&ours, &want), TOLERANCE);
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    let case = Case::new(5, 24);
    let [_, dx, d_gamma, d_beta] = case.ours();
    let objective = |case: &Case| dot(&case.ours()[0], &case.upstream);
    let picks: Vec<usize> = (0..120).step_by(7).collect();
    let channels: Vec<usize> = (0..24).collect();
    let x = slopes(&case.x, &picks, STEP, |x| {
        objective(&Case {
            x: x.to_vec(),
            ..Case::new(5, 24)
        })
    });
    let gamma = slopes(&case.gamma, &channels, STEP, |gamma| {
        objective(&Case {
            gamma: gamma.to_vec(),
            ..Case::new(5, 24)
        })
    });
    let beta = slopes(&case.beta, &channels, STEP, |beta| {
        objective(&Case {
            beta: beta.to_vec(),
            ..Case::new(5, 24)
        })
    });
    let picked: Vec<f32> = picks.iter().map(|&i| dx[i]).collect();
    for (name, got, want) in [
        ("dx", picked, x),
        ("dgamma", d_gamma, gamma),
        ("dbeta", d_beta, beta),
    ] {
        check(
            format_args!("{name}"),
            error(&got, &want),
            DIFFERENCE_TOLERANCE,
        );
    }
}

#[test]
fn a_row_of_equal_values_is_the_shift() {
    let case = Case {
        x: vec![1234.567; 20],
        ..Case::new(1, 20)
    };
    // The mean is exact to rounding, and epsilon bounds what the rest is multiplied by.
    let [y, ..] = case.ours();
    let wide: Vec<f64> = case.beta.iter().map(|&b| f64::from(b)).collect();
    check(format_args!("y"), error(&y, &wide), 1e-6);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let case = Case::new(1000, 37);
    assert_threads_change_nothing("layer normalisation", || case.ours().to_vec());
}

#[test]
fn nan_stays() {
    let mut case = Case::new(2, 20);
    case.x[3] = f32::NAN;
    let [y, ..] = case.ours();
    assert!(y[..20].iter().all(|y| y.is_nan()) && y[20..].iter().all(|y| y.is_finite()));
}

#[test]
#[should_panic(expected = "a scale and a shift for each of 4 channels")]
fn affine_parts_of_other_channels_are_a_bug() {
    let of = |len: usize| leaf(&vec![0.0; len], [len]);
    let _ = layer_norm(leaf(&[0.0; 8], [2, 4]), of(4), of(8), EPSILON);
}
