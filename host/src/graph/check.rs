//! Whether a program is sound: everything that can be known before it runs.
//!
//! A program that passes reads nothing before it is written, writes nothing twice, agrees with the host
//! on every tensor that crosses, stays within [`Limits`], and holds only operations whose results are
//! exactly what they declare. Operations are a whitelist: what has no rule is refused by its name.
//!
//! # What is left to the execution
//! Values are not known here. On the CPU an index out of range (`Select`, `Gather`, `Scatter`,
//! `Embedding`, the indices of a pooling's backward), a division of integers by zero and the quotient of
//! the smallest integer and -1 panic, and whoever executes a program catches that. On a GPU the same
//! indices are not checked by every kernel. Workspaces that a kernel takes beside its result are bounded
//! one by one (padded inputs, columns of a convolution), but are not part of the peak of live bytes.

mod activation;
mod base;
mod conv;
mod custom;
mod error;
mod float;
mod int;
mod interface;
mod limits;
mod memory;
mod module;
mod name;
mod numeric;
mod operation;
mod pool;
mod rule;
mod spatial;
mod tensors;
#[cfg(test)]
mod tests;

pub use error::{Fault, ProgramError};
pub use interface::{Interface, Role};
pub use limits::Limits;
pub use name::op_name;

use kd_graph::{Place, Program, Slot};

use tensors::Tensors;

/// Whether the host may run `program` between what it binds and what it takes.
///
/// Its cost is linear in the program; it allocates for what the program holds, not for what it claims.
///
/// # Errors
/// On the first thing that is wrong, in the order of execution.
pub fn check(
    program: &Program,
    interface: &Interface<'_>,
    limits: &Limits,
) -> Result<(), ProgramError> {
    let forward_len = forward_len(program, interface, limits)?;
    let mut tensors = Tensors::new(limits);

    interface.check_slots(program)?;
    for input in program.inputs.iter().filter(|input| !is_late(input.slot)) {
        tensors.write(&input.tensor, || format!("input {:?}", input.slot))?;
    }
    for (index, constant) in program.constants.iter().enumerate() {
        tensors.write(&constant.tensor, || format!("constant {index}"))?;
        tensors::check_constant(index, constant, &program.data)?;
    }

    interface.check_places(program)?;
    let (forward, backward) = program.operations.split_at(forward_len);
    for (index, op) in forward.iter().enumerate() {
        operation::check(index, op, &mut tensors, limits)?;
    }
    for output in program.outputs.iter().filter(|o| is_first(&o.place)) {
        tensors.read(&output.tensor, || format!("output {:?}", output.place))?;
    }
    for input in program.inputs.iter().filter(|input| is_late(input.slot)) {
        tensors.write(&input.tensor, || format!("input {:?}", input.slot))?;
    }
    for (index, op) in backward.iter().enumerate() {
        operation::check(forward_len + index, op, &mut tensors, limits)?;
    }
    for output in program.outputs.iter().filter(|o| !is_first(&o.place)) {
        tensors.read(&output.tensor, || format!("output {:?}", output.place))?;
    }

    memory::check(program, forward_len, limits)
}

/// Lengths of the lists, and where the second part starts.
fn forward_len(
    program: &Program,
    interface: &Interface<'_>,
    limits: &Limits,
) -> Result<usize, ProgramError> {
    let total = program.operations.len();
    let lists = [
        ("operations", total),
        ("inputs", program.inputs.len()),
        ("constants", program.constants.len()),
        ("outputs", program.outputs.len()),
    ];
    for (what, found) in lists {
        if found > limits.operations {
            return Err(ProgramError::TooMany {
                what,
                found,
                limit: limits.operations,
            });
        }
    }
    let parts = ProgramError::Parts {
        forward: program.forward_len,
        total,
    };
    match usize::try_from(program.forward_len) {
        Ok(len) if len == total => Ok(len),
        Ok(len) if len < total && interface.role == Role::Training => Ok(len),
        _ => Err(parts),
    }
}

/// Whether a slot is bound between the parts.
fn is_late(slot: Slot) -> bool {
    matches!(slot, Slot::DLoss(_) | Slot::DMap(_))
}

/// Whether a place is of the first part; an initial parameter is, its program has no other.
fn is_first(place: &Place) -> bool {
    !matches!(place, Place::DTap(_) | Place::DParam(_))
}
