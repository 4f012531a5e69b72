//! Arithmetic, functions, comparisons, reductions and sorting.

use burn_std::Distribution;
use kd_graph::DType;
use kd_graph::burn_ir::*;

use super::super::build::{BOOL, Build, F32, I32, scalar};
use super::Seeds;

pub(super) fn numeric(
    seeds: &mut Seeds,
    wrap: impl Fn(NumericOperationIr) -> OperationIr,
    dtype: DType,
) {
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

pub(super) fn float(seeds: &mut Seeds, dtype: DType) {
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

pub(super) fn int(seeds: &mut Seeds, dtype: DType) {
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

pub(super) fn bool_ops(seeds: &mut Seeds, dtype: DType) {
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
