//! On kernels of this host.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::FloatDType;
use burn_flex::FlexTensor;
use kd_graph::standardize::Norm;

use super::{OwnOps, PackedConv};
use crate::kernels::conv::{Conv, ConvKernels, Window};
use crate::kernels::maps::Segment;
use crate::kernels::standardize;

/// On the CPU backend.
pub(crate) struct Kernels;

fn conv(packed: &PackedConv) -> Conv {
    // Kernels cut work by cells: a level without any is none.
    let levels = packed.sizes.iter().filter(|size| !size.contains(&0));
    Conv {
        window: Window::square(packed.kernel, 1, packed.kernel / 2),
        groups: 1,
        relu: packed.relu,
        input: levels.map(|&[n, h, w]| Segment::new(n, h, w)).collect(),
    }
}

fn zeros<const D: usize>(shape: [usize; D]) -> FlexTensor {
    Flex::float_zeros(shape.into(), &Default::default(), FloatDType::F32)
}

impl OwnOps for Kernels {
    type Backend = Flex;

    fn conv2d(
        packed: &PackedConv,
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
    ) -> FlexTensor {
        let conv = conv(packed);
        if conv.input.is_empty() {
            return zeros([0, weight.shape()[0]]);
        }
        <Flex as ConvKernels>::forward(x, weight, bias, &conv)
    }

    fn conv2d_backward(
        packed: &PackedConv,
        x: FlexTensor,
        weight: FlexTensor,
        y: Option<FlexTensor>,
        dy: FlexTensor,
        [wants_x, wants_weight, wants_bias]: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let conv = conv(packed);
        let shape @ [outputs, inputs, ..]: [usize; 4] = weight.shape().dims();
        if conv.input.is_empty() {
            return [
                wants_x.then(|| zeros([0, inputs])),
                wants_weight.then(|| zeros(shape)),
                wants_bias.then(|| zeros([outputs])),
            ];
        }
        let mut dbias = None;
        let dy = if y.is_some() || wants_bias {
            let [gated, sum] = Flex::epilogue_gradient(dy, y);
            dbias = wants_bias.then_some(sum);
            gated
        } else {
            dy
        };
        let dweight = wants_weight.then(|| Flex::weight_gradient(x, dy.clone(), shape, &conv));
        let dx = wants_x.then(|| Flex::input_gradient(weight, dy, &conv));
        [dx, dweight, dbias]
    }

    fn standardize(norm: &Norm, x: FlexTensor) -> FlexTensor {
        standardize::forward(norm, x)
    }

    fn standardize_backward(norm: &Norm, x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        standardize::backward(norm, x, dy)
    }
}
