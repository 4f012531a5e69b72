//! Rules of activations and of their backwards.

use kd_graph::burn_ir::{ActivationOperationIr, BinaryOpIr};

use super::numeric::{along, binary, unary, with_scalar};
use super::rule::{Kind, Rule, finite, kind, like};

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
            // The slope broadcasts to the input, never the other way round.
            binary(Kind::Float, op)?;
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
