//! When each tensor of a program dies.

use std::collections::{BTreeMap, BTreeSet};

use burn_ir::{IrVisitorMut, OperationIr, TensorId, TensorIr, TensorStatus};

use crate::{Output, Place, Program};

/// Operations in two parts whose statuses are exact: the last use of a tensor may consume it, and what
/// dies without being consumed is dropped at once.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) parts: [Vec<OperationIr>; 2],
    /// What each part ends with; the status of the last taking of a tensor is `ReadWrite`.
    pub(crate) outputs: [Vec<Output>; 2],
}

/// When something happens: an operation by its index, or the end of a part after its operations.
type Time = usize;

impl Schedule {
    /// Of a program whose ids and order were checked.
    pub(crate) fn new(program: &Program) -> Self {
        let forward = program.forward_len as usize;
        // One moment is put between the parts and one after both: the taking of outputs.
        let time = |index: usize| index + usize::from(index >= forward);
        let ends: [Time; 2] = [forward, program.operations.len() + 1];
        let mut outputs = [Vec::new(), Vec::new()];
        for output in &program.outputs {
            outputs[part_of(&output.place)].push(output.clone());
        }
        let mut last: BTreeMap<TensorId, Time> = BTreeMap::new();
        for (index, operation) in program.operations.iter().enumerate() {
            for tensor in operation.inputs().chain(operation.outputs()) {
                last.insert(tensor.id, time(index));
            }
        }
        for (outputs, &end) in outputs.iter().zip(&ends) {
            for output in outputs {
                let at = last.entry(output.tensor.id).or_insert(end);
                *at = (*at).max(end);
            }
        }

        let mut parts = [Vec::new(), Vec::new()];
        for (index, operation) in program.operations.iter().enumerate() {
            let part = &mut parts[usize::from(index >= forward)];
            push(part, operation.clone(), time(index), &last);
        }
        for (outputs, &end) in outputs.iter_mut().zip(&ends) {
            let mut seen = BTreeSet::new();
            // From the last: its taking ends the tensor.
            for output in outputs.iter_mut().rev() {
                let ends = seen.insert(output.tensor.id) && last[&output.tensor.id] == end;
                output.tensor.status = status(ends);
            }
        }
        Schedule { parts, outputs }
    }
}

/// The part after which a result is there.
fn part_of(place: &Place) -> usize {
    usize::from(matches!(place, Place::DTap(_) | Place::DParam(_)))
}

fn push(
    part: &mut Vec<OperationIr>,
    mut operation: OperationIr,
    now: Time,
    last: &BTreeMap<TensorId, Time>,
) {
    let mut uses: BTreeMap<TensorId, usize> = BTreeMap::new();
    for tensor in operation.inputs() {
        *uses.entry(tensor.id).or_default() += 1;
    }
    let dies = |tensor: &TensorIr| last[&tensor.id] == now;
    // An operation that reads a tensor twice must not consume it at the first reading.
    let consumed: BTreeSet<TensorId> = operation
        .inputs()
        .filter(|tensor| dies(tensor) && uses[&tensor.id] == 1)
        .map(|tensor| tensor.id)
        .collect();
    let mut dropped: Vec<TensorIr> = Vec::new();
    for tensor in operation.inputs().chain(operation.outputs()) {
        let stays = !dies(tensor) || consumed.contains(&tensor.id);
        if !stays && dropped.iter().all(|known| known.id != tensor.id) {
            dropped.push(tensor.clone());
        }
    }
    let written: BTreeSet<TensorId> = operation.outputs().map(|tensor| tensor.id).collect();
    operation.visit_mut(&mut Statuses {
        consumed: &consumed,
        written: &written,
    });
    part.push(operation);
    for mut tensor in dropped {
        tensor.status = TensorStatus::ReadWrite;
        part.push(OperationIr::Drop(tensor));
    }
}

struct Statuses<'a> {
    consumed: &'a BTreeSet<TensorId>,
    written: &'a BTreeSet<TensorId>,
}

impl IrVisitorMut for Statuses<'_> {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        tensor.status = if self.written.contains(&tensor.id) {
            TensorStatus::NotInit
        } else {
            status(self.consumed.contains(&tensor.id))
        };
    }
}

fn status(ends: bool) -> TensorStatus {
    if ends {
        TensorStatus::ReadWrite
    } else {
        TensorStatus::ReadOnly
    }
}
