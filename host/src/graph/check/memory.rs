//! How many bytes live at once.

use std::collections::BTreeMap;

use kd_graph::Program;
use kd_graph::burn_ir::{TensorId, TensorIr};

use super::rule::elements;
use super::{Limits, ProgramError};

/// Whether the tensors that live at each operation are within the limit.
///
/// Inputs and constants live throughout, which the host's bindings do; results live from the operation
/// that makes them to the last that reads them, outputs of the program to its end. The program has
/// passed all other checks.
pub(super) fn check(
    program: &Program,
    forward_len: usize,
    limits: &Limits,
) -> Result<(), ProgramError> {
    let end = program.operations.len();
    let mut last_use: BTreeMap<TensorId, usize> = BTreeMap::new();
    for (index, op) in program.operations.iter().enumerate() {
        for tensor in op.outputs().chain(op.inputs()) {
            last_use.insert(tensor.id, index);
        }
    }
    for output in &program.outputs {
        last_use.insert(output.tensor.id, end);
    }

    let bound = (program.inputs.iter().map(|input| &input.tensor))
        .chain(program.constants.iter().map(|constant| &constant.tensor));
    let mut ends: BTreeMap<usize, u64> = BTreeMap::new();
    let mut live = 0u64;
    for tensor in bound {
        live = live.saturating_add(bytes(tensor));
    }
    for (index, op) in program.operations.iter().enumerate() {
        for tensor in op.outputs() {
            let size = bytes(tensor);
            live = live.saturating_add(size);
            let at = last_use.get(&tensor.id).copied().unwrap_or(index);
            let ending = ends.entry(at).or_default();
            *ending = ending.saturating_add(size);
        }
        if live > limits.live_bytes {
            return Err(ProgramError::Memory {
                index,
                found: live,
                limit: limits.live_bytes,
            });
        }
        live = live.saturating_sub(ends.remove(&index).unwrap_or(0));
    }
    if live > limits.live_bytes {
        return Err(ProgramError::Memory {
            index: forward_len,
            found: live,
            limit: limits.live_bytes,
        });
    }
    Ok(())
}

fn bytes(tensor: &TensorIr) -> u64 {
    let count = elements(&tensor.shape).unwrap_or(usize::MAX);
    (count as u64).saturating_mul(tensor.dtype.size() as u64)
}
