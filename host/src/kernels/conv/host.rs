//! The operation on the CPU backend: which kernel takes which convolution.

use burn::backend::ops::FloatTensorOps as _;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, FloatDType};
use burn_flex::FlexTensor;

use super::direct::{self, Epilogue};
use super::{Conv, ConvKernels, depthwise, narrow, weight_gradient, winograd};
use crate::kernels::flex::{contiguous, own_values, owned, tensor, values};
use crate::kernels::maps::{Channels, Shared, cells, filled};
use crate::kernels::norm::kernel as norm;
use crate::kernels::simd::Level;

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Direct,
    Winograd,
    Depthwise,
}

/// The fastest for the extents; `c` and `o` are all channels.
fn choose(conv: &Conv, c: usize, o: usize) -> Algorithm {
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

/// f32 of any float tensor; half precision is storage alone.
fn in_f32(x: FlexTensor) -> FlexTensor {
    match x.dtype() {
        DType::F32 => contiguous(x),
        _ => contiguous(Flex::float_cast(x, FloatDType::F32)),
    }
}

/// Back to the type that came in.
fn as_stored(y: FlexTensor, dtype: DType) -> FlexTensor {
    match dtype {
        DType::F32 => y,
        other => Flex::float_cast(y, other.into()),
    }
}

impl ConvKernels for Flex {
    fn forward(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, conv: &Conv) -> FlexTensor {
        let dtype = x.dtype();
        let (x, weight, bias) = (in_f32(x), in_f32(weight), in_f32(bias));
        let level = Level::best();
        let (c, o) = (x.shape()[1], weight.shape()[0]);
        assert_eq!(
            weight.shape()[1] * conv.groups,
            c,
            "weight for other channels"
        );
        assert_eq!(x.shape()[0], cells(&conv.input), "cells of other maps");
        let rows = cells(&conv.output());
        let epilogue = Epilogue {
            bias: Some(values(&bias)),
            relu: conv.relu,
        };
        let (input, kernel) = (values(&x), values(&weight));
        let write = |y: Shared| match choose(conv, c, o) {
            Algorithm::Winograd => {
                winograd::convolve(
                    level,
                    &conv.input,
                    input,
                    kernel,
                    [o, c],
                    false,
                    epilogue,
                    y,
                );
            }
            Algorithm::Depthwise => {
                depthwise::forward(level, &conv.window, &conv.input, input, kernel, epilogue, y);
            }
            Algorithm::Direct if conv.groups == 1 && narrow::applies(&conv.window, c) => {
                let (x, y) = ((input, c), (y, o));
                narrow::forward(level, &conv.window, &conv.input, x, kernel, epilogue, y);
            }
            Algorithm::Direct => {
                for group in 0..conv.groups {
                    let from = group_of(c, group, conv.groups);
                    let to = group_of(o, group, conv.groups);
                    let part = kernel.len() / conv.groups;
                    direct::forward(
                        level,
                        &conv.window,
                        &conv.input,
                        (input, from),
                        &kernel[group * part..][..part],
                        Epilogue {
                            bias: epilogue.bias.map(|b| &b[to.offset..][..to.channels]),
                            relu: conv.relu,
                        },
                        (y, to),
                    );
                }
            }
        };
        // SAFETY: every kernel writes every cell and channel of its output.
        let y = unsafe { filled(rows * o, write) };
        as_stored(tensor(y, &[rows, o]), dtype)
    }

    fn input_gradient(weight: FlexTensor, gradient: FlexTensor, conv: &Conv) -> FlexTensor {
        let dtype = gradient.dtype();
        let (weight, gradient) = (in_f32(weight), in_f32(gradient));
        let level = Level::best();
        let (c, o) = (weight.shape()[1] * conv.groups, weight.shape()[0]);
        let rows = cells(&conv.input);
        let (dy, kernel) = (values(&gradient), values(&weight));
        let write = |dx: Shared| match choose(conv, c, o) {
            Algorithm::Winograd => {
                let none = Epilogue::NONE;
                winograd::convolve(level, &conv.input, dy, kernel, [o, c], true, none, dx);
            }
            Algorithm::Depthwise => {
                depthwise::input_gradient(level, &conv.window, &conv.input, dy, kernel, dx);
            }
            Algorithm::Direct => {
                for group in 0..conv.groups {
                    let from = group_of(o, group, conv.groups);
                    let to = group_of(c, group, conv.groups);
                    let part = kernel.len() / conv.groups;
                    direct::input_gradient(
                        level,
                        &conv.window,
                        &conv.input,
                        (dy, from),
                        &kernel[group * part..][..part],
                        (dx, to),
                    );
                }
            }
        };
        // SAFETY: every kernel writes every cell and channel of its output.
        let dx = unsafe { filled(rows * c, write) };
        as_stored(tensor(dx, &[rows, c]), dtype)
    }

    fn weight_gradient(
        x: FlexTensor,
        gradient: FlexTensor,
        shape: [usize; 4],
        conv: &Conv,
    ) -> FlexTensor {
        let dtype = x.dtype();
        let (x, gradient) = (in_f32(x), in_f32(gradient));
        let level = Level::best();
        let (c, o) = (shape[1] * conv.groups, shape[0]);
        let (input, dy) = (values(&x), values(&gradient));
        let mut dw = vec![0.0f32; shape.iter().product()];
        let algorithm = match choose(conv, c, o) {
            Algorithm::Winograd
                if !winograd::applies_to_weight(&conv.window, &conv.input, c, o) =>
            {
                Algorithm::Direct
            }
            other => other,
        };
        match algorithm {
            Algorithm::Winograd => {
                winograd::weight_gradient(level, &conv.input, input, dy, [o, c], &mut dw);
            }
            Algorithm::Depthwise => {
                let window = &conv.window;
                depthwise::weight_gradient(level, window, &conv.input, [input, dy], c, &mut dw);
            }
            Algorithm::Direct => {
                let part = dw.len() / conv.groups;
                for (group, dw) in dw.chunks_exact_mut(part).enumerate() {
                    let (from, to) = (
                        group_of(c, group, conv.groups),
                        group_of(o, group, conv.groups),
                    );
                    let (x, dy) = ((input, from), (dy, to));
                    weight_gradient::weight_gradient(level, &conv.window, &conv.input, x, dy, dw);
                }
            }
        }
        as_stored(tensor(dw, &shape), dtype)
    }

    fn epilogue_gradient(gradient: FlexTensor, y: Option<FlexTensor>) -> [FlexTensor; 2] {
        let dtype = gradient.dtype();
        let (mut gradient, y) = (in_f32(gradient), y.map(in_f32));
        let channels = gradient.shape()[1];
        let level = Level::best();
        let sums = match y.as_ref().map(values) {
            None => {
                let dy = Shared::reading(values(&gradient));
                norm::gradient_sums(level, dy, None, None, channels, None)
            }
            gate => {
                gradient = owned(gradient);
                let own = own_values(&mut gradient).expect("it was made our own");
                let own = Shared::new(own);
                norm::gradient_sums(level, own, gate, None, channels, Some(own))
            }
        };
        let bias = sums.g.iter().map(|&g| g as f32).collect();
        [
            as_stored(gradient, dtype),
            as_stored(tensor(bias, &[channels]), dtype),
        ]
    }
}
