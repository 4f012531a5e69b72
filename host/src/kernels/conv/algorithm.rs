//! Which kernel takes which convolution, on values that lie next to each other.
//!
//! `[o, c]` are all output and input channels, in every group. Outputs are overwritten.

use super::direct::{self, Epilogue};
use super::{Conv, depthwise, narrow, weight_gradient as direct_weight, winograd};
use crate::kernels::maps::{Channels, Shared, cells};
use crate::kernels::norm::kernel as norm;
use crate::kernels::simd::Level;

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Direct,
    Winograd,
    Depthwise,
}

/// The fastest for the extents.
fn choose(conv: &Conv, [o, c]: [usize; 2]) -> Algorithm {
    if conv.groups == 1 {
        if winograd::applies(&conv.window, &conv.input, c, o) {
            Algorithm::Winograd
        } else {
            Algorithm::Direct
        }
    } else if conv.groups == c && c == o {
        Algorithm::Depthwise
    } else {
        Algorithm::Direct
    }
}

/// The channels of group `group` of `groups`.
fn group_of(channels: usize, group: usize, groups: usize) -> Channels {
    let each = channels / groups;
    Channels {
        pitch: channels,
        offset: group * each,
        channels: each,
    }
}

/// `y = relu?(x ⋆ weight + bias)`; `y` may be memory that was never written.
///
/// # Panics
/// If `y` has another size.
pub(crate) fn forward(
    conv: &Conv,
    [o, c]: [usize; 2],
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    y: Shared,
) {
    assert_eq!(y.len(), cells(&conv.output()) * o, "output of another size");
    let (level, input) = (Level::best(), &conv.input);
    let epilogue = Epilogue {
        bias: Some(bias),
        relu: conv.relu,
    };
    match choose(conv, [o, c]) {
        Algorithm::Winograd => {
            winograd::convolve(level, input, x, weight, [o, c], false, epilogue, y);
        }
        Algorithm::Depthwise => {
            depthwise::forward(level, &conv.window, input, x, weight, epilogue, y);
        }
        Algorithm::Direct if conv.groups == 1 && narrow::applies(&conv.window, c) => {
            let (x, y) = ((x, c), (y, o));
            narrow::forward(level, &conv.window, input, x, weight, epilogue, y);
        }
        Algorithm::Direct => {
            for group in 0..conv.groups {
                let from = group_of(c, group, conv.groups);
                let to = group_of(o, group, conv.groups);
                let part = weight.len() / conv.groups;
                direct::forward(
                    level,
                    &conv.window,
                    input,
                    (x, from),
                    &weight[group * part..][..part],
                    Epilogue {
                        bias: epilogue.bias.map(|b| &b[to.offset..][..to.channels]),
                        relu: conv.relu,
                    },
                    (y, to),
                );
            }
        }
    }
}

/// `dx`, which may be memory that was never written.
///
/// # Panics
/// If `dx` has another size.
pub(crate) fn input_gradient(
    conv: &Conv,
    [o, c]: [usize; 2],
    weight: &[f32],
    dy: &[f32],
    dx: Shared,
) {
    assert_eq!(dx.len(), cells(&conv.input) * c, "gradient of another size");
    let (level, input) = (Level::best(), &conv.input);
    match choose(conv, [o, c]) {
        Algorithm::Winograd => {
            winograd::convolve(level, input, dy, weight, [o, c], true, Epilogue::NONE, dx);
        }
        Algorithm::Depthwise => {
            depthwise::input_gradient(level, &conv.window, input, dy, weight, dx);
        }
        Algorithm::Direct => {
            for group in 0..conv.groups {
                let from = group_of(o, group, conv.groups);
                let to = group_of(c, group, conv.groups);
                let part = weight.len() / conv.groups;
                direct::input_gradient(
                    level,
                    &conv.window,
                    input,
                    (dy, from),
                    &weight[group * part..][..part],
                    (dx, to),
                );
            }
        }
    }
}

/// `dw` `[o, c / groups, kh, kw]`.
pub(crate) fn weight_gradient(
    conv: &Conv,
    [o, c]: [usize; 2],
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let (level, window, input) = (Level::best(), &conv.window, &conv.input);
    let algorithm = match choose(conv, [o, c]) {
        Algorithm::Winograd if !winograd::applies_to_weight(window, input, c, o) => {
            Algorithm::Direct
        }
        other => other,
    };
    match algorithm {
        Algorithm::Winograd => winograd::weight_gradient(level, input, x, dy, [o, c], dw),
        Algorithm::Depthwise => {
            depthwise::weight_gradient(level, window, input, [x, dy], c, dw);
        }
        Algorithm::Direct => {
            let part = dw.len() / conv.groups;
            for (group, dw) in dw.chunks_exact_mut(part).enumerate() {
                let from = group_of(c, group, conv.groups);
                let to = group_of(o, group, conv.groups);
                direct_weight::weight_gradient(level, window, input, (x, from), (dy, to), dw);
            }
        }
    }
}

/// The gradient at the bias: the sum over the cells of `dy`, unless the output `y` is at most 0.
///
/// With `write`, the terms of the sum are written there; it may be `dy`'s own memory.
pub(crate) fn epilogue_gradient(
    dy: Shared,
    y: Option<&[f32]>,
    o: usize,
    write: Option<Shared>,
) -> Vec<f32> {
    let sums = norm::gradient_sums(Level::best(), dy, y.map(norm::Gate::relu), None, o, write);
    sums.g.iter().map(|&g| g as f32).collect()
}
