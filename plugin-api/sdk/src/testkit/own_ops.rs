//! Operations of [`kd_graph::ops`] on the CPU backend: what every host must agree with.

use burn::backend::Flex;
use burn_flex::FlexTensor;
use burn_router::TensorInterpreter;
use kd_graph::burn_ir::{CustomOpIr, HandleKind, OperationIr, TensorIr};
use kd_graph::ops::{CONV2D, CONV2D_BACKWARD, Packing, STANDARDIZE, STANDARDIZE_BACKWARD};
use kd_graph::standardize::{Norm, Scope};

use super::conv::Conv;
use crate::method::flex::{contiguous, tensor, values};

type Interpreter = TensorInterpreter<Flex>;

/// Takes operations of our own, and no other.
pub(super) fn take(operation: &OperationIr, interpreter: &mut Interpreter) -> bool {
    let OperationIr::Custom(custom) = operation else {
        return false;
    };
    let inputs: Vec<FlexTensor> = (custom.inputs.iter())
        .map(|input| read(interpreter, input))
        .collect();
    let inputs: Vec<&[f32]> = inputs.iter().map(values).collect();
    let results = match custom.id.as_str() {
        CONV2D => {
            let packing = packing::<1>(custom);
            let conv = conv(custom, packing.sizes, packing.options[0]);
            vec![conv.forward(inputs[0], inputs[1], inputs[2])]
        }
        CONV2D_BACKWARD => {
            let packing = packing::<2>(custom);
            let [relu, wanted] = packing.options;
            let conv = conv(custom, packing.sizes, relu);
            let y = (relu != 0).then(|| inputs[2]);
            let dy = inputs[inputs.len() - 1];
            let all = conv.backward(inputs[0], inputs[1], y, dy);
            let is_wanted = |bit: &usize| wanted & (1 << bit) != 0;
            let all = all
                .into_iter()
                .enumerate()
                .filter(|(bit, _)| is_wanted(bit));
            all.map(|(_, gradient)| gradient).collect()
        }
        STANDARDIZE => vec![norm(custom).forward(inputs[0], channels(custom))],
        STANDARDIZE_BACKWARD => {
            vec![norm(custom).backward(inputs[0], inputs[1], channels(custom))]
        }
        other => panic!("`{other}` is no operation of this format"),
    };
    for (output, result) in custom.outputs.iter().zip(results) {
        let result = tensor(result, &output.shape);
        interpreter.register_tensor_to_device(output.id, HandleKind::Float(result));
    }
    true
}

fn read(interpreter: &mut Interpreter, input: &TensorIr) -> FlexTensor {
    match interpreter.get_tensor(input) {
        HandleKind::Float(tensor) => contiguous(tensor),
        other => panic!("{} tensor, floats are read", other.name()),
    }
}

fn packing<const N: usize>(custom: &CustomOpIr) -> Packing<N> {
    Packing::from_scalars(&custom.scalars).expect("the scalars of this operation")
}

fn conv(custom: &CustomOpIr, sizes: Vec<[usize; 3]>, relu: i64) -> Conv {
    let [c_out, c_in, kernel, _] = custom.inputs[1].shape.dims();
    Conv {
        sizes,
        c_in,
        c_out,
        kernel,
        relu: relu != 0,
    }
}

fn norm(custom: &CustomOpIr) -> Norm {
    let packing = packing::<2>(custom);
    let [scope, relu] = packing.options;
    Norm {
        sizes: packing.sizes,
        scope: Scope::from_scalar(scope).expect("a known scope"),
        relu: relu != 0,
    }
}

fn channels(custom: &CustomOpIr) -> usize {
    custom.inputs[0].shape[1]
}
