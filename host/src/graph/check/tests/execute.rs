//! Programs that pass, run on the CPU: every result must be what it was declared to be.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::TensorData;
use burn_router::TensorInterpreter;
use burn_std::{Bytes, bf16, f16};
use kd_graph::burn_ir::{HandleKind, IrVisitorMut, OperationIr, TensorId, TensorIr, TensorStatus};
use kd_graph::{DType, Executable, Place, Program, Slot};

use super::seeds;
use crate::graph::backend::GraphBackend;
use crate::graph::check::op_name;
use crate::graph::quiet;

/// How a run of a sound program may end.
#[derive(Debug, PartialEq)]
pub(super) enum Run {
    /// As declared.
    Done,
    /// It depends on values: an index out of range, a division of integers by zero.
    ByValue,
}

/// The words of a panic, which is not printed.
fn caught<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    quiet::run(|| catch_unwind(AssertUnwindSafe(f))).map_err(quiet::message)
}

/// Runs a program that passed the checks, twice: operation by operation with a look at every result,
/// then as a training does. `Err` says what went otherwise than declared.
pub(super) fn run(program: &Program) -> Result<Run, String> {
    match observed(program)? {
        Run::ByValue => Ok(Run::ByValue),
        Run::Done => compiled(program),
    }
}

/// As a training does.
fn compiled(program: &Program) -> Result<Run, String> {
    let mut executable = Executable::<Flex>::new(program, Default::default(), Box::new(Flex::take));
    let bind = |slots: Vec<Slot>| -> Vec<HandleKind<Flex>> {
        let find = |slot| program.inputs.iter().find(|input| input.slot == slot);
        (slots.into_iter().filter_map(find))
            .map(|input| data(&input.tensor, |i| (i * 7 + 3) % 5))
            .collect()
    };
    let forward = bind(executable.forward_slots().collect());
    let backward = bind(executable.backward_slots().collect());
    let results = caught(|| {
        let mut results = executable.forward(forward);
        results.extend(executable.backward(backward));
        results
    });
    let name = || executable.operation().map_or("binding".to_owned(), op_name);
    let results = match results {
        Ok(results) => results,
        Err(panic) if by_value(&name(), &panic) => return Ok(Run::ByValue),
        Err(panic) => {
            return Err(format!(
                "{} compiled panicked, {panic}: {program:?}",
                name()
            ));
        }
    };
    let declared = |place: &Place| program.outputs.iter().find(|o| o.place == *place);
    let as_declared = results.iter().all(|(place, handle)| match handle {
        HandleKind::Float(t) => declared(place)
            .is_some_and(|o| t.shape() == o.tensor.shape && t.dtype() == o.tensor.dtype),
        _ => false,
    });
    if results.len() == program.outputs.len() && as_declared {
        return Ok(Run::Done);
    }
    Err(format!("outputs are not as declared: {program:?}"))
}

/// Operation by operation.
fn observed(program: &Program) -> Result<Run, String> {
    let mut interpreter = TensorInterpreter::<Flex>::new(Default::default());
    for input in &program.inputs {
        let handle = data(&input.tensor, |i| (i * 7 + 3) % 5);
        interpreter.register_tensor_to_device(input.tensor.id, handle);
    }
    for constant in &program.constants {
        let tensor = &constant.tensor;
        let start = constant.offset as usize;
        let len = tensor.shape.num_elements() * tensor.dtype.size();
        let bytes = Bytes::from_bytes_vec(program.data[start..start + len].to_vec());
        let data = TensorData::from_bytes(bytes, tensor.shape.clone(), tensor.dtype);
        interpreter.register_tensor_data_id(tensor.id, data);
    }
    for (index, op) in program.operations.iter().enumerate() {
        let name = op_name(op);
        let result = caught(|| {
            let marked = with_statuses(program, index, op);
            if !Flex::take(&marked, &mut interpreter) {
                interpreter.register_op(marked);
            }
            for out in op.outputs() {
                let found = interpreter.get_tensor(&read_only(out));
                let (shape, dtype) = match found {
                    HandleKind::Float(t) => (t.shape(), t.dtype()),
                    HandleKind::Int(t) => (t.shape(), t.dtype()),
                    HandleKind::Bool(t) => (t.shape(), t.dtype()),
                    HandleKind::Quantized(_) => return Err("a quantised tensor".to_owned()),
                };
                // Booleans are bytes on the CPU, whatever their store is called.
                let same = dtype == out.dtype || dtype.is_bool() && out.dtype.is_bool();
                if shape != out.shape || !same {
                    return Err(format!("{dtype:?} {shape:?} for {out:?}"));
                }
                // Lazy views are read as well, to find those that reach too far.
                interpreter.register_op(touch(out));
            }
            Ok(())
        });
        match result {
            Ok(Ok(())) => {}
            Ok(Err(other)) => return Err(format!("{name} made {other}: {op:?}")),
            Err(panic) if by_value(&name, &panic) => return Ok(Run::ByValue),
            Err(panic) => return Err(format!("{name} panicked, {panic}: {op:?}")),
        }
    }
    Ok(Run::Done)
}

/// Whether the message of a panic is one of those that values cause.
fn by_value(name: &str, panic: &str) -> bool {
    let pooled = name.contains("MaxPool") && name.ends_with("Backward");
    let texts = [
        "out of bounds for dimension of size",
        "attempt to divide by zero",
        "attempt to divide with overflow",
        "attempt to calculate the remainder",
    ];
    texts.iter().any(|text| panic.contains(text)) || pooled && panic.contains("out of bounds")
}

/// An id that no program has.
const UNUSED: u64 = 0xdead_beef_dead_beef;

/// An operation that reads every element of a tensor.
fn touch(tensor: &TensorIr) -> OperationIr {
    use kd_graph::burn_ir::{BaseOperationIr, RepeatDimOpIr};
    let out =
        |shape: Vec<usize>| TensorIr::uninit(TensorId::new(UNUSED), shape.into(), tensor.dtype);
    let mut twice = tensor.shape.to_vec();
    twice[0] *= 2;
    let op = BaseOperationIr::RepeatDim(RepeatDimOpIr {
        tensor: read_only(tensor),
        dim: 0,
        times: 2,
        out: out(twice),
    });
    if tensor.dtype.is_float() {
        OperationIr::BaseFloat(op)
    } else if tensor.dtype.is_bool() {
        OperationIr::BaseBool(op)
    } else {
        OperationIr::BaseInt(op)
    }
}

fn read_only(tensor: &TensorIr) -> TensorIr {
    TensorIr {
        status: TensorStatus::ReadOnly,
        ..tensor.clone()
    }
}

/// The operation with what it uses last marked so: kernels then work in place.
fn with_statuses(program: &Program, index: usize, op: &OperationIr) -> OperationIr {
    struct Mark<'a> {
        later: Vec<TensorId>,
        here: Vec<&'a TensorIr>,
    }
    impl IrVisitorMut for Mark<'_> {
        fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
            let uses = self.here.iter().filter(|t| t.id == tensor.id).count();
            let last = uses == 1 && !self.later.contains(&tensor.id);
            tensor.status = match last {
                true => TensorStatus::ReadWrite,
                false => TensorStatus::ReadOnly,
            };
        }
    }
    let later = (program.operations[index + 1..].iter())
        .flat_map(|op| op.inputs().map(|t| t.id))
        .collect();
    let mut marked = op.clone();
    marked.visit_mut(&mut Mark {
        later,
        here: op.inputs().collect(),
    });
    marked
}

/// A tensor whose elements are a function of their place.
fn data(tensor: &TensorIr, value: impl Fn(usize) -> usize) -> HandleKind<Flex> {
    use burn::backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps};
    let values = (0..tensor.shape.num_elements()).map(value);
    let float = |v: usize| v as f32 * 0.75 - 1.0;
    let bytes: Vec<u8> = match tensor.dtype {
        DType::F32 => values.flat_map(|v| float(v).to_ne_bytes()).collect(),
        DType::F16 => (values.flat_map(|v| f16::from_f32(float(v)).to_ne_bytes())).collect(),
        DType::BF16 => (values.flat_map(|v| bf16::from_f32(float(v)).to_ne_bytes())).collect(),
        DType::I32 => values.flat_map(|v| (v as i32 - 1).to_ne_bytes()).collect(),
        DType::I64 => values.flat_map(|v| (v as i64 - 1).to_ne_bytes()).collect(),
        DType::Bool(_) => values.map(|v| u8::from(v % 2 == 1)).collect(),
        other => unreachable!("{other:?} passes no check"),
    };
    let bytes = Bytes::from_bytes_vec(bytes);
    let data = TensorData::from_bytes(bytes, tensor.shape.clone(), tensor.dtype);
    let device = Default::default();
    match tensor.dtype {
        DType::I32 | DType::I64 => HandleKind::Int(Flex::int_from_data(data, &device)),
        DType::Bool(_) => HandleKind::Bool(Flex::bool_from_data(data, &device)),
        _ => HandleKind::Float(Flex::float_from_data(data, &device)),
    }
}

#[test]
fn results_are_what_they_are_declared_to_be() {
    let failed: Vec<String> = (seeds::all().iter())
        .filter_map(|program| run(program).err())
        .collect();
    assert!(failed.is_empty(), "{}: {failed:#?}", failed.len());
}

#[test]
fn only_values_stop_a_run() {
    let by_value = (seeds::all().iter())
        .filter(|p| run(p) == Ok(Run::ByValue))
        .flat_map(|p| p.operations.iter().map(op_name).collect::<Vec<_>>())
        .collect::<Vec<_>>();
    assert_eq!(by_value, Vec::<String>::new());
}
