//! Rules of operations that integers or booleans alone have.

use kd_graph::burn_ir::{BoolOperationIr, CastOpIr, IntOperationIr, ScalarIr, ScalarOpIr};

use super::float::matmul;
use super::numeric::{binary, unary, with_scalar};
use super::rule::{Kind, Rule, ensure, kind, shape};

pub(super) fn int_rule(op: &IntOperationIr) -> Rule {
    use IntOperationIr as I;
    match op {
        I::IntoFloat(op) => cast(Kind::Int, op, Kind::Float),
        I::Matmul(op) => matmul(Kind::Int, op),
        I::BitwiseAnd(op)
        | I::BitwiseOr(op)
        | I::BitwiseXor(op)
        | I::BitwiseLeftShift(op)
        | I::BitwiseRightShift(op) => binary(Kind::Int, op),
        I::BitwiseAndScalar(op) | I::BitwiseOrScalar(op) | I::BitwiseXorScalar(op) => {
            with_scalar(Kind::Int, op)
        }
        I::BitwiseLeftShiftScalar(op) | I::BitwiseRightShiftScalar(op) => shift(op),
        I::BitwiseNot(op) => unary(Kind::Int, op),
    }
}

pub(super) fn bool_rule(op: &BoolOperationIr) -> Rule {
    use BoolOperationIr as B;
    match op {
        B::IntoFloat(op) => cast(Kind::Bool, op, Kind::Float),
        B::IntoInt(op) => cast(Kind::Bool, op, Kind::Int),
        B::Not(op) => unary(Kind::Bool, op),
        B::And(op) | B::Or(op) | B::Xor(op) => binary(Kind::Bool, op),
    }
}

/// Whether it works on each element alone, into another kind.
pub(super) fn is_cast(op: &IntOperationIr) -> bool {
    matches!(op, IntOperationIr::IntoFloat(_))
}

fn cast(from: Kind, op: &CastOpIr, to: Kind) -> Rule {
    kind("input", &op.input, from)?;
    shape("out", &op.out, &op.input.shape)?;
    kind("out", &op.out, to)
}

/// No further than the type is wide.
fn shift(op: &ScalarOpIr) -> Rule {
    with_scalar(Kind::Int, op)?;
    let bits = 8 * op.lhs.dtype.size() as i64;
    let fits = matches!(op.rhs, ScalarIr::Int(by) if (0..bits).contains(&by));
    ensure(fits, "rhs", || format!("is {:?}, of {bits} bits", op.rhs))
}
