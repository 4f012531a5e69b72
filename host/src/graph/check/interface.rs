//! What the host binds to a program and takes from it.

use std::collections::{BTreeMap, BTreeSet};

use kd_graph::burn_ir::TensorIr;
use kd_graph::{DType, Place, Program, Slot};

use super::ProgramError;

/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Losses, then gradients: two parts.
    Training,
    /// Losses alone.
    Forward,
    /// The initial parameters and buffers, from nothing.
    Init,
}

/// What the host binds to a program and takes from it.
///
/// A slot or place that is not listed may not stand in the program, and neither may one that the role
/// has no use for: gradients without a second part, inputs of an [`Role::Init`].
#[derive(Clone, Copy, Debug)]
pub struct Interface<'a> {
    /// What the program is for.
    pub role: Role,
    /// Shape and type of every tensor that the host can bind.
    pub slots: &'a BTreeMap<Slot, (Vec<usize>, DType)>,
    /// Shape of every tensor that the host can take, f32 all: `[1]` for losses and the metrics that
    /// the manifest declares. Of these, losses and maps must be made, and all of an [`Role::Init`].
    pub places: &'a BTreeMap<Place, Vec<usize>>,
}

impl Interface<'_> {
    /// Whether every input is one that the host binds, as the host has it.
    pub(super) fn check_slots(&self, program: &Program) -> Result<(), ProgramError> {
        let mut seen = BTreeSet::new();
        for input in &program.inputs {
            let slot = input.slot;
            let in_role = match slot {
                Slot::Tap(_) | Slot::Param(_) | Slot::Buffer(_) | Slot::Target(_) => {
                    self.role != Role::Init
                }
                Slot::DLoss(_) | Slot::DMap(_) => self.role == Role::Training,
            };
            let (shape, dtype) = (self.slots.get(&slot).filter(|_| in_role))
                .ok_or(ProgramError::UnknownSlot { slot })?;
            let what = || format!("the input {slot:?}");
            if !seen.insert(slot) {
                return Err(ProgramError::Twice { what: what() });
            }
            agree(&input.tensor, shape, *dtype, what)?;
        }
        Ok(())
    }

    /// Whether every output is one that the host takes, as the host has it, and none is missing.
    pub(super) fn check_places(&self, program: &Program) -> Result<(), ProgramError> {
        let mut seen = BTreeSet::new();
        for output in &program.outputs {
            let place = &output.place;
            let shape =
                (self.places.get(place).filter(|_| self.has_use(place))).ok_or_else(|| {
                    ProgramError::UnknownPlace {
                        place: place.clone(),
                    }
                })?;
            let what = || format!("the output {place:?}");
            if !seen.insert(place) {
                return Err(ProgramError::Twice { what: what() });
            }
            agree(&output.tensor, shape, DType::F32, what)?;
        }
        let missing = (self.places.keys())
            .find(|place| self.is_due(place) && self.has_use(place) && !seen.contains(place));
        match missing {
            Some(place) => Err(ProgramError::Missing {
                place: place.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Whether the role has this place at all.
    fn has_use(&self, place: &Place) -> bool {
        match place {
            Place::Loss(_) | Place::Map(_) | Place::Metric(_) => self.role != Role::Init,
            Place::Buffer(_) => true,
            Place::Param(_) => self.role == Role::Init,
            Place::DTap(_) | Place::DParam(_) => self.role == Role::Training,
        }
    }

    /// Whether a program without this place is refused.
    fn is_due(&self, place: &Place) -> bool {
        matches!(place, Place::Loss(_) | Place::Map(_)) || self.role == Role::Init
    }
}

fn agree(
    tensor: &TensorIr,
    shape: &[usize],
    dtype: DType,
    what: impl Fn() -> String,
) -> Result<(), ProgramError> {
    if tensor.shape.as_slice() == shape && tensor.dtype == dtype {
        return Ok(());
    }
    Err(ProgramError::Interface {
        what: what(),
        found: tensor.shape.to_vec(),
        found_dtype: tensor.dtype.name(),
        shape: shape.to_vec(),
        dtype: dtype.name(),
    })
}
