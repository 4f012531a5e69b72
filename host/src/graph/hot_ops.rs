//! Burn's own operations that this host computes faster: 2-d convolution and its gradients.
//!
//! Maps are `[N, C, H, W]`; the kernels want channels last. A view costs nothing where the map came from
//! the models, whose memory is channels last.

use burn::backend::ops::FloatTensorOps as _;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, FloatDType, Shape};
use burn_flex::FlexTensor;
use burn_router::TensorInterpreter;
use kd_graph::burn_ir::{Conv2dOptionsIr, HandleKind, ModuleOperationIr, OperationIr, TensorIr};

use crate::kernels::conv::{Conv, ConvKernels, Window};
use crate::kernels::maps::Segment;

type Interpreter = TensorInterpreter<Flex>;

/// Computes the operation if it is one of these and the kernels take it.
pub(super) fn take(operation: &OperationIr, interpreter: &mut Interpreter) -> bool {
    let OperationIr::Module(operation) = operation else {
        return false;
    };
    match operation {
        ModuleOperationIr::Conv2d(desc) => {
            let Some(conv) = applicable(&desc.options, &desc.x, &desc.weight) else {
                return false;
            };
            let (x, weight) = (read(interpreter, &desc.x), read(interpreter, &desc.weight));
            let bias = match &desc.bias {
                Some(bias) => read(interpreter, bias),
                None => zeros(&[desc.weight.shape[0]]),
            };
            let y = <Flex as ConvKernels>::forward(cells(x), weight, bias, &conv);
            write(interpreter, &desc.out, maps(y, &desc.out.shape));
        }
        ModuleOperationIr::Conv2dXBackward(desc) => {
            let Some(conv) = applicable(&desc.options, &desc.x, &desc.weight) else {
                return false;
            };
            // Read for its status alone: its last use may end it.
            drop(read(interpreter, &desc.x));
            let weight = read(interpreter, &desc.weight);
            let dy = cells(read(interpreter, &desc.output_grad));
            let dx = Flex::input_gradient(weight, dy, &conv);
            write(interpreter, &desc.out, maps(dx, &desc.out.shape));
        }
        ModuleOperationIr::Conv2dWeightBackward(desc) => {
            let Some(conv) = applicable(&desc.options, &desc.x, &desc.weight) else {
                return false;
            };
            let x = cells(read(interpreter, &desc.x));
            drop(read(interpreter, &desc.weight));
            let dy = cells(read(interpreter, &desc.output_grad));
            let dw = Flex::weight_gradient(x, dy, desc.weight.shape.dims(), &conv);
            write(interpreter, &desc.out, dw);
        }
        _ => return false,
    }
    true
}

/// The convolution, if the kernels know its kind: f32, padded alike on both sides, nothing empty.
fn applicable(options: &Conv2dOptionsIr, x: &TensorIr, weight: &TensorIr) -> Option<Conv> {
    let alike = options
        .padding
        .iter()
        .all(|(before, after)| before == after);
    let is_f32 = [x.dtype, weight.dtype] == [DType::F32; 2];
    let is_empty = x.shape.num_elements() == 0 || weight.shape.num_elements() == 0;
    if !alike || !is_f32 || is_empty {
        return None;
    }
    let ([n, _, h, w], [_, _, kh, kw]) = (x.shape.dims(), weight.shape.dims());
    Some(Conv {
        window: Window {
            kernel: [kh, kw],
            stride: options.stride,
            padding: options.padding.map(|(before, _)| before),
            dilation: options.dilation,
        },
        groups: options.groups,
        relu: false,
        input: [Segment::new(n, h, w)].into(),
    })
}

fn read(interpreter: &mut Interpreter, tensor: &TensorIr) -> FlexTensor {
    match interpreter.get_tensor(tensor) {
        HandleKind::Float(tensor) => tensor,
        other => unreachable!("a checked program gives floats, not {}", other.name()),
    }
}

fn write(interpreter: &mut Interpreter, to: &TensorIr, tensor: FlexTensor) {
    interpreter.register_tensor_to_device(to.id, HandleKind::Float(tensor));
}

fn zeros(shape: &[usize]) -> FlexTensor {
    Flex::float_zeros(shape.to_vec().into(), &Default::default(), FloatDType::F32)
}

/// `[N, C, H, W]` as `[cells, C]`.
fn cells(maps: FlexTensor) -> FlexTensor {
    let [n, c, h, w] = maps.shape().dims();
    let last = Flex::float_permute(maps, &[0, 2, 3, 1]);
    Flex::float_reshape(last, Shape::from([n * h * w, c]))
}

/// `[cells, C]` as maps of `shape`.
fn maps(cells: FlexTensor, shape: &Shape) -> FlexTensor {
    let [n, c, h, w] = shape.dims();
    let last = Flex::float_reshape(cells, Shape::from([n, h, w, c]));
    Flex::float_permute(last, &[0, 3, 1, 2])
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use kd_graph::burn_ir::{
        Conv2dOpIr, Conv2dWeightBackwardOpIr, Conv2dXBackwardOpIr, TensorId, TensorStatus,
    };

    use super::*;
    use crate::kernels::testing::{check, error, normal};

    /// f32 in another order of sums; Winograd's transforms add a few roundings.
    const TOLERANCE: f64 = 5e-6;

    fn ir(id: u64, shape: &[usize]) -> TensorIr {
        TensorIr {
            id: TensorId::new(id),
            shape: shape.to_vec().into(),
            status: TensorStatus::ReadOnly,
            dtype: DType::F32,
        }
    }

    fn random(shape: &[usize], seed: u64) -> FlexTensor {
        let values = normal(&format!("hot ops {seed}"), shape.iter().product());
        Flex::float_from_data(TensorData::new(values, shape.to_vec()), &Default::default())
    }

    fn values(tensor: FlexTensor) -> Vec<f32> {
        tensor.to_contiguous().as_slice().unwrap().to_vec()
    }

    #[test]
    fn convolutions_agree_with_burns() {
        // Channels in and out, groups, kernel, stride, padding, dilation.
        for (c, o, groups, k, stride, padding, dilation) in [
            (16, 16, 1, 3, 1, 1, 1),
            (3, 8, 1, 7, 2, 3, 1),
            (8, 4, 1, 1, 1, 0, 1),
            (6, 6, 6, 3, 1, 1, 1),
            (4, 8, 2, 3, 2, 1, 1),
            (5, 7, 1, 3, 1, 2, 2),
        ] {
            let (h, w) = (13, 10);
            let out =
                |extent: usize| (extent + 2 * padding - (dilation * (k - 1) + 1)) / stride + 1;
            let x = ir(1, &[2, c, h, w]);
            let weight = ir(2, &[o, c / groups, k, k]);
            let bias = ir(3, &[o]);
            let dy = ir(4, &[2, o, out(h), out(w)]);
            let options = Conv2dOptionsIr {
                stride: [stride; 2],
                padding: [(padding, padding); 2],
                dilation: [dilation; 2],
                groups,
            };
            let operations = [
                ModuleOperationIr::Conv2d(Conv2dOpIr {
                    x: x.clone(),
                    weight: weight.clone(),
                    bias: Some(bias.clone()),
                    options: options.clone(),
                    out: ir(9, &[2, o, out(h), out(w)]),
                }),
                ModuleOperationIr::Conv2dXBackward(Conv2dXBackwardOpIr {
                    x: x.clone(),
                    weight: weight.clone(),
                    output_grad: dy.clone(),
                    options: options.clone(),
                    out: ir(9, &[2, c, h, w]),
                }),
                ModuleOperationIr::Conv2dWeightBackward(Conv2dWeightBackwardOpIr {
                    x: x.clone(),
                    weight: weight.clone(),
                    output_grad: dy.clone(),
                    options,
                    out: ir(9, &[o, c / groups, k, k]),
                }),
            ];
            for (index, operation) in operations.into_iter().enumerate() {
                let operation = OperationIr::Module(operation);
                let result = |ours: bool| {
                    let mut interpreter = Interpreter::new(Default::default());
                    for tensor in [&x, &weight, &bias, &dy] {
                        let seed = tensor.id.value();
                        let filled = random(&tensor.shape, seed);
                        interpreter.register_tensor_to_device(tensor.id, HandleKind::Float(filled));
                    }
                    match ours {
                        true => assert!(take(&operation, &mut interpreter), "not taken"),
                        false => interpreter.register_op(operation.clone()),
                    }
                    let out = operation.outputs().next().unwrap();
                    let out = TensorIr {
                        status: TensorStatus::ReadOnly,
                        ..out.clone()
                    };
                    values(read(&mut interpreter, &out))
                };
                let (ours, burns) = (result(true), result(false));
                let error = error(&ours, &burns);
                check(
                    format_args!("{c}->{o} {k}x{k} part {index}"),
                    error,
                    TOLERANCE,
                );
            }
        }
    }

    #[test]
    fn what_the_kernels_do_not_know_is_left_to_burn() {
        let options = Conv2dOptionsIr {
            stride: [1, 1],
            padding: [(0, 1), (1, 1)],
            dilation: [1, 1],
            groups: 1,
        };
        assert!(applicable(&options, &ir(1, &[1, 2, 4, 4]), &ir(2, &[2, 2, 3, 3])).is_none());
    }
}
