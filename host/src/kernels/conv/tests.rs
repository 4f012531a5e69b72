//! Convolutions: against Burn's own and f64, by finite differences, on any number of threads.

mod epilogue;
mod gradients;
mod levels;
mod reference;
mod shapes;
mod threads;

use burn::tensor::Tensor;

use super::*;
use crate::kernels::maps::cells;
use crate::kernels::testing::{leaf, normal, tensor, values};

/// A convolution and its channels.
#[derive(Clone, Debug)]
struct Case {
    conv: Conv,
    /// Of the input.
    c: usize,
    /// Of the output.
    o: usize,
}

impl Case {
    fn new(sizes: &[[usize; 3]], [c, o]: [usize; 2], window: Window, groups: usize) -> Self {
        let input = sizes.iter().map(|&[n, h, w]| Segment::new(n, h, w));
        Case {
            conv: Conv {
                window,
                groups,
                relu: false,
                input: input.collect(),
            },
            c,
            o,
        }
    }

    fn input_shape(&self) -> [usize; 2] {
        [cells(&self.conv.input), self.c]
    }

    fn output_shape(&self) -> [usize; 2] {
        [cells(&self.conv.output()), self.o]
    }

    fn weight_shape(&self) -> [usize; 4] {
        let [kh, kw] = self.conv.window.kernel;
        [self.o, self.c / self.conv.groups, kh, kw]
    }

    /// Whether Winograd's algorithm takes it.
    fn is_winograd(&self) -> bool {
        let conv = &self.conv;
        conv.groups == 1 && winograd::applies(&conv.window, &conv.input, self.c, self.o)
    }

    /// Random operands of these extents.
    fn operands(&self) -> Operands {
        Operands {
            x: normal("x", self.input_shape().iter().product()),
            weight: normal("weight", self.weight_shape().iter().product()),
            bias: normal("bias", self.o),
            // Not about 0, so that its sum over the cells is no cancellation.
            upstream: normal("upstream", self.output_shape().iter().product())
                .into_iter()
                .map(|g| g + 1.0)
                .collect(),
        }
    }
}

/// Values in the order of the kernels: maps channels last and packed.
#[derive(Clone, Debug)]
struct Operands {
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// Gradient at the output.
    upstream: Vec<f32>,
}

/// What a convolution gives, through the tape.
struct Results {
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    db: Vec<f32>,
}

/// Runs `case` on the tape; `bias` only where asked for, else its gradient is empty.
fn on_the_tape(case: &Case, operands: &Operands, bias: bool) -> Results {
    let x = leaf(&operands.x, case.input_shape());
    let weight = leaf(&operands.weight, case.weight_shape());
    let bias = bias.then(|| leaf(&operands.bias, [case.o]));
    let y = conv2d(x.clone(), weight.clone(), bias.clone(), case.conv.clone());
    let upstream = tensor(&operands.upstream, y.dims(), &y.device().inner());
    let gradients = (y.clone() * upstream).sum().backward();
    Results {
        y: values(y),
        dx: values(x.grad(&gradients).unwrap()),
        dw: values(weight.grad(&gradients).unwrap()),
        db: bias.map_or_else(Vec::new, |bias| values(bias.grad(&gradients).unwrap())),
    }
}

/// The convolution outside the tape.
fn plain(case: &Case, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let device = burn::tensor::Device::flex();
    let x: Tensor<2> = tensor(x, case.input_shape(), &device);
    let weight = tensor(weight, case.weight_shape(), &device);
    let bias = tensor(bias, [case.o], &device);
    values(conv2d(x, weight, Some(bias), case.conv.clone()))
}
