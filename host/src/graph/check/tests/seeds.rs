//! One sound program for each operation that has a rule, and a few of more.

use burn_std::Distribution;
use kd_graph::burn_ir::*;
use kd_graph::{DType, Place, Program, Slot};

use super::build::{BOOL, Build, F32, I32, scalar};
use crate::graph::check::{Limits, op_name};

mod layers;

/// Adds the program that a function builds.
struct Seeds(Vec<Program>);

impl Seeds {
    fn add(&mut self, build: impl FnOnce(&Build)) {
        let b = Build::new();
        build(&b);
        self.0.push(b.program());
    }
}

/// All of them.
pub(super) fn all() -> Vec<Program> {
    let mut seeds = Seeds(vec![]);
    for dtype in [F32, DType::F16, DType::BF16] {
        base(&mut seeds, OperationIr::BaseFloat, dtype);
        numeric(&mut seeds, |op| OperationIr::NumericFloat(dtype, op), dtype);
        float(&mut seeds, dtype);
        layers::activations(&mut seeds, dtype);
        layers::modules(&mut seeds, dtype);
    }
    for dtype in [I32, DType::I64] {
        base(&mut seeds, OperationIr::BaseInt, dtype);
        numeric(&mut seeds, |op| OperationIr::NumericInt(dtype, op), dtype);
        int(&mut seeds, dtype);
    }
    for dtype in [BOOL, DType::Bool(kd_graph::BoolStore::U8)] {
        base(&mut seeds, OperationIr::BaseBool, dtype);
        bool_ops(&mut seeds, dtype);
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

fn numeric(seeds: &mut Seeds, wrap: impl Fn(NumericOperationIr) -> OperationIr, dtype: DType) {
    use NumericOperationIr as N;
    let is_int = dtype.is_int();
    let index = if is_int { dtype } else { I32 };
    let mut add = |build: &dyn Fn(&Build, TensorIr) -> NumericOperationIr| {
        seeds.add(|b| {
            let x = b.input(&[2, 3, 4], dtype);
            b.op(wrap(build(b, x)));
        });
    };
    for op in [N::Add, N::Sub, N::Mul, N::Div, N::Rem] {
        add(&|b, x| {
            let y = match (is_int, dtype.size()) {
                // Zeros divide no integer.
                (true, 4) => b.constant(&[1, 1, 1], dtype, &3i32.to_le_bytes()),
                (true, _) => b.constant(&[1, 1, 1], dtype, &3i64.to_le_bytes()),
                _ => b.input(&[2, 1, 4], dtype),
            };
            op(BinaryOpIr::create(x, y, || b.id()))
        });
    }
    for op in [
        N::AddScalar,
        N::SubScalar,
        N::MulScalar,
        N::DivScalar,
        N::RemScalar,
        N::ClampMin,
        N::ClampMax,
    ] {
        add(&|b, x| op(ScalarOpIr::create(x, scalar(dtype), || b.id())));
    }
    add(&|b, x| {
        let (min, max) = (scalar(dtype), scalar(dtype));
        N::Clamp(ClampOpIr::create(x, min, max, || b.id()))
    });
    for op in [N::Abs, N::Neg, N::Sign] {
        add(&|b, x| op(UnaryOpIr::create(x, || b.id())));
    }
    add(&|b, _| {
        N::Full(FullOpIr::create(
            [2, 3].into(),
            dtype,
            scalar(dtype),
            || b.id(),
        ))
    });
    for op in [N::Mean, N::Sum, N::Prod, N::Max, N::Min, N::MaxAbs] {
        add(&|b, x| op(ReduceOpIr::create(x, || b.id())));
    }
    for op in [
        N::MeanDim,
        N::SumDim,
        N::ProdDim,
        N::MaxDim,
        N::MinDim,
        N::MaxAbsDim,
    ] {
        add(&|b, x| op(ReduceDimOpIr::create(x, 1, 1, || b.id())));
    }
    add(&|b, x| N::SumDims(ReduceDimsOpIr::create(x, vec![2, 0], || b.id())));
    if dtype != I32 {
        indices(&mut add, index);
    }
    add(&|b, x| N::TopK(ReduceDimOpIr::create(x, 2, 2, || b.id())));
    for op in [N::Greater, N::GreaterEqual, N::Lower, N::LowerEqual] {
        add(&|b, x| {
            let y = b.input(&[2, 1, 4], dtype);
            op(BinaryOpIr::create_comparison(x, y, BOOL, || b.id()))
        });
    }
    for op in [
        N::GreaterElem,
        N::GreaterEqualElem,
        N::LowerElem,
        N::LowerEqualElem,
    ] {
        add(&|b, x| {
            op(ScalarOpIr::create_comparison(
                x,
                scalar(dtype),
                BOOL,
                || b.id(),
            ))
        });
    }
    add(&|b, x| {
        let y = b.input(&[2, 3, 1], if is_int { dtype } else { I32 });
        let out = b.tensor(&[2, 3, 4], dtype);
        N::Powi(BinaryOpIr {
            lhs: x,
            rhs: y,
            out,
        })
    });
    add(&|b, x| N::PowiScalar(ScalarOpIr::create(x, ScalarIr::Int(3), || b.id())));
    for op in [N::CumSum, N::CumProd, N::CumMin, N::CumMax] {
        add(&|b, x| op(DimOpIr::create(x, 1, || b.id())));
    }
    add(&|b, x| N::Sort(SortOpIr::create(x, 1, true, || b.id())));
    for mode in [
        PadModeIr::Constant(ScalarIr::Float(1.0)),
        PadModeIr::Reflect,
        PadModeIr::Edge,
    ] {
        let padding = vec![(1, 0), (0, 0), (1, 3)];
        add(&|b, x| N::Pad(PadOpIr::create(x, padding.clone(), mode, || b.id())));
    }
    if is_int {
        for distribution in [Distribution::Uniform(0.0, 9.0), Distribution::Default] {
            add(&|b, _| {
                N::IntRandom(RandomOpIr::create(
                    [2, 3].into(),
                    dtype,
                    distribution,
                    || b.id(),
                ))
            });
        }
    }
}

/// Adds an operation on `[2, 3, 4]`.
type Add<'a> = dyn FnMut(&dyn Fn(&Build, TensorIr) -> NumericOperationIr) + 'a;

/// Operations that make indices of the type `index`.
fn indices(add: &mut Add<'_>, index: DType) {
    use NumericOperationIr as N;
    for op in [N::ArgMax, N::ArgMin] {
        add(&|b, x| op(ReduceDimOpIr::create_arg(x, 1, 1, index, || b.id())));
    }
    add(&|b, x| N::ArgTopK(ReduceDimOpIr::create_arg(x, 2, 2, index, || b.id())));
    add(&|b, x| N::TopKWithIndices(TopKWithIndicesOpIr::create(x, 2, 2, index, || b.id())));
    for op in [N::MaxDimWithIndices, N::MinDimWithIndices] {
        add(&|b, x| op(ReduceDimWithIndicesOpIr::create(x, 2, index, || b.id())));
    }
    add(&|b, x| N::ArgSort(SortOpIr::create_arg(x, 1, false, index, || b.id())));
    add(&|b, x| N::SortWithIndices(SortWithIndicesOpIr::create(x, 1, true, index, || b.id())));
}

fn float(seeds: &mut Seeds, dtype: DType) {
    use FloatOperationIr as F;
    let mut add = |build: &dyn Fn(&Build, TensorIr) -> FloatOperationIr| {
        seeds.add(|b| {
            let x = b.input(&[2, 3, 4], dtype);
            b.op(OperationIr::Float(dtype, build(b, x)));
        });
    };
    for op in [
        F::Exp,
        F::Log,
        F::Log1p,
        F::Erf,
        F::Sqrt,
        F::Cos,
        F::Cosh,
        F::Sin,
        F::Sinh,
        F::Tan,
        F::Tanh,
        F::ArcCos,
        F::ArcCosh,
        F::ArcSin,
        F::ArcSinh,
        F::ArcTan,
        F::ArcTanh,
        F::Round,
        F::Floor,
        F::Ceil,
        F::Trunc,
        F::Recip,
    ] {
        add(&|b, x| op(UnaryOpIr::create(x, || b.id())));
    }
    for op in [F::ArcTan2, F::Powf, F::Hypot] {
        add(&|b, x| {
            let y = b.input(&[1, 3, 4], dtype);
            op(BinaryOpIr::create(x, y, || b.id()))
        });
    }
    add(&|b, x| F::PowfScalar(ScalarOpIr::create(x, scalar(dtype), || b.id())));
    for op in [F::IsNan, F::IsInf] {
        add(&|b, x| op(UnaryOpIr::create_comparison(x, BOOL, || b.id())));
    }
    for to in [I32, DType::I64] {
        add(&|b, x| F::IntoInt(CastOpIr::create(x, to, || b.id())));
    }
    add(&|b, x| {
        let y = b.input(&[1, 4, 5], dtype);
        F::Matmul(MatmulOpIr::create(x, y, || b.id()))
    });
    add(&|b, x| {
        let y = b.input(&[2, 3, 1], dtype);
        F::Cross(CrossOpIr::create(x, y, 1, || b.id()))
    });
    for distribution in [
        Distribution::Default,
        Distribution::Bernoulli(0.5),
        Distribution::Uniform(-1.0, 2.0),
        Distribution::Normal(0.0, 1.0),
    ] {
        add(&|b, _| {
            F::Random(RandomOpIr::create(
                [2, 3].into(),
                dtype,
                distribution,
                || b.id(),
            ))
        });
    }
    for mode in [InterpolateModeIr::Bilinear, InterpolateModeIr::Nearest] {
        for padding_mode in [
            GridSamplePaddingModeIr::Zeros,
            GridSamplePaddingModeIr::Border,
            GridSamplePaddingModeIr::Reflection,
        ] {
            for align_corners in [false, true] {
                let options = GridSampleOptionsIr {
                    mode: mode.clone(),
                    padding_mode: padding_mode.clone(),
                    align_corners,
                };
                add(&|b, _| {
                    let (x, grid) = (b.input(&[2, 3, 4, 5], dtype), b.input(&[2, 3, 2, 2], dtype));
                    F::GridSample2d(GridSample2dOpIr::create(x, grid, options.clone(), || {
                        b.id()
                    }))
                });
            }
        }
    }
}

fn int(seeds: &mut Seeds, dtype: DType) {
    use IntOperationIr as I;
    let mut add = |build: &dyn Fn(&Build, TensorIr) -> IntOperationIr| {
        seeds.add(|b| {
            let x = b.input(&[2, 3, 4], dtype);
            b.op(OperationIr::Int(build(b, x)));
        });
    };
    for to in [F32, DType::F16, DType::BF16] {
        add(&|b, x| I::IntoFloat(CastOpIr::create(x, to, || b.id())));
    }
    for op in [
        I::BitwiseAnd,
        I::BitwiseOr,
        I::BitwiseXor,
        I::BitwiseLeftShift,
        I::BitwiseRightShift,
    ] {
        add(&|b, x| {
            let y = b.input(&[2, 1, 4], dtype);
            op(BinaryOpIr::create(x, y, || b.id()))
        });
    }
    for op in [
        I::BitwiseAndScalar,
        I::BitwiseOrScalar,
        I::BitwiseXorScalar,
        I::BitwiseLeftShiftScalar,
        I::BitwiseRightShiftScalar,
    ] {
        add(&|b, x| op(ScalarOpIr::create(x, ScalarIr::Int(3), || b.id())));
    }
    add(&|b, x| I::BitwiseNot(UnaryOpIr::create(x, || b.id())));
    add(&|b, x| {
        let y = b.input(&[2, 4, 2], dtype);
        I::Matmul(MatmulOpIr::create(x, y, || b.id()))
    });
}

fn bool_ops(seeds: &mut Seeds, dtype: DType) {
    use BoolOperationIr as B;
    let mut add = |build: &dyn Fn(&Build, TensorIr) -> BoolOperationIr| {
        seeds.add(|b| {
            let x = b.input(&[2, 3], dtype);
            b.op(OperationIr::Bool(build(b, x)));
        });
    };
    for to in [F32, DType::F16, DType::BF16] {
        add(&|b, x| B::IntoFloat(CastOpIr::create(x, to, || b.id())));
    }
    for to in [I32, DType::I64] {
        add(&|b, x| B::IntoInt(CastOpIr::create(x, to, || b.id())));
    }
    add(&|b, x| B::Not(UnaryOpIr::create(x, || b.id())));
    for op in [B::And, B::Or, B::Xor] {
        add(&|b, x| {
            let y = b.input(&[2, 1], dtype);
            op(BinaryOpIr::create(x, y, || b.id()))
        });
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
