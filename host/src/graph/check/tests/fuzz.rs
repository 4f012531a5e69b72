//! Mutated programs: no check may panic, and what passes must run as declared.
//!
//! `KDHOST_FUZZ_CASES` sets the number of cases; the sequence is the same every time. Then the test should
//! run alone, for it looks at the memory of the process as well.

use std::collections::BTreeMap;
use std::time::Instant;

use kd_graph::burn_ir::{IrVisitorMut, OperationIr, ScalarIr, TensorId, TensorIr};
use kd_graph::{BoolStore, DType, Program, Slot, decode, encode};

use super::build::check_own;
use super::execute::{Run, run};
use super::seeds;
use crate::graph::check::{Fault, Limits, ProgramError, op_name};

/// Small, so that a run of what passes is short; large at times, since kernels differ by size.
fn limits(random: &mut Random) -> Limits {
    let elements = if random.below(100) == 0 {
        1 << 18
    } else {
        1 << 12
    };
    Limits {
        operations: 64,
        rank: 8,
        elements,
        live_bytes: 256 * elements as u64,
    }
}

/// More than the process may grow by: some tensors of one case, and what allocators keep.
const MAX_GROWTH_KIB: u64 = 256 << 10;

/// The most memory that the process had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// Mostly small, at times at a border of its type.
    fn extent(&mut self) -> usize {
        match self.below(12) {
            0 => self.of(&[
                0,
                usize::MAX,
                usize::MAX / 2,
                1 << 62,
                1 << 32,
                1 << 31,
                65_537,
            ]),
            1 => self.below(70_000),
            _ => self.below(9),
        }
    }
}

#[derive(Default, Debug)]
struct Figures {
    cases: usize,
    decoded: usize,
    passed: usize,
    repaired: usize,
    by_value: usize,
    peak_growth_kib: u64,
    operations: BTreeMap<String, usize>,
}

#[test]
fn mutated_programs_are_refused_or_run() {
    let asked = std::env::var("KDHOST_FUZZ_CASES").ok();
    let cases: usize = (asked.as_ref()).map_or(20_000, |text| text.parse().unwrap());
    let seeds = seeds::all();
    let encoded: Vec<Vec<u8>> = seeds.iter().map(encode).collect();
    let mut random = Random(7);
    let mut figures = Figures::default();
    let mut failed = BTreeMap::new();
    let (start, memory) = (Instant::now(), peak_kib());
    for _ in 0..cases {
        figures.cases += 1;
        let at = random.below(seeds.len());
        let mutated = if random.below(2) == 0 {
            let bytes = mutate_bytes(&mut random, &encoded, at);
            let Ok(program) = decode(&bytes) else {
                continue;
            };
            program
        } else {
            let mut program = seeds[at].clone();
            for _ in 0..=random.below(3) {
                mutate(&mut random, &seeds, &mut program);
            }
            program
        };
        figures.decoded += 1;
        let Some((program, repairs)) = repaired(mutated, &limits(&mut random)) else {
            continue;
        };
        figures.passed += 1;
        figures.repaired += usize::from(repairs > 0);
        for op in &program.operations {
            *figures.operations.entry(op_name(op)).or_default() += 1;
        }
        match run(&program) {
            Ok(Run::Done) => {}
            Ok(Run::ByValue) => figures.by_value += 1,
            Err(why) => {
                let name = why.split(',').next().unwrap_or_default().to_owned();
                failed
                    .entry(name.chars().take(60).collect::<String>())
                    .or_insert(why);
            }
        }
    }
    figures.peak_growth_kib = peak_kib() - memory;
    println!("{} s, {figures:#?}", start.elapsed().as_secs_f32());
    let grew = asked.is_some() && figures.peak_growth_kib > MAX_GROWTH_KIB;
    assert!(!grew, "{} KiB", figures.peak_growth_kib);
    assert!(failed.is_empty(), "{}: {failed:#?}", failed.len());
}

/// The checks' own wishes on shapes fulfilled, as long as there are some: so mutated parameters are
/// carried through to results, and runs show whether the wishes were right.
fn repaired(mut program: Program, limits: &Limits) -> Option<(Program, usize)> {
    for repairs in 0..24 {
        let (index, found, expected) = match check_own(&program, limits) {
            Ok(()) => return Some((program, repairs)),
            Err(ProgramError::Operation {
                index,
                fault: Fault::Shape {
                    found, expected, ..
                },
                ..
            }) => (index, found, expected),
            Err(_) => return None,
        };
        let op = &program.operations[index];
        let at = (op.outputs().chain(op.inputs()))
            .find(|t| t.shape.as_slice() == found)?
            .id;
        set(&mut program, at, |t| t.shape = expected.clone().into());
    }
    None
}

/// Changes a tensor wherever it stands.
fn set(program: &mut Program, id: TensorId, change: impl Fn(&mut TensorIr)) {
    each_tensor(program, |tensor| {
        if tensor.id == id {
            change(tensor);
        }
    });
    // A constant that has grown finds zeros.
    for constant in &program.constants {
        let elements = constant
            .tensor
            .shape
            .iter()
            .try_fold(1usize, |n, &e| n.checked_mul(e));
        let bytes = elements.unwrap_or(0).min(1 << 16) * constant.tensor.dtype.size();
        let end = constant.offset.min(1 << 16) as usize + bytes;
        program.data.resize(program.data.len().max(end), 0);
    }
}

fn each_tensor(program: &mut Program, change: impl FnMut(&mut TensorIr)) {
    struct Visit<F>(F);
    impl<F: FnMut(&mut TensorIr)> IrVisitorMut for Visit<F> {
        fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
            (self.0)(tensor);
        }
    }
    let mut visit = Visit(change);
    for op in &mut program.operations {
        op.visit_mut(&mut visit);
    }
    program
        .inputs
        .iter_mut()
        .for_each(|i| (visit.0)(&mut i.tensor));
    program
        .constants
        .iter_mut()
        .for_each(|c| (visit.0)(&mut c.tensor));
    program
        .outputs
        .iter_mut()
        .for_each(|o| (visit.0)(&mut o.tensor));
}

fn any_tensor(random: &mut Random, program: &mut Program) -> Option<TensorIr> {
    let mut all = vec![];
    each_tensor(program, |tensor| all.push(tensor.clone()));
    (!all.is_empty()).then(|| random.of(&all))
}

/// One change of a program's structure.
fn mutate(random: &mut Random, seeds: &[Program], program: &mut Program) {
    let Some(tensor) = any_tensor(random, program) else {
        return;
    };
    let count = program.operations.len();
    match random.below(12) {
        // A dimension everywhere.
        0..=2 => {
            let (dim, extent) = (random.below(tensor.shape.rank()), random.extent());
            set(program, tensor.id, |t| {
                if let Some(e) = t.shape.iter_mut().nth(dim) {
                    *e = extent;
                }
            });
        }
        // A rank everywhere.
        3 => {
            let (dim, grow) = (random.below(tensor.shape.rank() + 1), random.below(2) == 0);
            set(program, tensor.id, |t| {
                let mut dims = t.shape.to_vec();
                if grow {
                    dims.insert(dim.min(dims.len()), 1);
                } else if dim < dims.len() {
                    dims.remove(dim);
                }
                t.shape = dims.into();
            });
        }
        4 => {
            let dtype = random.of(&[
                DType::F32,
                DType::F16,
                DType::BF16,
                DType::F64,
                DType::I32,
                DType::I64,
                DType::U8,
                DType::Bool(BoolStore::Native),
                DType::Bool(BoolStore::U8),
                DType::Bool(BoolStore::U32),
            ]);
            set(program, tensor.id, |t| t.dtype = dtype);
        }
        // An id or a shape in one place alone.
        5 => {
            let (other, at) = (any_tensor(random, program), random.below(8));
            let (mut n, shape) = (0, random.below(2) == 0);
            each_tensor(program, |t| {
                if n == at
                    && let Some(other) = &other
                {
                    t.id = other.id;
                    if shape {
                        t.shape = other.shape.clone();
                    }
                }
                n += 1;
            });
        }
        6 if count > 1 => {
            let (a, b) = (random.below(count), random.below(count));
            program.operations.swap(a, b);
        }
        7 if count > 0 => {
            program.operations.remove(random.below(count));
            program.forward_len = program.forward_len.min(count as u64 - 1);
        }
        8 if count > 0 => scalars(random, &mut program.operations),
        9 => program.forward_len = random.extent() as u64,
        10 => {
            // Another program's operation on this one's tensors.
            let donor = &seeds[random.below(seeds.len())];
            if let Some(op) = donor.operations.first() {
                graft(random, program, op.clone());
            }
        }
        _ => reencode(random, program),
    }
}

/// Appends an operation whose inputs are bound anew.
fn graft(random: &mut Random, program: &mut Program, mut op: OperationIr) {
    struct Shift(u64);
    impl IrVisitorMut for Shift {
        fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
            tensor.id = TensorId::new(tensor.id.value().wrapping_add(self.0));
        }
    }
    op.visit_mut(&mut Shift(1000 + random.below(1000) as u64));
    for input in op.inputs().cloned().collect::<Vec<_>>() {
        let slot = Slot::Target(program.inputs.len() as u32);
        if program.inputs.iter().all(|i| i.tensor.id != input.id) {
            program.inputs.push(kd_graph::Input {
                slot,
                tensor: input,
            });
        }
    }
    program.operations.push(op);
    program.forward_len = program.operations.len() as u64;
}

fn scalars(random: &mut Random, operations: &mut [OperationIr]) {
    struct Set(ScalarIr);
    impl IrVisitorMut for Set {
        fn visit_scalar_mut(&mut self, scalar: &mut ScalarIr) {
            *scalar = self.0;
        }
    }
    let value = random.of(&[
        ScalarIr::Float(f64::NAN),
        ScalarIr::Float(f64::INFINITY),
        ScalarIr::Float(-1e300),
        ScalarIr::Float(1e-300),
        ScalarIr::Float(-0.0),
        ScalarIr::Int(i64::MIN),
        ScalarIr::Int(i64::MAX),
        ScalarIr::Int(i64::from(i32::MIN)),
        ScalarIr::Int(-1),
        ScalarIr::Int(0),
        ScalarIr::Int(31),
        ScalarIr::Int(63),
        ScalarIr::UInt(u64::MAX),
        ScalarIr::UInt(1),
        ScalarIr::Bool(false),
    ]);
    let at = random.below(operations.len());
    operations[at].visit_mut(&mut Set(value));
}

/// One number of the program's encoding is another: parameters among them.
fn reencode(random: &mut Random, program: &mut Program) {
    let mut bytes = encode(program);
    small_number(random, &mut bytes);
    if let Ok(changed) = decode(&bytes) {
        *program = changed;
    }
}

/// A byte that may be a small number becomes another, or grows to a wide one.
fn small_number(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..200 {
        let at = 24.min(bytes.len()) + random.below(bytes.len().saturating_sub(24));
        if bytes.get(at).is_some_and(|&b| b < 32) {
            match random.below(8) {
                0 => {
                    let wide = (random.extent() as u64).to_be_bytes();
                    bytes.splice(at..=at, [0xcf].into_iter().chain(wide));
                }
                1 => bytes[at] = random.of(&[0xc2, 0xc3, 0xff, 0xe0, 0xc0]),
                _ => bytes[at] = random.below(9) as u8,
            }
            return;
        }
    }
}

/// Changes of the bytes alone.
fn mutate_bytes(random: &mut Random, all: &[Vec<u8>], at: usize) -> Vec<u8> {
    let mut bytes = all[at].clone();
    for _ in 0..=random.below(3) {
        let len = bytes.len();
        if len == 0 {
            return bytes;
        }
        let at = random.below(len);
        match random.below(10) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                bytes.drain(at..(at + random.below(16)).min(len));
            }
            4 => {
                let other = &all[random.below(all.len())];
                let from = random.below(other.len());
                let piece = other[from..(from + random.below(64)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => {
                // A length that nothing follows: of text, bytes, a list, a map.
                let head = random.of(&[0xdb, 0xc6, 0xdd, 0xdf]);
                bytes.splice(at..=at, [head, 0xff, 0xff, 0xff, 0xff]);
            }
            _ => small_number(random, &mut bytes),
        }
    }
    bytes
}
