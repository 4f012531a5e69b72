//! The kernels at every level against f64, where f32 is at its worst too.

use super::*;
use crate::kernels::maps::Shared;
use crate::kernels::simd::Level;

/// Deviations of 0.1 about 1000 are what f32 (6e-5 apart there) leaves of them; the deviations from
/// the mean are exact but for the mean's own rounding: 5e-6 measured.
const FAR_TOLERANCE: f64 = 1e-5;
/// The output is `x * scale + shift`, whose terms are 10⁴ times the result: 3e-4 measured, as Burn's.
const FAR_OUTPUT_TOLERANCE: f64 = 6e-4;

/// `f` of each channel's values.
fn by_channel(channels: usize, f: impl FnMut(usize) -> f64) -> Vec<f64> {
    (0..channels).map(f).collect()
}

/// Mean and biased variance by channel, in f64.
fn exact_moments(x: &[f32], channels: usize) -> [Vec<f64>; 2] {
    let cells = (x.len() / channels) as f64;
    let column = |c: usize| x.iter().skip(c).step_by(channels).map(|&x| f64::from(x));
    let mean = by_channel(channels, |c| column(c).sum::<f64>() / cells);
    let var = by_channel(channels, |c| {
        column(c).map(|x| (x - mean[c]).powi(2)).sum::<f64>() / cells
    });
    [mean, var]
}

#[test]
fn a_large_mean_does_not_drown_a_small_deviation() {
    const MEAN: f32 = 1000.0;
    const DEVIATION: f32 = 0.1;
    for shape in [[40, 3], [3000, 64], [5000, 17]] {
        let [cells, channels] = shape;
        let near = normal("far", cells * channels);
        let x: Vec<f32> = near.iter().map(|&v| MEAN + DEVIATION * v).collect();
        let [mean, var] = exact_moments(&x, channels);
        for level in Level::available() {
            let got = kernel::moments(level, &x, channels);
            let what = format_args!("{level:?}, {shape:?}");
            check(what, error(&got.var, &var), FAR_TOLERANCE);
            for (got, want) in got.mean.iter().zip(&mean) {
                // From one number of f32 to the next: blocks are rounded, and their mean.
                let off = (f64::from(*got) - want).abs();
                check(what, off, f64::from(MEAN.next_up() - MEAN));
            }
        }
        let operands = Operands {
            x,
            ..Operands::new(shape)
        };
        let how = Use {
            residual: Residual::None,
            activation: Activation::None,
            shared: false,
        };
        let want: Vec<f64> = (0..cells * channels)
            .map(|i| {
                let c = i % channels;
                let scale = f64::from(operands.gamma[c]) / (var[c] + EPSILON).sqrt();
                (f64::from(operands.x[i]) - mean[c]) * scale + f64::from(operands.beta[c])
            })
            .collect();
        let y = ours(&operands, how).y;
        check(
            format_args!("{shape:?}"),
            error(&y, &want),
            FAR_OUTPUT_TOLERANCE,
        );
    }
}

/// Rounding may not make a variance negative: its root would be no number.
#[test]
fn a_constant_channel_has_no_variance_below_zero() {
    for cells in (2..150).chain([5000]) {
        for constant in [0.1, 1234.5, 3.3e7, 7.7e11] {
            for level in Level::available() {
                let x = vec![constant; cells * 9];
                let got = kernel::moments(level, &x, 9);
                let what = format_args!("{level:?}, {cells} of {constant}");
                check(what, error(&got.mean, &[constant; 9]), 1e-7);
                for var in got.var {
                    assert!(var >= 0.0, "{what}: {var}");
                }
            }
        }
    }
}

/// The kernels of one training step of a normalisation, at one level.
fn kernels_at(level: Level, operands: &Operands, activation: Activation) -> [Vec<f32>; 5] {
    let channels = operands.shape[1];
    let Operands {
        x,
        gamma,
        beta,
        residual,
        upstream,
        ..
    } = operands;
    let mut y = vec![f32::NAN; x.len()];
    let to = Shared::new(&mut y);
    kernel::apply(level, x, [gamma, beta], Some(residual), activation, to);
    let gate = (activation != Activation::None).then_some(kernel::Gate {
        y: &y[..],
        bound: activation.bound(),
    });
    let mut gated = upstream.clone();
    let own = Shared::new(&mut gated);
    let centred = Some((&x[..], &beta[..]));
    let sums = kernel::gradient_sums(level, own, gate, centred, channels, Some(own));
    let mut dx = vec![f32::NAN; x.len()];
    let (dy, to) = (Shared::reading(upstream), Shared::new(&mut dx));
    kernel::input_gradient(level, dy, gate, x, [gamma, beta, gamma], to);
    let narrow = |sums: Vec<f64>| sums.into_iter().map(|s| s as f32).collect();
    [y, gated, narrow(sums.g), narrow(sums.gx), dx]
}

/// As [`kernels_at`], by their definitions; gated by its result `y`.
fn exact_kernels(operands: &Operands, activation: Activation, y: &[f32]) -> [Vec<f64>; 5] {
    let channels = operands.shape[1];
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| f64::from(v)).collect() };
    let (x, residual) = (wide(&operands.x), wide(&operands.residual));
    let (gamma, beta) = (wide(&operands.gamma), wide(&operands.beta));
    let mut want = [const { Vec::new() }; 5];
    want[2] = vec![0.0; channels];
    want[3] = vec![0.0; channels];
    for i in 0..x.len() {
        let c = i % channels;
        let value = x[i] * gamma[c] + beta[c] + residual[i];
        want[0].push(match activation {
            Activation::None => value,
            Activation::Relu => value.max(0.0),
            Activation::Relu6 => value.clamp(0.0, 6.0),
        });
        let open = match activation {
            Activation::None => true,
            Activation::Relu => y[i] > 0.0,
            Activation::Relu6 => y[i] > 0.0 && y[i] < 6.0,
        };
        let g = if open {
            f64::from(operands.upstream[i])
        } else {
            0.0
        };
        want[1].push(g);
        want[2][c] += g;
        want[3][c] += g * (x[i] - beta[c]);
        want[4].push(gamma[c] * g + beta[c] * x[i] + gamma[c]);
    }
    want
}

#[test]
fn every_level_equals_double_precision() {
    for shape in SHAPES {
        let operands = Operands::new(shape);
        let [mean, var] = exact_moments(&operands.x, shape[1]);
        for level in Level::available() {
            let got = kernel::moments(level, &operands.x, shape[1]);
            let what = format_args!("{level:?}, {shape:?}: moments");
            check(what, error(&got.mean, &mean), TOLERANCE);
            check(what, error(&got.var, &var), TOLERANCE);
            for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
                let got = kernels_at(level, &operands, activation);
                let want = exact_kernels(&operands, activation, &got[0]);
                for (i, name) in ["y", "g", "sum of g", "sum of g x", "dx"]
                    .iter()
                    .enumerate()
                {
                    let what = format_args!("{level:?}, {shape:?}, {activation:?}: {name}");
                    check(what, error(&got[i], &want[i]), TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn a_gradient_passes_where_the_output_is_not_a_number() {
    for level in Level::available() {
        // A whole vector and a rest.
        let mut y: Vec<f32> = (0..19).map(|i| [1.0, -1.0, 0.0, -0.0][i % 4]).collect();
        let dy = vec![1.0f32; 19];
        let read = Shared::reading(&dy);
        y[9] = f32::NAN;
        y[18] = f32::NAN;
        y[2] = 6.0;
        for bound in [f32::INFINITY, 6.0] {
            let gate = kernel::Gate { y: &y, bound };
            let sums = kernel::gradient_sums(level, read, Some(gate), None, 19, None);
            for (i, (sum, y)) in sums.g.iter().zip(&y).enumerate() {
                let open = (*y > 0.0 && *y < bound) || y.is_nan();
                assert_eq!(*sum, f64::from(u8::from(open)), "{level:?}: channel {i}");
            }
        }
    }
}
