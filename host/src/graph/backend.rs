//! Backends that programs run on, and the operations that this host computes with kernels of its own.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn_router::TensorInterpreter;
use kd_graph::burn_ir::{BackendIr, CustomOpIr, HandleKind, OperationIr};

use super::hot_ops;
use super::own_ops::{self, Kernels, OwnOps};

/// A backend for programs.
pub(super) trait GraphBackend: BackendIr {
    /// Whether programs run on a thread of the kernels' pool; a GPU keeps a queue for each thread.
    const ON_POOL: bool;

    /// Computes an operation that the backend does not know, or that this host computes faster; false
    /// if the backend shall.
    fn take(operation: &OperationIr, interpreter: &mut TensorInterpreter<Self>) -> bool;
}

impl GraphBackend for Flex {
    const ON_POOL: bool = true;

    fn take(operation: &OperationIr, interpreter: &mut TensorInterpreter<Self>) -> bool {
        match operation {
            OperationIr::Custom(custom) => {
                own::<Kernels>(custom, interpreter);
                true
            }
            other => hot_ops::take(other, interpreter),
        }
    }
}

#[cfg(feature = "cuda")]
impl GraphBackend for burn::backend::Cube {
    const ON_POOL: bool = false;

    fn take(operation: &OperationIr, interpreter: &mut TensorInterpreter<Self>) -> bool {
        match operation {
            OperationIr::Custom(custom) => {
                own::<own_ops::Composed<Self>>(custom, interpreter);
                true
            }
            _ => false,
        }
    }
}

/// Runs an operation of the format.
fn own<O: OwnOps<Backend: BackendIr>>(
    custom: &CustomOpIr,
    interpreter: &mut TensorInterpreter<O::Backend>,
) {
    let inputs: Vec<FloatTensor<O::Backend>> = (custom.inputs.iter())
        .map(|input| match interpreter.get_tensor(input) {
            HandleKind::Float(tensor) => tensor,
            other => unreachable!("a checked program gives floats, not {}", other.name()),
        })
        .collect();
    let results = own_ops::run::<O>(custom, inputs);
    for (output, result) in custom.outputs.iter().zip(results) {
        interpreter.register_tensor_to_device(output.id, HandleKind::Float(result));
    }
}
