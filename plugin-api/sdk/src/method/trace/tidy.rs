//! A recording becomes a program: what no output needs goes, ids become dense.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::TensorData;
use kd_graph::burn_ir::{
    FloatOperationIr, IrVisitorMut, NumericOperationIr, OperationIr, TensorId, TensorIr,
    TensorStatus,
};
use kd_graph::{Constant, Program};

/// `values` are the tensors that were made of data.
pub(super) fn tidy(
    program: &mut Program,
    values: &BTreeMap<TensorId, TensorData>,
    keeps_draws: bool,
) {
    let live = drop_dead(program, keeps_draws);
    program
        .inputs
        .retain(|input| live.contains(&input.tensor.id));
    for (&id, value) in values.iter().filter(|(id, _)| live.contains(id)) {
        program
            .data
            .resize(program.data.len().next_multiple_of(8), 0);
        program.constants.push(Constant {
            tensor: TensorIr {
                id,
                shape: value.shape().clone(),
                status: TensorStatus::ReadOnly,
                dtype: value.dtype(),
            },
            offset: program.data.len() as u64,
        });
        program.data.extend_from_slice(value.as_bytes());
    }
    renumber(program);
}

/// Removes operations without effect on the outputs; returns every id that is left.
fn drop_dead(program: &mut Program, keeps_draws: bool) -> BTreeSet<TensorId> {
    let mut live: BTreeSet<TensorId> = program.outputs.iter().map(|o| o.tensor.id).collect();
    let mut kept = Vec::with_capacity(program.operations.len());
    let mut forward_len = 0;
    let operations = std::mem::take(&mut program.operations);
    for (index, operation) in operations.into_iter().enumerate().rev() {
        let needed = match &operation {
            // Inputs and constants say the same.
            OperationIr::Init(_) => false,
            draw if keeps_draws && is_draw(draw) => true,
            other => other.outputs().any(|tensor| live.contains(&tensor.id)),
        };
        if needed {
            live.extend(operation.inputs().map(|tensor| tensor.id));
            forward_len += u64::from((index as u64) < program.forward_len);
            kept.push(operation);
        }
    }
    kept.reverse();
    program.operations = kept;
    program.forward_len = forward_len;
    live
}

fn is_draw(operation: &OperationIr) -> bool {
    matches!(
        operation,
        OperationIr::Float(_, FloatOperationIr::Random(_))
            | OperationIr::NumericInt(_, NumericOperationIr::IntRandom(_))
    )
}

/// Ids in order of appearance, so that equal programs have equal bytes.
fn renumber(program: &mut Program) {
    let mut ids = Renumber(BTreeMap::new());
    for input in &mut program.inputs {
        ids.visit_tensor_mut(&mut input.tensor);
    }
    for constant in &mut program.constants {
        ids.visit_tensor_mut(&mut constant.tensor);
    }
    for operation in &mut program.operations {
        operation.visit_mut(&mut ids);
    }
    for output in &mut program.outputs {
        ids.visit_tensor_mut(&mut output.tensor);
    }
}

struct Renumber(BTreeMap<TensorId, TensorId>);

impl IrVisitorMut for Renumber {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        let next = TensorId::new(self.0.len() as u64);
        tensor.id = *self.0.entry(tensor.id).or_insert(next);
        // Lifetimes are the host's to find.
        tensor.status = TensorStatus::ReadOnly;
    }
}
