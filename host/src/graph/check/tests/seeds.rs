//! One sound program for each operation that has a rule, and a few of more.

use burn_std::Distribution;
use kd_graph::burn_ir::*;
use kd_graph::{DType, Place, Program, Slot};

use super::build::{BOOL, Build, F32, I32, scalar};
use crate::graph::check::{Limits, op_name};

mod convolutions;
mod layers;
mod numbers;
mod windows;

/// Programs so far.
struct Seeds(Vec<Program>);

impl Seeds {
    /// Adds the program that a function builds.
    fn add(&mut self, build: impl FnOnce(&Build)) {
        let b = Build::new();
        build(&b);
        self.0.push(b.program());
    }
}

fn module(b: &Build, op: ModuleOperationIr) {
    b.op(OperationIr::Module(op));
}

/// All of them.
pub(super) fn all() -> Vec<Program> {
    let mut seeds = Seeds(vec![]);
    for dtype in [F32, DType::F16, DType::BF16] {
        base(&mut seeds, OperationIr::BaseFloat, dtype);
        numbers::numeric(&mut seeds, |op| OperationIr::NumericFloat(dtype, op), dtype);
        numbers::float(&mut seeds, dtype);
        layers::activations(&mut seeds, dtype);
        layers::norms_and_tables(&mut seeds, dtype);
        convolutions::all(&mut seeds, dtype);
        windows::all(&mut seeds, dtype);
    }
    for dtype in [I32, DType::I64] {
        base(&mut seeds, OperationIr::BaseInt, dtype);
        numbers::numeric(&mut seeds, |op| OperationIr::NumericInt(dtype, op), dtype);
        numbers::int(&mut seeds, dtype);
    }
    for dtype in [BOOL, DType::Bool(kd_graph::BoolStore::U8)] {
        base(&mut seeds, OperationIr::BaseBool, dtype);
        numbers::bool_ops(&mut seeds, dtype);
    }
    layers::customs(&mut seeds);
    seeds.0.push(training());
    seeds.0.push(init());
    seeds.0
}

fn base(seeds: &mut Seeds, wrap: fn(BaseOperationIr) -> OperationIr, dtype: DType) {
    use BaseOperationIr as B;
    use burn_std::{Slice, ops::IndexingUpdateOp as Update};
    let is_bool = dtype.is_bool();
    let truth = if is_bool { dtype } else { BOOL };
    let mut add = |build: &dyn Fn(&Build, TensorIr) -> BaseOperationIr| {
        seeds.add(|b| {
            let x = b.input(&[2, 3, 4], dtype);
            b.op(wrap(build(b, x)));
        });
    };
    add(&|b, x| B::Reshape(ShapeOpIr::reshape(x, [4, 6].into(), || b.id())));
    add(&|b, x| B::SwapDims(SwapDimsOpIr::create(x, 0, 2, || b.id())));
    add(&|b, x| B::Permute(PermuteOpIr::create(x, vec![2, 0, 1], || b.id())));
    add(&|b, x| B::Flip(FlipOpIr::create(x, vec![2, 0], || b.id())));
    add(&|b, _| {
        let x = b.input(&[1, 3, 1], dtype);
        B::Expand(ShapeOpIr::expand(x, [5, 2, 3, 4].into(), || b.id()))
    });
    add(&|b, x| B::Unfold(UnfoldOpIr::create(x, 2, 2, 1, || b.id())));
    let ranges = || {
        vec![
            Slice::new(-1, None, 1),
            Slice::new(0, Some(3), -2),
            Slice::new(1, Some(3), 1),
        ]
    };
    add(&|b, x| B::Slice(SliceOpIr::create(x, ranges(), || b.id())));
    add(&|b, x| {
        B::Slice(SliceOpIr::create(
            x,
            vec![Slice::new(0, Some(1), 1)],
            || b.id(),
        ))
    });
    add(&|b, x| {
        let value = b.input(&[1, 2, 2], dtype);
        B::SliceAssign(SliceAssignOpIr::create(x, ranges(), value, || b.id()))
    });
    if !is_bool {
        add(&|b, x| {
            let at = b.indices(&[5]);
            B::Select(SelectOpIr::create(x, 1, at, || b.id()))
        });
        add(&|b, x| {
            let at = b.indices(&[2, 3, 2]);
            B::Gather(GatherOpIr::create(x, 2, at, || b.id()))
        });
    }
    let updates: &[Update] = if is_bool {
        &[Update::Add]
    } else {
        &[
            Update::Assign,
            Update::Add,
            Update::Mul,
            Update::Min,
            Update::Max,
        ]
    };
    for &update in updates {
        add(&|b, x| {
            let (at, value) = (b.indices(&[5]), b.input(&[2, 5, 4], dtype));
            B::SelectAssign(SelectAssignOpIr::create(x, 1, at, value, update, || b.id()))
        });
        add(&|b, x| {
            let (at, value) = (b.indices(&[2, 1, 4]), b.input(&[2, 1, 4], dtype));
            B::Scatter(ScatterOpIr::create(x, 1, at, value, update, || b.id()))
        });
    }
    add(&|b, x| {
        let (mask, value) = (b.input(&[2, 1, 4], BOOL), b.input(&[1, 3, 1], dtype));
        B::MaskWhere(MaskWhereOpIr::create(x, mask, value, || b.id()))
    });
    add(&|b, x| {
        let mask = b.input(&[2, 1, 4], BOOL);
        B::MaskFill(MaskFillOpIr::create(x, mask, scalar(dtype), || b.id()))
    });
    for compare in [B::Equal, B::NotEqual] {
        add(&|b, x| {
            let y = b.input(&[2, 1, 4], dtype);
            compare(BinaryOpIr::create_comparison(x, y, truth, || b.id()))
        });
    }
    for compare in [B::EqualElem, B::NotEqualElem] {
        add(&|b, x| {
            compare(ScalarOpIr::create_comparison(
                x,
                scalar(dtype),
                truth,
                || b.id(),
            ))
        });
    }
    add(&|b, x| B::RepeatDim(RepeatDimOpIr::create(x, 1, 3, || b.id())));
    add(&|b, x| {
        let y = b.input(&[2, 5, 4], dtype);
        B::Cat(CatOpIr::create(vec![x.clone(), y, x], 1, || b.id()))
    });
    if dtype.is_float() {
        for to in [F32, DType::F16, DType::BF16] {
            add(&|b, x| B::Cast(CastOpIr::create(x, to, || b.id())));
        }
    }
    add(&|b, _| B::Ones(CreationOpIr::create([2, 3].into(), dtype, || b.id())));
    add(&|b, _| B::Zeros(CreationOpIr::create([0, 3].into(), dtype, || b.id())));
    for all in [B::All, B::Any] {
        add(&|b, x| all(ReduceOpIr::create_bool(x, truth, || b.id())));
    }
    for all in [B::AllDim, B::AnyDim] {
        add(&|b, x| all(ReduceDimOpIr::create_bool(x, 1, 1, truth, || b.id())));
    }
}

/// A squared difference and its gradient, in two parts.
pub(super) fn training() -> Program {
    use NumericOperationIr as N;
    let num = |op| OperationIr::NumericFloat(F32, op);
    let b = Build::new();
    let x = b.bind(Slot::Tap(0), &[2, 3, 4, 4], F32);
    let w = b.bind(Slot::Param(0), &[1, 3, 1, 1], F32);
    let half = b.constant(&[1], F32, &0.5f32.to_le_bytes());
    let y = b.op(num(N::Mul(BinaryOpIr::create(
        x.clone(),
        w.clone(),
        || b.id(),
    ))));
    let square = b.op(num(N::Mul(BinaryOpIr::create(
        y.clone(),
        y.clone(),
        || b.id(),
    ))));
    let mean = b.op(num(N::Mean(ReduceOpIr::create(square, || b.id()))));
    let loss = b.op(num(N::Mul(BinaryOpIr::create(mean.clone(), half, || {
        b.id()
    }))));
    b.output(Place::Loss(0), &loss);
    b.output(Place::Metric("mean".to_owned()), &mean);
    b.output(Place::Map(0), &y);
    b.output(Place::Buffer(0), &loss);
    let b = b.second_part();
    let dloss = b.bind(Slot::DLoss(0), &[1], F32);
    let dmap = b.bind(Slot::DMap(0), &[2, 3, 4, 4], F32);
    let shape = [1, 1, 1, 1].into();
    let d = b.late(OperationIr::BaseFloat(BaseOperationIr::Reshape(
        ShapeOpIr::reshape(dloss, shape, || b.id()),
    )));
    let dy = b.late(num(N::Mul(BinaryOpIr::create(y, d, || b.id()))));
    let dy = b.late(num(N::Add(BinaryOpIr::create(dy, dmap, || b.id()))));
    let dx = b.late(num(N::Mul(BinaryOpIr::create(dy.clone(), w, || b.id()))));
    let dw = b.late(num(N::Mul(BinaryOpIr::create(dy, x, || b.id()))));
    let dw = b.late(num(N::SumDims(ReduceDimsOpIr::create(
        dw,
        vec![0, 2, 3],
        || b.id(),
    ))));
    b.output(Place::DTap(0), &dx);
    b.output(Place::DParam(0), &dw);
    b.program()
}

/// Initial state: one drawn parameter, one buffer of ones.
pub(super) fn init() -> Program {
    let b = Build::new();
    let normal = Distribution::Normal(0.0, 0.02);
    let w = b.op(OperationIr::Float(
        F32,
        FloatOperationIr::Random(RandomOpIr::create([4, 3].into(), F32, normal, || b.id())),
    ));
    let ones = b.op(OperationIr::BaseFloat(BaseOperationIr::Ones(
        CreationOpIr::create([4].into(), F32, || b.id()),
    )));
    b.output(Place::Param(0), &w);
    b.output(Place::Buffer(0), &ones);
    b.program()
}

#[test]
fn burns_own_shapes_are_those_of_the_rules() {
    for program in all() {
        let found = super::build::check_own(&program, &Limits::default());
        let names: Vec<_> = program.operations.iter().map(op_name).collect();
        assert_eq!(found, Ok(()), "{names:?} {program:?}");
    }
}

#[test]
fn operations_are_named_without_their_tensors() {
    let names: Vec<_> = (all().iter())
        .flat_map(|p| p.operations.iter().map(op_name))
        .collect();
    for name in [
        "Module::Conv2d",
        "NumericFloat::Add",
        "Custom::kd.conv2d",
        "Float::Matmul",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} of {names:?}");
    }
    assert!(
        names
            .iter()
            .all(|n| n.len() < 60 && !n.contains(['(', '{']))
    );
}
