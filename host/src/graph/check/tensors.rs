//! The tensors of a program by id: written once, then read as they were written.

use std::collections::BTreeMap;

use kd_graph::burn_ir::{TensorId, TensorIr};
use kd_graph::{BoolStore, Constant, DType};

use super::rule::{Kind, elements};
use super::{Limits, ProgramError};

/// Every tensor that was written so far.
pub(super) struct Tensors<'a> {
    written: BTreeMap<TensorId, &'a TensorIr>,
    limits: &'a Limits,
}

impl<'a> Tensors<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        Tensors {
            written: BTreeMap::new(),
            limits,
        }
    }

    /// A tensor comes to be; `what` names the writer.
    pub(super) fn write(
        &mut self,
        tensor: &'a TensorIr,
        what: impl Fn() -> String,
    ) -> Result<(), ProgramError> {
        self.fits(tensor, &what)?;
        match self.written.insert(tensor.id, tensor) {
            None => Ok(()),
            Some(_) => Err(ProgramError::Rewritten {
                what: what(),
                id: tensor.id.value(),
            }),
        }
    }

    /// A tensor is used; `what` names the reader. Its status says nothing: lifetimes are the host's.
    pub(super) fn read(
        &self,
        tensor: &TensorIr,
        what: impl Fn() -> String,
    ) -> Result<(), ProgramError> {
        let Some(written) = self.written.get(&tensor.id) else {
            return Err(ProgramError::Unwritten {
                what: what(),
                id: tensor.id.value(),
            });
        };
        if tensor.shape == written.shape && tensor.dtype == written.dtype {
            return Ok(());
        }
        Err(ProgramError::Disagrees {
            what: what(),
            id: tensor.id.value(),
            found: tensor.shape.to_vec(),
            found_dtype: tensor.dtype.name(),
            shape: written.shape.to_vec(),
            dtype: written.dtype.name(),
        })
    }

    /// Type, rank and size alone.
    pub(super) fn fits(
        &self,
        tensor: &TensorIr,
        what: &impl Fn() -> String,
    ) -> Result<(), ProgramError> {
        let Limits {
            rank: max_rank,
            elements: max_elements,
            ..
        } = *self.limits;
        let rank = tensor.shape.rank();
        let why = if Kind::of(tensor.dtype).is_none() {
            "types are f32, f16, bf16, i32, i64 and bool in bytes".to_owned()
        } else if rank == 0 || rank > max_rank {
            format!("it has {rank} dimensions, the limit is {max_rank} and the least is 1")
        } else if let Some(extent) = tensor.shape.iter().find(|&&e| e > max_elements) {
            format!("it has an extent of {extent}, the limit is {max_elements}")
        } else {
            match elements(&tensor.shape) {
                Some(found) if found <= max_elements => return Ok(()),
                Some(found) => format!("it has {found} elements, the limit is {max_elements}"),
                None => format!("its elements cannot be counted, the limit is {max_elements}"),
            }
        };
        Err(ProgramError::Tensor {
            what: what(),
            // A plugin's shape may be as long as its message.
            shape: tensor.shape.iter().copied().take(16).collect(),
            dtype: tensor.dtype.name(),
            why,
        })
    }
}

/// Whether the values of a constant are there. Its tensor has been found to fit.
pub(super) fn check_constant(
    index: usize,
    constant: &Constant,
    data: &[u8],
) -> Result<(), ProgramError> {
    let tensor = &constant.tensor;
    let fail = |why: String| {
        Err(ProgramError::Constant {
            index,
            shape: tensor.shape.to_vec(),
            dtype: tensor.dtype.name(),
            why,
        })
    };
    let Some(len) = elements(&tensor.shape).and_then(|n| n.checked_mul(tensor.dtype.size())) else {
        return fail("its bytes cannot be counted".to_owned());
    };
    let offset = constant.offset;
    if !offset.is_multiple_of(8) {
        return fail(format!("its offset {offset} is no multiple of 8"));
    }
    let bytes = usize::try_from(offset).ok().and_then(|start| {
        let end = start.checked_add(len)?;
        data.get(start..end)
    });
    let Some(bytes) = bytes else {
        let held = data.len();
        return fail(format!(
            "{len} bytes from {offset} on are not within the {held} bytes of data"
        ));
    };
    let is_bool = matches!(tensor.dtype, DType::Bool(BoolStore::Native | BoolStore::U8));
    match bytes.iter().find(|&&byte| is_bool && byte > 1) {
        Some(byte) => fail(format!("a byte of it is {byte}, neither 0 nor 1")),
        None => Ok(()),
    }
}
