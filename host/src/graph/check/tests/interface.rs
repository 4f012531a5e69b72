//! Programs against what the host binds and takes, ids, constants and limits.

use std::collections::BTreeMap;

use kd_graph::burn_ir::*;
use kd_graph::{BoolStore, DType, Place, Program, Slot};

use super::build::{BOOL, Build, F32, I32, check_own};
use super::seeds;
use crate::graph::check::{Interface, Limits, ProgramError, Role, check};

/// The host's side of the training program.
struct Host {
    slots: BTreeMap<Slot, (Vec<usize>, DType)>,
    places: BTreeMap<Place, Vec<usize>>,
    role: Role,
}

impl Host {
    fn new(role: Role) -> Self {
        let map = vec![2, 3, 4, 4];
        let weight = vec![1, 3, 1, 1];
        let slots = [
            (Slot::Tap(0), map.clone()),
            (Slot::Tap(1), map.clone()),
            (Slot::Param(0), weight.clone()),
            (Slot::DLoss(0), vec![1]),
            (Slot::DMap(0), map.clone()),
        ];
        let places = [
            (Place::Loss(0), vec![1]),
            (Place::Map(0), map.clone()),
            (Place::Metric("mean".to_owned()), vec![1]),
            (Place::Buffer(0), vec![1]),
            (Place::DTap(0), map.clone()),
            (Place::DTap(1), map),
            (Place::DParam(0), weight),
        ];
        Host {
            slots: slots.map(|(slot, shape)| (slot, (shape, F32))).into(),
            places: places.into(),
            role,
        }
    }

    fn init() -> Self {
        let places = [(Place::Param(0), vec![4, 3]), (Place::Buffer(0), vec![4])];
        Host {
            slots: BTreeMap::new(),
            places: places.into(),
            role: Role::Init,
        }
    }

    fn check(&self, program: &Program) -> Result<(), String> {
        let interface = Interface {
            role: self.role,
            slots: &self.slots,
            places: &self.places,
        };
        check(program, &interface, &Limits::default()).map_err(|error| error.to_string())
    }

    /// Asserts that the changed training program is refused with this text.
    fn refuses(&self, text: &str, change: impl FnOnce(&mut Program)) {
        let mut program = seeds::training();
        change(&mut program);
        let found = self.check(&program).expect_err(text);
        assert!(found.contains(text), "{found}");
    }
}

/// The training program without its second part.
fn forward_only() -> Program {
    let mut program = seeds::training();
    program.operations.truncate(program.forward_len as usize);
    let is_late = |slot: Slot| matches!(slot, Slot::DLoss(_) | Slot::DMap(_));
    program.inputs.retain(|input| !is_late(input.slot));
    let is_late = |place: &Place| matches!(place, Place::DTap(_) | Place::DParam(_));
    program.outputs.retain(|output| !is_late(&output.place));
    program
}

#[test]
fn sound_programs_pass() {
    assert_eq!(Host::new(Role::Training).check(&seeds::training()), Ok(()));
    assert_eq!(Host::new(Role::Forward).check(&forward_only()), Ok(()));
    assert_eq!(Host::init().check(&seeds::init()), Ok(()));
    // Metrics, buffers and gradients may be missing.
    let mut program = seeds::training();
    (program.outputs).retain(|o| matches!(o.place, Place::Loss(_) | Place::Map(_)));
    assert_eq!(Host::new(Role::Training).check(&program), Ok(()));
}

#[test]
fn inputs_are_the_hosts() {
    let host = Host::new(Role::Training);
    host.refuses("Tap(2) is not bound", |p| p.inputs[0].slot = Slot::Tap(2));
    host.refuses("Tap(0) stands twice", |p| {
        let again = p.inputs[0].clone();
        p.inputs.push(again);
    });
    host.refuses("the host has f32 [2, 3, 4, 4]", |p| {
        p.inputs[0].tensor.shape[0] = 1
    });
    host.refuses("the host has f32 [2, 3, 4, 4]", |p| {
        p.inputs[0].tensor.dtype = DType::F16
    });
    let mut init = seeds::init();
    init.inputs.push(seeds::training().inputs[0].clone());
    assert!(
        Host::init()
            .check(&init)
            .unwrap_err()
            .contains("is not bound")
    );
    let mut forward = forward_only();
    forward.inputs.push(seeds::training().inputs[2].clone());
    let found = Host::new(Role::Forward).check(&forward).unwrap_err();
    assert!(found.contains("DLoss(0) is not bound"), "{found}");
}

#[test]
fn outputs_are_the_hosts() {
    let host = Host::new(Role::Training);
    host.refuses("Loss(1) is not taken", |p| {
        p.outputs[0].place = Place::Loss(1)
    });
    host.refuses("is not taken", |p| {
        p.outputs[1].place = Place::Metric("other".to_owned())
    });
    host.refuses("Param(0) is not taken", |p| {
        p.outputs[0].place = Place::Param(0)
    });
    host.refuses("Loss(0) stands twice", |p| {
        p.outputs[1].place = Place::Loss(0)
    });
    host.refuses("Loss(0) is missing", |p| {
        p.outputs.remove(0);
    });
    host.refuses("Map(0) is missing", |p| {
        p.outputs.remove(2);
    });
    host.refuses("the host has f32 [1]", |p| {
        let map = p.outputs[2].tensor.clone();
        p.outputs[0].tensor = map;
    });
    let mut init = seeds::init();
    init.outputs.pop();
    assert!(
        Host::init()
            .check(&init)
            .unwrap_err()
            .contains("Buffer(0) is missing")
    );
    let found = Host::new(Role::Forward)
        .check(&seeds::training())
        .unwrap_err();
    assert!(found.contains("the first part has 4 of 10"), "{found}");
    let mut forward = forward_only();
    forward.outputs.push(seeds::training().outputs[4].clone());
    let found = Host::new(Role::Forward).check(&forward).unwrap_err();
    assert!(found.contains("DTap(0) is not taken"), "{found}");
}

#[test]
fn parts_are_apart() {
    let host = Host::new(Role::Training);
    host.refuses("the first part has 11 of 10", |p| p.forward_len = 11);
    host.refuses("the first part has 18446744073709551615", |p| {
        p.forward_len = u64::MAX
    });
    // A gradient that the first part reads, and a loss that the second makes.
    host.refuses("operation 4 (BaseFloat::Reshape) reads", |p| {
        p.forward_len = 5
    });
    host.refuses("output Loss(0) reads", |p| p.forward_len = 3);
}

#[test]
fn ids_are_written_once_and_read_as_written() {
    let host = Host::new(Role::Training);
    let relabel = |p: &mut Program, index: usize, id: TensorId| {
        struct Out(TensorId, TensorId);
        impl IrVisitorMut for Out {
            fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
                if tensor.id == self.0 {
                    tensor.id = self.1;
                }
            }
        }
        let out = p.operations[index].outputs().next().map(|t| t.id).unwrap();
        p.operations[index].visit_mut(&mut Out(out, id));
    };
    host.refuses("a second time", |p| {
        let input = p.inputs[0].tensor.id;
        relabel(p, 1, input);
    });
    host.refuses("a second time", |p| {
        let constant = p.constants[0].tensor.id;
        relabel(p, 1, constant);
    });
    host.refuses("a second time", |p| {
        let other = p.operations[0].outputs().next().map(|t| t.id).unwrap();
        relabel(p, 2, other);
    });
    host.refuses("input Tap(0) writes tensor", |p| {
        let loss = p.operations[3].outputs().next().map(|t| t.id).unwrap();
        p.inputs[0].tensor.id = loss;
        p.inputs.swap(0, 1);
        p.inputs[0].tensor.id = loss;
    });
    host.refuses("nothing wrote before", |p| p.operations.swap(0, 1));
    host.refuses("nothing wrote before", |p| {
        p.outputs[0].tensor.id = TensorId::new(1)
    });
    host.refuses("it was written as f32 [2, 3, 4, 4]", |p| {
        struct Narrow;
        impl IrVisitorMut for Narrow {
            fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
                tensor.dtype = DType::F16;
            }
        }
        p.operations[1].visit_mut(&mut Narrow);
    });
}

/// The message about a program of one constant alone.
fn constant_message(dtype: DType, bytes: &[u8], offset: u64) -> String {
    let b = Build::new();
    b.constant(&[3], dtype, bytes);
    let mut program = b.program();
    program.constants[0].offset = offset;
    let checked = check_own(&program, &Limits::default());
    checked.map_or_else(|error| error.to_string(), |()| String::new())
}

#[test]
fn constants_are_within_the_data() {
    assert_eq!(constant_message(F32, &[0; 12], 0), "");
    assert_eq!(constant_message(DType::I64, &[7; 24], 0), "");
    assert_eq!(constant_message(DType::BF16, &[7; 14], 8), "");
    assert_eq!(constant_message(BOOL, &[0, 1, 1], 0), "");
    for (dtype, bytes, offset, text) in [
        (F32, vec![0; 16], 4, "no multiple of 8"),
        (
            F32,
            vec![0; 11],
            0,
            "12 bytes from 0 on are not within the 11 bytes",
        ),
        (F32, vec![0; 12], 8, "are not within"),
        (F32, vec![0; 12], u64::MAX - 7, "are not within"),
        (BOOL, vec![0, 1, 2], 0, "a byte of it is 2"),
        (
            DType::Bool(BoolStore::U8),
            vec![255, 1, 0],
            0,
            "a byte of it is 255",
        ),
        (DType::F64, vec![0; 24], 0, "types are f32"),
        (DType::Bool(BoolStore::U32), vec![0; 12], 0, "types are f32"),
        (DType::U8, vec![0; 3], 0, "types are f32"),
    ] {
        let found = constant_message(dtype, &bytes, offset);
        assert!(found.contains(text), "{found}");
    }
}

#[test]
fn limits_hold() {
    let limits = Limits {
        operations: 12,
        rank: 4,
        elements: 96,
        live_bytes: 2900,
    };
    let with = |change: &dyn Fn(&mut Limits)| {
        let mut limits = limits;
        change(&mut limits);
        check_own(&seeds::training(), &limits)
    };
    assert_eq!(with(&|_| {}), Ok(()));
    let text = |result: Result<(), ProgramError>| result.unwrap_err().to_string();
    let found = text(with(&|l| l.operations = 9));
    assert_eq!(found, "the program has 10 operations, the limit is 9");
    let found = text(with(&|l| l.rank = 3));
    assert!(
        found.contains("it has 4 dimensions, the limit is 3"),
        "{found}"
    );
    let found = text(with(&|l| l.elements = 95));
    assert!(
        found.contains("it has 96 elements, the limit is 95"),
        "{found}"
    );
    let found = text(with(&|l| l.live_bytes = 1000));
    assert!(found.contains("bytes live at once at operation"), "{found}");
    assert!(found.ends_with("the limit is 1000"), "{found}");
}

#[test]
fn claimed_extents_are_never_multiplied_unchecked() {
    for shape in [
        vec![usize::MAX; 8],
        vec![0, usize::MAX],
        vec![1 << 32, 1 << 32],
        vec![],
    ] {
        let b = Build::new();
        let out = b.tensor(&shape, F32);
        b.op(OperationIr::BaseFloat(BaseOperationIr::Zeros(
            CreationOpIr { out },
        )));
        let found = check_own(&b.program(), &Limits::default());
        assert!(
            matches!(found, Err(ProgramError::Tensor { .. })),
            "{found:?}"
        );
    }
    let b = Build::new();
    b.op(OperationIr::BaseInt(BaseOperationIr::Ones(
        CreationOpIr::create(vec![1usize << 31].into(), I32, || b.id()),
    )));
    assert_eq!(check_own(&b.program(), &Limits::default()), Ok(()));
}

/// Peak of a chain: a tensor dies with its last reader.
#[test]
fn lifetimes_end_with_the_last_use() {
    let b = Build::new();
    let mut x = b.f32(&[100]);
    for _ in 0..50 {
        let unary = UnaryOpIr::create(x, || b.id());
        x = b.op(OperationIr::Float(F32, FloatOperationIr::Exp(unary)));
    }
    let program = b.program();
    let limits = |live_bytes| Limits {
        live_bytes,
        ..Limits::default()
    };
    // The bound input, a link and the next one.
    assert_eq!(check_own(&program, &limits(1200)), Ok(()));
    let found = check_own(&program, &limits(1199));
    let expected = ProgramError::Memory {
        index: 1,
        found: 1200,
        limit: 1199,
    };
    assert_eq!(found, Err(expected));
}
