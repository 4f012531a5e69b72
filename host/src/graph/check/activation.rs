//! Rules of activations and of their backwards.

use kd_graph::burn_ir::{ActivationOperationIr, BinaryOpIr};

use super::numeric::{along, unary, with_scalar};
use super::rule::{Kind, Rule, ensure, extents, finite, kind, like};

pub(super) fn rule(op: &ActivationOperationIr) -> Rule {
    use ActivationOperationIr as A;
    match op {
        A::Relu(op) | A::Gelu(op) | A::Sigmoid(op) | A::LogSigmoid(op) => unary(Kind::Float, op),
        A::ReluBackward(op)
        | A::GeluBackward(op)
        | A::SigmoidBackward(op)
        | A::LogSigmoidBackward(op) => backward(op),
        A::LeakyRelu(op) => with_scalar(Kind::Float, op),
        A::PRelu(op) => {
            kind("lhs", &op.lhs, Kind::Float)?;
            // The layer has made the slope broadcast; one for all is the other form of it.
            let [slopes] = match op.rhs.shape.rank() {
                1 => extents::<1>("rhs", &op.rhs)?,
                _ => [1],
            };
            let same_rank = op.rhs.shape.rank() == op.lhs.shape.rank();
            ensure(same_rank || slopes == 1, "rhs", || {
                format!("is {:?}, of {:?}", op.rhs.shape, op.lhs.shape)
            })?;
            if same_rank {
                super::numeric::binary(Kind::Float, op)?;
            }
            super::rule::dtype("rhs", &op.rhs, op.lhs.dtype)?;
            like("out", &op.out, &op.lhs)
        }
        A::HardSigmoid(op) => {
            kind("tensor", &op.tensor, Kind::Float)?;
            finite("alpha", op.alpha)?;
            finite("beta", op.beta)?;
            like("out", &op.out, &op.tensor)
        }
        A::Softmax(op) | A::LogSoftmax(op) | A::Softmin(op) => along(Kind::Float, op),
    }
}

/// An activation's input or output with the gradient there, element by element.
fn backward(op: &BinaryOpIr) -> Rule {
    kind("lhs", &op.lhs, Kind::Float)?;
    like("rhs", &op.rhs, &op.lhs)?;
    like("out", &op.out, &op.lhs)
}
