//! Programs by hand.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use kd_graph::burn_ir::{OperationIr, ScalarIr, TensorId, TensorIr, TensorStatus};
use kd_graph::{BoolStore, Constant, DType, Input, Output, Place, Program, Slot};

use crate::graph::check::{Interface, Limits, ProgramError, Role, check};

pub(super) const BOOL: DType = DType::Bool(BoolStore::Native);
pub(super) const F32: DType = DType::F32;
pub(super) const I32: DType = DType::I32;

/// A program that grows; constructors of operations borrow it for their ids.
pub(super) struct Build {
    program: RefCell<Program>,
    ids: Cell<u64>,
}

impl Build {
    pub(super) fn new() -> Self {
        Build {
            program: RefCell::new(Program {
                inputs: vec![],
                constants: vec![],
                operations: vec![],
                forward_len: 0,
                outputs: vec![],
                depends_on_call: false,
                data: vec![],
            }),
            ids: Cell::new(10),
        }
    }

    pub(super) fn id(&self) -> TensorId {
        self.ids.set(self.ids.get() + 1);
        TensorId::new(self.ids.get())
    }

    pub(super) fn tensor(&self, shape: &[usize], dtype: DType) -> TensorIr {
        TensorIr {
            id: self.id(),
            shape: shape.to_vec().into(),
            status: TensorStatus::ReadOnly,
            dtype,
        }
    }

    pub(super) fn bind(&self, slot: Slot, shape: &[usize], dtype: DType) -> TensorIr {
        let tensor = self.tensor(shape, dtype);
        self.program.borrow_mut().inputs.push(Input {
            slot,
            tensor: tensor.clone(),
        });
        tensor
    }

    /// The next tap.
    pub(super) fn input(&self, shape: &[usize], dtype: DType) -> TensorIr {
        let slot = Slot::Tap(self.program.borrow().inputs.len() as u32);
        self.bind(slot, shape, dtype)
    }

    pub(super) fn f32(&self, shape: &[usize]) -> TensorIr {
        self.input(shape, F32)
    }

    pub(super) fn constant(&self, shape: &[usize], dtype: DType, bytes: &[u8]) -> TensorIr {
        let tensor = self.tensor(shape, dtype);
        let mut program = self.program.borrow_mut();
        let offset = program.data.len().next_multiple_of(8);
        program.data.resize(offset, 0);
        program.data.extend_from_slice(bytes);
        program.constants.push(Constant {
            tensor: tensor.clone(),
            offset: offset as u64,
        });
        tensor
    }

    /// Indices, all zero, as a constant.
    pub(super) fn indices(&self, shape: &[usize]) -> TensorIr {
        let count: usize = shape.iter().product();
        self.constant(shape, I32, &vec![0; 4 * count])
    }

    /// Appends an operation; its first result.
    pub(super) fn op(&self, op: OperationIr) -> TensorIr {
        let out = op.outputs().next().cloned();
        let mut program = self.program.borrow_mut();
        program.operations.push(op);
        program.forward_len += 1;
        out.expect("every operation of the tests has a result")
    }

    /// What follows is the second part.
    pub(super) fn second_part(self) -> Self {
        let len = self.program.borrow().operations.len() as u64;
        let program = Program {
            forward_len: len,
            ..self.program.into_inner()
        };
        Build {
            program: RefCell::new(program),
            ..self
        }
    }

    /// An operation of the second part.
    pub(super) fn late(&self, op: OperationIr) -> TensorIr {
        let out = self.op(op);
        self.program.borrow_mut().forward_len -= 1;
        out
    }

    pub(super) fn output(&self, place: Place, tensor: &TensorIr) {
        self.program.borrow_mut().outputs.push(Output {
            place,
            tensor: tensor.clone(),
        });
    }

    pub(super) fn program(self) -> Program {
        self.program.into_inner()
    }
}

/// A number that every operation on `dtype` takes.
pub(super) fn scalar(dtype: DType) -> ScalarIr {
    match dtype {
        DType::Bool(_) => ScalarIr::Bool(true),
        DType::I32 | DType::I64 => ScalarIr::Int(2),
        _ => ScalarIr::Float(0.5),
    }
}

/// The slots and places of a program, as it has them itself.
pub(super) struct Own {
    slots: BTreeMap<Slot, (Vec<usize>, DType)>,
    places: BTreeMap<Place, Vec<usize>>,
    role: Role,
}

impl Own {
    pub(super) fn of(program: &Program) -> Self {
        let places = program.outputs.iter();
        let places = places.map(|o| (o.place.clone(), o.tensor.shape.to_vec()));
        let slots = program.inputs.iter();
        let slots = slots.map(|i| (i.slot, (i.tensor.shape.to_vec(), i.tensor.dtype)));
        let init = (program.outputs.iter()).any(|o| matches!(o.place, Place::Param(_)));
        Own {
            slots: slots.collect(),
            places: places.collect(),
            role: if init { Role::Init } else { Role::Training },
        }
    }

    pub(super) fn interface(&self) -> Interface<'_> {
        Interface {
            role: self.role,
            slots: &self.slots,
            places: &self.places,
        }
    }
}

/// The program's operations alone: the host has what the program wants.
pub(super) fn check_own(program: &Program, limits: &Limits) -> Result<(), ProgramError> {
    check(program, &Own::of(program).interface(), limits)
}
