//! Rules of functions of floats.

use kd_graph::burn_ir::{FloatOperationIr, InterpolateModeIr, MatmulOpIr, ScalarIr, TensorIr};

use burn_std::calculate_matmul_output;

use super::numeric::{binary, drawn, unary};
use super::rule::{
    Fault, Kind, Rule, broadcast, dtype, ensure, extents, floats, is, kind, like, shape, within,
};

pub(super) fn rule(op: &FloatOperationIr) -> Rule {
    use FloatOperationIr as F;
    match op {
        F::Exp(op)
        | F::Log(op)
        | F::Log1p(op)
        | F::Erf(op)
        | F::Sqrt(op)
        | F::Cos(op)
        | F::Cosh(op)
        | F::Sin(op)
        | F::Sinh(op)
        | F::Tan(op)
        | F::Tanh(op)
        | F::ArcCos(op)
        | F::ArcCosh(op)
        | F::ArcSin(op)
        | F::ArcSinh(op)
        | F::ArcTan(op)
        | F::ArcTanh(op)
        | F::Round(op)
        | F::Floor(op)
        | F::Ceil(op)
        | F::Trunc(op)
        | F::Recip(op) => unary(Kind::Float, op),
        F::ArcTan2(op) | F::Powf(op) | F::Hypot(op) => binary(Kind::Float, op),
        F::PowfScalar(op) => {
            kind("lhs", &op.lhs, Kind::Float)?;
            // Whole exponents are turned into integers, infinite ones too, which panics.
            const MOST: i64 = i32::MAX as i64;
            let fits = match op.rhs {
                ScalarIr::Float(v) => v.abs() <= MOST as f64,
                ScalarIr::Int(v) => (-MOST..=MOST).contains(&v),
                ScalarIr::UInt(_) | ScalarIr::Bool(_) => false,
            };
            ensure(fits, "rhs", || format!("is {:?}", op.rhs))?;
            like("out", &op.out, &op.lhs)
        }
        F::IsNan(op) | F::IsInf(op) => {
            kind("input", &op.input, Kind::Float)?;
            shape("out", &op.out, &op.input.shape)?;
            kind("out", &op.out, Kind::Bool)
        }
        F::IntoInt(op) => {
            kind("input", &op.input, Kind::Float)?;
            shape("out", &op.out, &op.input.shape)?;
            kind("out", &op.out, Kind::Int)
        }
        F::Matmul(op) => matmul(Kind::Float, op),
        F::Cross(op) => {
            floats(&op.lhs, &[("rhs", &op.rhs)])?;
            within("dim", op.dim, &op.lhs)?;
            let crossed = broadcast(&[&op.lhs, &op.rhs])?;
            let threes = op.lhs.shape[op.dim] == 3 && op.rhs.shape[op.dim] == 3;
            ensure(threes, "dim", || {
                let dim = op.dim;
                format!(
                    "is {dim}, where {} and {} must be 3",
                    op.lhs.shape, op.rhs.shape
                )
            })?;
            is("out", &op.out, &crossed, op.lhs.dtype)
        }
        F::Random(op) => {
            kind("out", &op.out, Kind::Float)?;
            drawn(op.distribution, op.out.dtype)
        }
        F::GridSample2d(op) => {
            floats(&op.tensor, &[("grid", &op.grid)])?;
            let [n, c, ..] = extents::<4>("tensor", &op.tensor)?;
            let [_, h, w, _] = extents::<4>("grid", &op.grid)?;
            shape("grid", &op.grid, &[n, h, w, 2])?;
            let mode = &op.options.mode;
            let known = matches!(
                mode,
                InterpolateModeIr::Bilinear | InterpolateModeIr::Nearest
            );
            ensure(known, "mode", || format!("is {mode:?}"))?;
            is("out", &op.out, &[n, c, h, w], op.tensor.dtype)
        }
        F::Quantize(_) | F::Dequantize(_) => Err(Fault::Unsupported("nothing is quantised")),
    }
}

/// Whether it works on each element alone.
pub(super) fn is_elementwise(op: &FloatOperationIr) -> bool {
    use FloatOperationIr as F;
    !matches!(
        op,
        F::Matmul(_) | F::Cross(_) | F::Random(_) | F::GridSample2d(_)
    )
}

pub(super) fn matmul(of: Kind, op: &MatmulOpIr) -> Rule {
    kind("lhs", &op.lhs, of)?;
    dtype("rhs", &op.rhs, op.lhs.dtype)?;
    let shapes = |t: &TensorIr| t.shape.to_vec();
    let fault = || Fault::Parameter {
        what: "shapes",
        why: format!(
            "do not multiply: {:?} and {:?}",
            shapes(&op.lhs),
            shapes(&op.rhs)
        ),
    };
    // burn's own function indexes the last two dimensions without a look.
    if op.lhs.shape.rank() < 2 || op.rhs.shape.rank() < 2 {
        return Err(fault());
    }
    let product = calculate_matmul_output(&op.lhs.shape, &op.rhs.shape).map_err(|_| fault())?;
    is("out", &op.out, &product, op.lhs.dtype)
}

/// A float scalar that a kernel takes as it is.
pub(super) fn positive(what: &'static str, value: ScalarIr) -> Rule {
    let v = super::rule::finite(what, value)?;
    ensure(v > 0.0, what, || format!("is {v}, it must be positive"))
}
