//! Against f64, by finite differences, on any number of threads.

use burn::tensor::Device;

use super::*;
use crate::kernels::testing::{
    assert_threads_change_nothing, check, dot, error, leaf, normal, slopes, tensor, values,
};
use crate::rng::KeyedRng;

/// f32 against f64. Where a group has few values the terms of the gradient at `x` cancel: of two values
/// nearly nothing is left. 7e-6 measured there, 6e-7 elsewhere.
const TOLERANCE: f64 = 2e-5;
/// As batch normalisation's.
const DIFFERENCE_TOLERANCE: f64 = 2e-4;
const STEP: f32 = 1e-2;
/// Outputs nearer to 0 may switch their ReLU within a step.
const KINK: f32 = 0.1;

/// Values of a normalisation.
struct Case {
    maps: GroupedMaps,
    shape: [usize; 2],
    x: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    upstream: Vec<f32>,
}

/// Pyramids of one image and of several, groups of one channel and of all, one cell and many blocks.
fn cases() -> Vec<Case> {
    let pyramid = |n, sizes: &[[usize; 2]]| -> Vec<Segment> {
        sizes.iter().map(|&[h, w]| Segment::new(n, h, w)).collect()
    };
    [
        (pyramid(1, &[[4, 5]]), 1, 1),
        (pyramid(2, &[[6, 7], [3, 4], [2, 2], [1, 1]]), 8, 4),
        (pyramid(3, &[[5, 3], [1, 2]]), 12, 1),
        (pyramid(2, &[[9, 8], [3, 2]]), 6, 6),
        (pyramid(2, &[[33, 31], [17, 16], [3, 3]]), 33, 11),
        (pyramid(1, &[[12, 11]]), 256, 32),
    ]
    .into_iter()
    .map(|(segments, channels, groups)| Case::new(segments, channels, groups))
    .collect()
}

impl Case {
    fn new(segments: Vec<Segment>, channels: usize, groups: usize) -> Self {
        let cells = crate::kernels::maps::cells(&segments);
        let len = cells * channels;
        // Means and deviations differ from channel to channel.
        let (mean, deviation) = (normal("mean", channels), normal("deviation", channels));
        let mut x = normal("x", len);
        for (i, x) in x.iter_mut().enumerate() {
            let channel = i % channels;
            *x = *x * (0.2 + deviation[channel].abs()) + mean[channel];
        }
        Case {
            maps: GroupedMaps {
                segments: segments.into(),
                groups,
            },
            shape: [cells, channels],
            x,
            gamma: normal("gamma", channels),
            beta: normal("beta", channels),
            upstream: normal("upstream", len),
        }
    }

    /// Output, and gradients at `x`, `gamma` and `beta`. With `shared` the gradient at the output is
    /// wanted by something else too.
    fn ours(&self, relu: bool, shared: bool) -> [Vec<f32>; 4] {
        let channels = [self.shape[1]];
        let x = leaf(&self.x, self.shape);
        let (gamma, beta) = (leaf(&self.gamma, channels), leaf(&self.beta, channels));
        let y = group_norm(
            x.clone(),
            gamma.clone(),
            beta.clone(),
            self.maps.clone(),
            relu,
        );
        let upstream: Tensor<2> = tensor(&self.upstream, self.shape, &Device::flex());
        let other = leaf(&vec![0.0; self.x.len()], self.shape);
        let output = match shared {
            true => y.clone() + other.clone(),
            false => y.clone(),
        };
        let gradients = (output * upstream).sum().backward();
        if shared {
            assert_eq!(values(other.grad(&gradients).unwrap()), self.upstream);
        }
        [
            values(y),
            values(x.grad(&gradients).unwrap()),
            values(gamma.grad(&gradients).unwrap()),
            values(beta.grad(&gradients).unwrap()),
        ]
    }

    /// The same by the formulas, value by value. The gradient passes where `y` of ours is positive, so
    /// that values within rounding of 0 may fall to either side.
    fn reference(&self, relu: bool, ours: &[f32]) -> [Vec<f64>; 4] {
        let [_, channels] = self.shape;
        let width = channels / self.maps.groups;
        let mut y = vec![0.0; self.x.len()];
        let mut dx = vec![0.0; self.x.len()];
        let (mut d_gamma, mut d_beta) = (vec![0.0; channels], vec![0.0; channels]);
        for rows in images(&self.maps.segments) {
            for group in 0..self.maps.groups {
                let members: Vec<(usize, usize)> = rows
                    .clone()
                    .flat_map(|row| {
                        let channels = group * width..(group + 1) * width;
                        channels.map(move |c| (row * self.shape[1] + c, c))
                    })
                    .collect();
                let count = members.len() as f64;
                let x = |i: usize| f64::from(self.x[i]);
                let mean = members.iter().map(|&(i, _)| x(i)).sum::<f64>() / count;
                let squares = members.iter().map(|&(i, _)| (x(i) - mean).powi(2));
                let deviation = (squares.sum::<f64>() / count + EPSILON).sqrt();
                let (mut sum, mut product) = (0.0, 0.0);
                let term = |i: usize, c: usize| {
                    let off = (x(i) - mean) / deviation;
                    let passes = !relu || ours[i] > 0.0;
                    let g = if passes {
                        f64::from(self.upstream[i])
                    } else {
                        0.0
                    };
                    (off, g, g * f64::from(self.gamma[c]))
                };
                for &(i, c) in &members {
                    let (off, g, weighted) = term(i, c);
                    let value = off * f64::from(self.gamma[c]) + f64::from(self.beta[c]);
                    y[i] = if relu { value.max(0.0) } else { value };
                    d_gamma[c] += g * off;
                    d_beta[c] += g;
                    sum += weighted;
                    product += weighted * off;
                }
                for &(i, c) in &members {
                    let (off, _, weighted) = term(i, c);
                    dx[i] = (weighted - sum / count - off * product / count) / deviation;
                }
            }
        }
        [y, dx, d_gamma, d_beta]
    }
}

#[test]
fn forward_and_gradients_equal_the_formulas() {
    for case in cases() {
        for relu in [false, true] {
            for shared in [false, true] {
                let ours = case.ours(relu, shared);
                let want = case.reference(relu, &ours[0]);
                for ((name, got), want) in ["y", "x", "gamma", "beta"].iter().zip(&ours).zip(&want)
                {
                    let what = format_args!("{:?}, relu {relu}: {name}", case.maps);
                    check(what, error(got, want), TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    for mut case in cases().into_iter().filter(|case| case.x.len() <= 1000) {
        for relu in [false, true] {
            let linear = case.ours(false, false);
            if relu {
                for (upstream, y) in case.upstream.iter_mut().zip(&linear[0]) {
                    if y.abs() < KINK {
                        *upstream = 0.0;
                    }
                }
            }
            let [_, gradients @ ..] = case.ours(relu, false);
            let at: [&[f32]; 3] = [&case.x, &case.gamma, &case.beta];
            let objective = |[x, gamma, beta]: [&[f32]; 3]| {
                let device = Device::flex();
                let channels = [case.shape[1]];
                let y = group_norm(
                    tensor(x, case.shape, &device),
                    tensor(gamma, channels, &device),
                    tensor(beta, channels, &device),
                    case.maps.clone(),
                    relu,
                );
                dot(&values(y), &case.upstream)
            };
            let mut rng = KeyedRng::new("picks", &[0]);
            for (i, name) in ["x", "gamma", "beta"].iter().enumerate() {
                let picks: Vec<usize> = (0..at[i].len().min(40))
                    .map(|_| rng.below(at[i].len()))
                    .collect();
                let want = slopes(at[i], &picks, STEP, |moved| {
                    let mut at = at;
                    at[i] = moved;
                    objective(at)
                });
                let got: Vec<f32> = picks.iter().map(|&pick| gradients[i][pick]).collect();
                let what = format_args!("{:?}, relu {relu}: {name}", case.maps);
                check(what, error(&got, &want), DIFFERENCE_TOLERANCE);
            }
        }
    }
}

/// A group of one value has no deviation: the shift comes out, and nothing goes back, up to roundings
/// of `x` times `1 / √ε`.
#[test]
fn one_value_is_its_shift() {
    let case = Case::new(vec![Segment::new(2, 1, 1)], 3, 3);
    let [y, dx, d_gamma, d_beta] = case.ours(false, false);
    check(format_args!("y"), error(&y, &case.beta.repeat(2)), 1e-5);
    assert!(dx.iter().chain(&d_gamma).all(|v| v.abs() < 2e-4), "{dx:?}");
    let (first, second) = case.upstream.split_at(3);
    let sums: Vec<f32> = first.iter().zip(second).map(|(a, b)| a + b).collect();
    check(format_args!("beta"), error(&d_beta, &sums), 1e-6);
}

/// ReLU must not make a number of it: the loss would then hide that a run diverged.
#[test]
fn not_a_number_spoils_its_group_and_image_alone() {
    let mut case = Case::new(vec![Segment::new(2, 3, 3)], 4, 2);
    case.x[4 * 4 + 1] = f32::NAN;
    let [y, dx, ..] = case.ours(true, false);
    for (i, (y, dx)) in y.iter().zip(&dx).enumerate() {
        let spoilt = i / 4 < 9 && i % 4 < 2;
        assert_eq!((y.is_nan(), dx.is_nan()), (spoilt, spoilt), "value {i}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for case in cases() {
        assert_threads_change_nothing("group normalisation", || case.ours(true, false).into());
    }
}
