//! The operation on tensors of the CPU backend.

use burn::backend::ops::FloatTensorOps as _;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, FloatDType};
use burn_flex::FlexTensor;

use super::{Conv, ConvKernels, algorithm};
use crate::kernels::flex::{contiguous, own_values, owned, tensor, values};
use crate::kernels::maps::{Shared, cells, filled};

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
        let (c, o) = (x.shape()[1], weight.shape()[0]);
        assert_eq!(
            weight.shape()[1] * conv.groups,
            c,
            "weight for other channels"
        );
        assert_eq!(x.shape()[0], cells(&conv.input), "cells of other maps");
        let rows = cells(&conv.output());
        let operands = [&x, &weight, &bias].map(values);
        let write = |y: Shared| {
            let [x, weight, bias] = operands;
            algorithm::forward(conv, [o, c], x, weight, bias, y);
        };
        // SAFETY: every kernel writes every cell and channel of its output.
        let y = unsafe { filled(rows * o, write) };
        as_stored(tensor(y, &[rows, o]), dtype)
    }

    fn input_gradient(weight: FlexTensor, gradient: FlexTensor, conv: &Conv) -> FlexTensor {
        let dtype = gradient.dtype();
        let (weight, gradient) = (in_f32(weight), in_f32(gradient));
        let (c, o) = (weight.shape()[1] * conv.groups, weight.shape()[0]);
        let rows = cells(&conv.input);
        let (weight, dy) = (values(&weight), values(&gradient));
        let write = |dx: Shared| algorithm::input_gradient(conv, [o, c], weight, dy, dx);
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
        let (c, o) = (shape[1] * conv.groups, shape[0]);
        let mut dw = vec![0.0f32; shape.iter().product()];
        algorithm::weight_gradient(conv, [o, c], values(&x), values(&gradient), &mut dw);
        as_stored(tensor(dw, &shape), dtype)
    }

    fn epilogue_gradient(gradient: FlexTensor, y: Option<FlexTensor>) -> [FlexTensor; 2] {
        let dtype = gradient.dtype();
        let (mut gradient, y) = (in_f32(gradient), y.map(in_f32));
        let o = gradient.shape()[1];
        let bias = match y.as_ref().map(values) {
            None => {
                let dy = Shared::reading(values(&gradient));
                algorithm::epilogue_gradient(dy, None, o, None)
            }
            gate => {
                gradient = owned(gradient);
                let own = own_values(&mut gradient).expect("it was made our own");
                let own = Shared::new(own);
                algorithm::epilogue_gradient(own, gate, o, Some(own))
            }
        };
        [
            as_stored(gradient, dtype),
            as_stored(tensor(bias, &[o]), dtype),
        ]
    }
}
