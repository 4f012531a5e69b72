//! The definition of a convolution and its gradients, in f64 and plain loops.

use super::{Case, Operands};

/// Results in the order of the kernels.
pub(super) struct Reference {
    pub(super) y: Vec<f64>,
    pub(super) dx: Vec<f64>,
    pub(super) dw: Vec<f64>,
}

/// Calls `f(input cell, output cell, tap)` for all that a kernel joins.
fn joined(case: &Case, mut f: impl FnMut(usize, usize, usize)) {
    let window = case.conv.window;
    let ([kh, kw], outputs) = (window.kernel, case.conv.output());
    let (mut first_in, mut first_out) = (0, 0);
    for (input, output) in case.conv.input.iter().zip(outputs.iter()) {
        for _ in 0..input.n {
            for cell in 0..output.h * output.w {
                let (oy, ox) = (cell / output.w, cell % output.w);
                for tap in 0..kh * kw {
                    let y = oy * window.stride[0] + tap / kw * window.dilation[0];
                    let x = ox * window.stride[1] + tap % kw * window.dilation[1];
                    let (Some(y), Some(x)) = (
                        y.checked_sub(window.padding[0]).filter(|&y| y < input.h),
                        x.checked_sub(window.padding[1]).filter(|&x| x < input.w),
                    ) else {
                        continue;
                    };
                    f(first_in + y * input.w + x, first_out + cell, tap);
                }
            }
            first_in += input.h * input.w;
            first_out += output.h * output.w;
        }
    }
}

/// `x ⋆ weight` without bias and its gradients for `upstream`.
pub(super) fn reference(case: &Case, operands: &Operands) -> Reference {
    let Case { c, o, .. } = *case;
    let [_, c_group, kh, kw] = case.weight_shape();
    let (taps, o_group) = (kh * kw, o / case.conv.groups);
    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| f64::from(v)).collect() };
    let (x, upstream) = (wide(&operands.x), wide(&operands.upstream));
    // `[tap][input of the group][output]`: the innermost loops run over outputs.
    let at = |tap: usize, c: usize, o: usize| (tap * c_group + c) * case.o + o;
    let mut weight = vec![0.0; operands.weight.len()];
    for (i, &value) in operands.weight.iter().enumerate() {
        let (o, c, tap) = (i / taps / c_group, i / taps % c_group, i % taps);
        weight[at(tap, c, o)] = f64::from(value);
    }
    let mut y = vec![0.0; upstream.len()];
    let mut dx = vec![0.0; x.len()];
    let mut by_tap = vec![0.0; weight.len()];
    joined(case, |input, output, tap| {
        for channel in 0..c {
            let first = channel / c_group * o_group;
            let from = at(tap, channel % c_group, first);
            let value = x[input * c + channel];
            let dy = &upstream[output * o + first..][..o_group];
            let y = &mut y[output * o + first..][..o_group];
            let (w, dw) = (&weight[from..][..o_group], &mut by_tap[from..][..o_group]);
            let mut sum = 0.0;
            for i in 0..o_group {
                y[i] += value * w[i];
                dw[i] += value * dy[i];
                sum += w[i] * dy[i];
            }
            dx[input * c + channel] += sum;
        }
    });
    let dw = (0..weight.len())
        .map(|i| by_tap[at(i % taps, i / taps % c_group, i / taps / c_group)])
        .collect();
    Reference { y, dx, dw }
}
