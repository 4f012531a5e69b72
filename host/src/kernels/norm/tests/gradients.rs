//! Gradients against central differences of an objective summed in f64.

use super::*;
use crate::kernels::testing::{dot, slopes};

/// Steps of 1e-2 of a deviation bend the objective by their square; f32 rounding over the step is
/// smaller. 3e-5 measured.
const DIFFERENCE_TOLERANCE: f64 = 1e-4;
const STEP: f32 = 1e-2;
/// Outputs nearer to an end of the activation may cross it within a step.
const KINK: f32 = 0.1;

fn objective(operands: &Operands, how: Use, [x, gamma, beta, residual]: [&[f32]; 4]) -> f64 {
    let device = Device::flex();
    let shape = operands.shape;
    let residual = match how.residual {
        Residual::None => None,
        _ => Some(tensor(residual, shape, &device)),
    };
    let (x, gamma) = (
        tensor(x, shape, &device),
        tensor(gamma, [shape[1]], &device),
    );
    let beta = tensor(beta, [shape[1]], &device);
    let result = batch_norm(x, gamma, beta, residual, how.activation);
    dot(&values(result.output), &operands.upstream)
}

#[test]
fn gradients_equal_finite_differences() {
    for shape in [[12, 3], [25, 5]] {
        for how in uses().into_iter().filter(|how| !how.shared) {
            let mut operands = Operands::new(shape);
            let linear = Use {
                activation: Activation::None,
                ..how
            };
            let before = ours(&operands, linear).y;
            if how.activation != Activation::None {
                for (upstream, y) in operands.upstream.iter_mut().zip(before) {
                    let above = (y - how.activation.bound()).abs();
                    if y.abs() < KINK || above < KINK {
                        *upstream = 0.0;
                    }
                }
            }
            let gradients = ours(&operands, how).gradients;
            let at: [&[f32]; 4] = [
                &operands.x,
                &operands.gamma,
                &operands.beta,
                &operands.residual,
            ];
            for (i, name) in ["x", "gamma", "beta", "residual"].iter().enumerate() {
                if gradients[i].is_empty() {
                    continue;
                }
                let all: Vec<usize> = (0..at[i].len()).collect();
                let want = slopes(at[i], &all, STEP, |moved| {
                    let mut at = at;
                    at[i] = moved;
                    objective(&operands, how, at)
                });
                let what = format_args!("{shape:?}, {how:?}: {name}");
                check(what, error(&gradients[i], &want), DIFFERENCE_TOLERANCE);
            }
        }
    }
}
