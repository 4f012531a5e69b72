//! One operation: what it reads, the rule of its family, what it writes.

use kd_graph::burn_ir::{BaseOperationIr, NumericOperationIr, OperationIr};

use super::rule::{Fault, Kind, Rule};
use super::tensors::Tensors;
use super::{Limits, ProgramError, op_name};
use super::{activation, base, custom, float, int, module, numeric};

/// Whether operation `index` may run on the tensors so far; then its results are among them.
pub(super) fn check<'a>(
    index: usize,
    op: &'a OperationIr,
    tensors: &mut Tensors<'a>,
    limits: &Limits,
) -> Result<(), ProgramError> {
    let what = || format!("operation {index} ({})", op_name(op));
    for input in op.inputs() {
        tensors.read(input, what)?;
    }
    // Before the rule, whose messages repeat shapes.
    for output in op.outputs() {
        tensors.fits(output, &what)?;
    }
    rule(op, limits).map_err(|fault| ProgramError::Operation {
        index,
        name: op_name(op),
        fault,
    })?;
    for output in op.outputs() {
        tensors.write(output, what)?;
    }
    Ok(())
}

fn rule(op: &OperationIr, limits: &Limits) -> Rule {
    if !takes_empty(op)
        && let Some(empty) = (op.inputs().chain(op.outputs())).find(|t| t.shape.contains(&0))
    {
        return Err(Fault::Empty(empty.shape.to_vec()));
    }
    match op {
        OperationIr::BaseFloat(op) => base::rule(Kind::Float, op),
        OperationIr::BaseInt(op) => base::rule(Kind::Int, op),
        OperationIr::BaseBool(op) => base::rule(Kind::Bool, op),
        // The type beside the operation repeats that of a tensor; the interpreter ignores it.
        OperationIr::NumericFloat(_, op) => numeric::rule(Kind::Float, op),
        OperationIr::NumericInt(_, op) => numeric::rule(Kind::Int, op),
        OperationIr::Float(_, op) => float::rule(op),
        OperationIr::Int(op) => int::int_rule(op),
        OperationIr::Bool(op) => int::bool_rule(op),
        OperationIr::Module(op) => module::rule(op, limits),
        OperationIr::Activation(op) => activation::rule(op),
        OperationIr::Custom(op) => custom::rule(op),
        OperationIr::Init(_) => Err(Fault::Unsupported("inputs are declared, not initialised")),
        OperationIr::Drop(_) => Err(Fault::Unsupported("the host ends lifetimes itself")),
        OperationIr::Distributed(_) => Err(Fault::Unsupported("a program runs on one device")),
    }
}

/// Whether kernels are known to take tensors without elements: a batch may have no objects, so tables
/// of objects may have no rows. What computes with them is refused, for a method must tell the cases
/// apart while it is traced: a mean over nothing is no number.
fn takes_empty(op: &OperationIr) -> bool {
    use BaseOperationIr as B;
    use NumericOperationIr as N;
    match op {
        OperationIr::BaseFloat(op) | OperationIr::BaseInt(op) | OperationIr::BaseBool(op) => {
            matches!(
                op,
                B::Reshape(_)
                    | B::SwapDims(_)
                    | B::Permute(_)
                    | B::Expand(_)
                    | B::Slice(_)
                    | B::SliceAssign(_)
                    | B::Select(_)
                    | B::MaskWhere(_)
                    | B::MaskFill(_)
                    | B::Equal(_)
                    | B::EqualElem(_)
                    | B::NotEqual(_)
                    | B::NotEqualElem(_)
                    | B::Cat(_)
                    | B::Cast(_)
                    | B::Ones(_)
                    | B::Zeros(_)
            )
        }
        OperationIr::NumericFloat(_, op) | OperationIr::NumericInt(_, op) => matches!(
            op,
            N::Add(_)
                | N::AddScalar(_)
                | N::Sub(_)
                | N::SubScalar(_)
                | N::Div(_)
                | N::DivScalar(_)
                | N::Mul(_)
                | N::MulScalar(_)
                | N::Abs(_)
                | N::Neg(_)
                | N::Sign(_)
                | N::Full(_)
                | N::Sum(_)
                | N::SumDim(_)
                | N::Greater(_)
                | N::GreaterElem(_)
                | N::GreaterEqual(_)
                | N::GreaterEqualElem(_)
                | N::Lower(_)
                | N::LowerElem(_)
                | N::LowerEqual(_)
                | N::LowerEqualElem(_)
                | N::Clamp(_)
                | N::ClampMin(_)
                | N::ClampMax(_)
        ),
        OperationIr::Float(_, op) => float::is_elementwise(op),
        OperationIr::Int(op) => int::is_cast(op),
        OperationIr::Bool(_) => true,
        // These are refused by name, not for what they hold.
        OperationIr::Init(_) | OperationIr::Drop(_) | OperationIr::Distributed(_) => true,
        OperationIr::Module(_) | OperationIr::Activation(_) | OperationIr::Custom(_) => false,
    }
}
