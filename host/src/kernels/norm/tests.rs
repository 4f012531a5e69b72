//! Against Burn's batch normalisation and f64, by finite differences, on any number of threads.

mod gradients;
mod precision;

use burn::tensor::activation;
use burn::tensor::module::batch_norm_train;
use burn::tensor::{Device, Tensor};

use super::*;
use crate::kernels::testing::{
    assert_threads_change_nothing, check, error, leaf, normal, tensor, values,
};

/// f32 in other orders: 6e-7 measured, of a sum over 2500 cells.
const TOLERANCE: f64 = 1.5e-6;

/// Cells and channels: one block and many, with and without a rest of a register.
const SHAPES: [[usize; 2]; 8] = [
    [3, 1],
    [4, 20],
    [7, 3],
    [50, 17],
    [300, 64],
    [1000, 33],
    [2500, 16],
    [61, 300],
];

/// Values of a normalisation of `[cells, channels]`.
struct Operands {
    shape: [usize; 2],
    x: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    residual: Vec<f32>,
    upstream: Vec<f32>,
}

impl Operands {
    fn new(shape: [usize; 2]) -> Self {
        let len = shape[0] * shape[1];
        // Means and deviations differ from channel to channel.
        let (mean, deviation) = (normal("mean", shape[1]), normal("deviation", shape[1]));
        let mut x = normal("x", len);
        for (i, x) in x.iter_mut().enumerate() {
            let channel = i % shape[1];
            *x = *x * (0.2 + deviation[channel].abs()) + mean[channel];
        }
        Operands {
            shape,
            x,
            gamma: normal("gamma", shape[1]),
            beta: normal("beta", shape[1]),
            residual: normal("residual", len),
            upstream: normal("upstream", len),
        }
    }
}

/// How a normalisation is used.
#[derive(Clone, Copy, Debug)]
struct Use {
    residual: Residual,
    activation: Activation,
    /// Something else wants the gradient at the output too, and must find it as it was.
    shared: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Residual {
    None,
    /// Needs no gradient.
    Constant,
    Leaf,
}

fn uses() -> Vec<Use> {
    let mut uses = Vec::new();
    for residual in [Residual::None, Residual::Constant, Residual::Leaf] {
        for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
            uses.extend([false, true].map(|shared| Use {
                residual,
                activation,
                shared,
            }));
        }
    }
    uses
}

/// Output, statistics, and gradients at `x`, `gamma`, `beta` and the residual, where there are any.
struct Results {
    y: Vec<f32>,
    mean: Vec<f32>,
    var: Vec<f32>,
    gradients: [Vec<f32>; 4],
}

/// Runs `norm` on the tape: from `x`, `gamma`, `beta`, residual to output, mean and variance.
fn on_the_tape(
    operands: &Operands,
    how: Use,
    upstream: &[f32],
    norm: impl Fn(Tensor<2>, Tensor<1>, Tensor<1>, Option<Tensor<2>>) -> [Tensor<2>; 3],
) -> Results {
    let shape = operands.shape;
    let x = leaf(&operands.x, shape);
    let gamma = leaf(&operands.gamma, [shape[1]]);
    let beta = leaf(&operands.beta, [shape[1]]);
    let residual = match how.residual {
        Residual::None => None,
        Residual::Constant => Some(tensor(&operands.residual, shape, &Device::flex())),
        Residual::Leaf => Some(leaf(&operands.residual, shape)),
    };
    let [y, mean, var] = norm(x.clone(), gamma.clone(), beta.clone(), residual.clone());
    let plain: Tensor<2> = tensor(upstream, shape, &Device::flex());
    let other = leaf(&vec![0.0; upstream.len()], shape);
    let output = match how.shared {
        true => y.clone() + other.clone(),
        false => y.clone(),
    };
    let gradients = (output * plain).sum().backward();
    if how.shared {
        assert_eq!(values(other.grad(&gradients).unwrap()), upstream, "{how:?}");
    }
    let residual = match (how.residual, residual) {
        (Residual::Leaf, Some(residual)) => values(residual.grad(&gradients).unwrap()),
        _ => Vec::new(),
    };
    Results {
        y: values(y),
        mean: values(mean),
        var: values(var),
        gradients: [
            values(x.grad(&gradients).unwrap()),
            values(gamma.grad(&gradients).unwrap()),
            values(beta.grad(&gradients).unwrap()),
            residual,
        ],
    }
}

fn ours(operands: &Operands, how: Use) -> Results {
    on_the_tape(
        operands,
        how,
        &operands.upstream,
        |x, gamma, beta, residual| {
            let result = batch_norm(x, gamma, beta, residual, how.activation);
            [
                result.output,
                result.mean.unsqueeze(),
                result.var.unsqueeze(),
            ]
        },
    )
}

/// Composed of Burn's operations. The gradient passes where `ours` is inside the activation's range, so
/// that values within rounding of an end may fall to either side.
fn burns(operands: &Operands, how: Use, ours: &Results) -> Results {
    let gated: Vec<f32> = operands
        .upstream
        .iter()
        .zip(&ours.y)
        .map(|(&g, &y)| {
            let rectified = how.activation != Activation::None;
            let closed = rectified && (y <= 0.0 || y >= how.activation.bound());
            if closed { 0.0 } else { g }
        })
        .collect();
    let mut results = on_the_tape(operands, how, &gated, |x, gamma, beta, residual| {
        let result = batch_norm_train(x, gamma, beta, EPSILON);
        let y = match residual {
            Some(residual) => result.output + residual,
            None => result.output,
        };
        [y, result.mean.unsqueeze(), result.variance.unsqueeze()]
    });
    if how.activation != Activation::None {
        let y: Tensor<1> = tensor(&results.y, [results.y.len()], &Device::flex());
        let y = activation::relu(y).clamp_max(how.activation.bound());
        results.y = values(y);
    }
    results
}

#[test]
fn forward_and_gradients_equal_burns_own() {
    for shape in SHAPES {
        let operands = Operands::new(shape);
        for how in uses() {
            let ours = ours(&operands, how);
            let theirs = burns(&operands, how, &ours);
            for (name, got, want) in [
                ("y", &ours.y, &theirs.y),
                ("mean", &ours.mean, &theirs.mean),
                ("variance", &ours.var, &theirs.var),
            ] {
                let what = format_args!("{shape:?}, {how:?}: {name}");
                check(what, error(got, want), TOLERANCE);
            }
            for ((name, got), want) in ["x", "gamma", "beta", "residual"]
                .iter()
                .zip(&ours.gradients)
                .zip(&theirs.gradients)
            {
                let what = format_args!("{shape:?}, {how:?}: gradient at {name}");
                check(what, error(got, want), TOLERANCE);
            }
        }
    }
}

/// ReLU must not make a number of it: the loss would then hide that a run diverged.
#[test]
fn not_a_number_passes_relu() {
    let shape = [50, 17];
    let mut operands = Operands::new(shape);
    operands.x[3 * 17 + 5] = f32::NAN;
    for how in uses()
        .into_iter()
        .filter(|how| how.activation != Activation::None)
    {
        let results = ours(&operands, how);
        for (i, y) in results.y.iter().enumerate() {
            assert_eq!(y.is_nan(), i % 17 == 5, "{how:?}: value {i}");
        }
        // The gradient passes, and the statistics spoil the channel.
        let [dx, gamma, beta, _] = &results.gradients;
        assert!(dx[5].is_nan() && gamma[5].is_nan(), "{how:?}");
        assert!(beta[5] != 0.0 && beta[5].is_finite(), "{how:?}");
        assert!(dx[4].is_finite() && gamma[4].is_finite(), "{how:?}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for shape in [[2500, 16], [1000, 33], [61, 300]] {
        let operands = Operands::new(shape);
        for how in uses() {
            assert_threads_change_nothing("batch normalisation", || {
                let Results {
                    y,
                    mean,
                    var,
                    gradients: [dx, gamma, beta, _],
                } = ours(&operands, how);
                vec![y, mean, var, dx, gamma, beta]
            });
        }
    }
}
