//! Rules of operations that move elements, whatever their type.

use burn_std::{Shape, Slice, ops::IndexingUpdateOp};
use kd_graph::burn_ir::{BaseOperationIr, BinaryOpIr, ReduceDimOpIr, TensorIr};

use super::rule::{
    Fault, Kind, Rule, bad, broadcast, distinct, dtype, elements, ensure, is, kind, like, replaced,
    scalar, shape, within,
};

/// The rule of an operation on tensors of `of`.
pub(super) fn rule(of: Kind, op: &BaseOperationIr) -> Rule {
    use BaseOperationIr as B;
    match op {
        B::Reshape(op) => {
            kind("input", &op.input, of)?;
            let same = elements(&op.out.shape) == elements(&op.input.shape);
            ensure(same, "out", || {
                format!("is {} from {}", op.out.shape, op.input.shape)
            })?;
            dtype("out", &op.out, op.input.dtype)
        }
        B::SwapDims(op) => {
            kind("input", &op.input, of)?;
            within("dim1", op.dim1, &op.input)?;
            within("dim2", op.dim2, &op.input)?;
            let mut swapped = op.input.shape.to_vec();
            swapped.swap(op.dim1, op.dim2);
            is("out", &op.out, &swapped, op.input.dtype)
        }
        B::Permute(op) => {
            kind("input", &op.input, of)?;
            distinct("axes", &op.axes, &op.input)?;
            ensure(op.axes.len() == op.input.shape.rank(), "axes", || {
                format!("are {:?}, of {}", op.axes, op.input.shape)
            })?;
            let permuted: Vec<usize> = op.axes.iter().map(|&axis| op.input.shape[axis]).collect();
            is("out", &op.out, &permuted, op.input.dtype)
        }
        B::Flip(op) => {
            kind("input", &op.input, of)?;
            distinct("axes", &op.axes, &op.input)?;
            like("out", &op.out, &op.input)
        }
        B::Expand(op) => {
            kind("input", &op.input, of)?;
            let target = op.input.shape.expand(op.out.shape.clone());
            ensure(target.is_ok(), "out", || {
                format!("is {} from {}", op.out.shape, op.input.shape)
            })?;
            dtype("out", &op.out, op.input.dtype)
        }
        B::Unfold(op) => {
            kind("input", &op.input, of)?;
            within("dim", op.dim, &op.input)?;
            let extent = op.input.shape[op.dim];
            let fits = op.size >= 1 && op.size <= extent && op.step >= 1 && op.step <= extent;
            ensure(fits, "size", || {
                let (size, step) = (op.size, op.step);
                format!("is {size} with a step of {step}, of an extent of {extent}")
            })?;
            let windows = (extent - op.size) / op.step + 1;
            let mut unfolded = replaced(&op.input.shape, op.dim, windows);
            unfolded.push(op.size);
            is("out", &op.out, &unfolded, op.input.dtype)
        }
        B::Slice(op) => {
            kind("tensor", &op.tensor, of)?;
            let sliced = sliced(&op.tensor, &op.ranges)?;
            is("out", &op.out, &sliced, op.tensor.dtype)
        }
        B::SliceAssign(op) => {
            kind("tensor", &op.tensor, of)?;
            let sliced = sliced(&op.tensor, &op.ranges)?;
            is("value", &op.value, &sliced, op.tensor.dtype)?;
            like("out", &op.out, &op.tensor)
        }
        B::Select(_) | B::Gather(_) if of == Kind::Bool => Err(Fault::Unsupported(
            "burn's CPU makes unsigned integers of booleans that are looked up",
        )),
        B::Select(op) => {
            kind("tensor", &op.tensor, of)?;
            let selected = selected(&op.tensor, op.dim, &op.indices)?;
            is("out", &op.out, &selected, op.tensor.dtype)
        }
        B::SelectAssign(op) => {
            kind("tensor", &op.tensor, of)?;
            let selected = selected(&op.tensor, op.dim, &op.indices)?;
            is("value", &op.value, &selected, op.tensor.dtype)?;
            update(of, &op.update)?;
            like("out", &op.out, &op.tensor)
        }
        B::Gather(op) => {
            kind("tensor", &op.tensor, of)?;
            indexed(&op.tensor, op.dim, &op.indices)?;
            is("out", &op.out, &op.indices.shape, op.tensor.dtype)
        }
        B::Scatter(op) => {
            kind("tensor", &op.tensor, of)?;
            indexed(&op.tensor, op.dim, &op.indices)?;
            is("value", &op.value, &op.indices.shape, op.tensor.dtype)?;
            update(of, &op.update)?;
            like("out", &op.out, &op.tensor)
        }
        B::MaskWhere(op) => {
            kind("tensor", &op.tensor, of)?;
            kind("mask", &op.mask, Kind::Bool)?;
            dtype("value", &op.value, op.tensor.dtype)?;
            let common = broadcast(&[&op.tensor, &op.mask, &op.value])?;
            is("out", &op.out, &common, op.tensor.dtype)
        }
        B::MaskFill(op) => {
            kind("tensor", &op.tensor, of)?;
            kind("mask", &op.mask, Kind::Bool)?;
            scalar("value", op.value, op.tensor.dtype)?;
            let common = broadcast(&[&op.tensor, &op.mask])?;
            is("out", &op.out, &common, op.tensor.dtype)
        }
        B::Equal(op) | B::NotEqual(op) => compare(of, op),
        B::EqualElem(op) | B::NotEqualElem(op) => {
            kind("lhs", &op.lhs, of)?;
            scalar("rhs", op.rhs, op.lhs.dtype)?;
            shape("out", &op.out, &op.lhs.shape)?;
            truth(of, &op.lhs, &op.out)
        }
        B::RepeatDim(op) => {
            kind("tensor", &op.tensor, of)?;
            within("dim", op.dim, &op.tensor)?;
            let repeated = (op.tensor.shape[op.dim].checked_mul(op.times))
                .filter(|_| op.times >= 1)
                .ok_or_else(|| Fault::Parameter {
                    what: "times",
                    why: format!("is {}, of {}", op.times, op.tensor.shape),
                })?;
            let repeated = replaced(&op.tensor.shape, op.dim, repeated);
            is("out", &op.out, &repeated, op.tensor.dtype)
        }
        B::Cat(op) => {
            let Some(first) = op.tensors.first() else {
                return bad("tensors", "are none".to_owned());
            };
            kind("tensors", first, of)?;
            for tensor in &op.tensors {
                dtype("tensors", tensor, first.dtype)?;
            }
            let shapes = || op.tensors.iter().map(|t| &t.shape);
            // The sum of extents cannot overflow: each is bounded, and each takes a byte at least.
            let joined = Shape::cat(shapes(), op.dim).map_err(|_| Fault::Parameter {
                what: "tensors",
                why: format!(
                    "do not join in dimension {}: {:?}",
                    op.dim,
                    shapes().take(8).map(|s| s.to_vec()).collect::<Vec<_>>()
                ),
            })?;
            is("out", &op.out, &joined, first.dtype)
        }
        B::Cast(op) => {
            if of != Kind::Float {
                return Err(Fault::Unsupported(
                    "burn's interpreter has no cast of integers or booleans to their own kind",
                ));
            }
            kind("input", &op.input, of)?;
            shape("out", &op.out, &op.input.shape)?;
            kind("out", &op.out, of)
        }
        B::Ones(op) | B::Zeros(op) => kind("out", &op.out, of),
        B::Empty(_) => Err(Fault::Unsupported("nothing wrote its values")),
        B::All(op) | B::Any(op) => {
            kind("input", &op.input, of)?;
            shape("out", &op.out, &[1])?;
            truth(of, &op.input, &op.out)
        }
        B::AllDim(op) | B::AnyDim(op) => {
            kind("input", &op.input, of)?;
            reduced(op)?;
            truth(of, &op.input, &op.out)
        }
        B::ScatterNd(_) | B::GatherNd(_) => {
            Err(Fault::Unsupported("use Gather, Scatter or Select"))
        }
    }
}

/// The shape after a reduction of one dimension to one element.
pub(super) fn reduced(op: &ReduceDimOpIr) -> Rule {
    within("axis", op.axis, &op.input)?;
    ensure(op.accumulator_len == 1, "accumulator_len", || {
        format!("is {}, it must be 1", op.accumulator_len)
    })?;
    shape("out", &op.out, &replaced(&op.input.shape, op.axis, 1))
}

/// A comparison of two tensors.
pub(super) fn compare(of: Kind, op: &BinaryOpIr) -> Rule {
    kind("lhs", &op.lhs, of)?;
    dtype("rhs", &op.rhs, op.lhs.dtype)?;
    shape("out", &op.out, &broadcast(&[&op.lhs, &op.rhs])?)?;
    truth(of, &op.lhs, &op.out)
}

/// The type of a truth: the interpreter makes it as declared, but keeps that of booleans.
pub(super) fn truth(of: Kind, input: &TensorIr, out: &TensorIr) -> Rule {
    match of {
        Kind::Bool => dtype("out", out, input.dtype),
        Kind::Float | Kind::Int => kind("out", out, Kind::Bool),
    }
}

/// Bounds and steps; the shape that they leave.
fn sliced(tensor: &TensorIr, ranges: &[Slice]) -> Result<Vec<usize>, Fault> {
    let fault = |why: String| Fault::Parameter {
        what: "ranges",
        why: format!("{why}, of {}", tensor.shape),
    };
    if ranges.len() > tensor.shape.rank() {
        return Err(fault(format!("are {}", ranges.len())));
    }
    let mut extents = tensor.shape.to_vec();
    for (range, extent) in ranges.iter().zip(&mut extents) {
        let bound = isize::try_from(*extent).map_err(|_| fault("are too large".to_owned()))?;
        let inside = |at: isize| (-bound..=bound).contains(&at);
        // A larger step reaches as far as one of the whole extent.
        let steps = range.step != 0 && range.step.unsigned_abs() <= (*extent).max(1);
        if !steps || !inside(range.start) || !range.end.is_none_or(inside) {
            return Err(fault(format!("hold {range:?}")));
        }
        *extent = range.output_size(*extent);
    }
    Ok(extents)
}

/// A tensor with the entries of a list in one dimension.
fn selected(tensor: &TensorIr, dim: usize, indices: &TensorIr) -> Result<Vec<usize>, Fault> {
    within("dim", dim, tensor)?;
    kind("indices", indices, Kind::Int)?;
    let [count] = super::rule::extents("indices", indices)?;
    Ok(replaced(&tensor.shape, dim, count))
}

/// Indices into one dimension for every place of the others.
fn indexed(tensor: &TensorIr, dim: usize, indices: &TensorIr) -> Rule {
    within("dim", dim, tensor)?;
    kind("indices", indices, Kind::Int)?;
    super::rule::rank("indices", indices, tensor.shape.rank())?;
    let extent = indices.shape[dim];
    shape("indices", indices, &replaced(&tensor.shape, dim, extent))
}

fn update(of: Kind, update: &IndexingUpdateOp) -> Rule {
    let known = of != Kind::Bool || matches!(update, IndexingUpdateOp::Add);
    ensure(known, "update", || {
        format!("is {update:?}, booleans know Add alone")
    })
}
