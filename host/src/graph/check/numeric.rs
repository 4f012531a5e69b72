//! Rules of arithmetic, comparisons, reductions and sorting, on floats and integers.

use burn_std::Distribution;
use kd_graph::DType;
use kd_graph::burn_ir::{
    BinaryOpIr, DimOpIr, NumericOperationIr, PadModeIr, PadOpIr, ReduceDimOpIr, ReduceOpIr,
    ScalarIr, ScalarOpIr, TensorIr, UnaryOpIr,
};

use super::base::{compare, reduced, truth};
use super::rule::{
    Fault, Kind, Rule, bad, broadcast, distinct, dtype, ensure, is, kind, like, replaced, scalar,
    shape, within,
};

/// The rule of an operation on tensors of `of`.
pub(super) fn rule(of: Kind, op: &NumericOperationIr) -> Rule {
    use NumericOperationIr as N;
    match op {
        N::Add(op) | N::Sub(op) | N::Mul(op) | N::Div(op) | N::Rem(op) => binary(of, op),
        N::AddScalar(op) | N::SubScalar(op) | N::MulScalar(op) => with_scalar(of, op),
        N::DivScalar(op) | N::RemScalar(op) => {
            with_scalar(of, op)?;
            ensure(
                op.rhs != ScalarIr::Int(0) || of == Kind::Float,
                "rhs",
                || "is 0, which divides no integer".to_owned(),
            )
        }
        N::ClampMin(op) | N::ClampMax(op) => with_scalar(of, op),
        N::Clamp(op) => {
            kind("tensor", &op.tensor, of)?;
            scalar("min", op.min, op.tensor.dtype)?;
            scalar("max", op.max, op.tensor.dtype)?;
            ensure(in_order(op.min, op.max), "min", || {
                format!("is {:?} with a max of {:?}", op.min, op.max)
            })?;
            like("out", &op.out, &op.tensor)
        }
        N::Abs(op) | N::Neg(op) | N::Sign(op) => unary(of, op),
        N::Full(op) => {
            kind("out", &op.out, of)?;
            scalar("value", op.value, op.out.dtype)
        }
        N::Mean(op) | N::Sum(op) | N::Prod(op) | N::Max(op) | N::Min(op) | N::MaxAbs(op) => {
            reduce(of, op)
        }
        N::MeanDim(op)
        | N::SumDim(op)
        | N::ProdDim(op)
        | N::MaxDim(op)
        | N::MinDim(op)
        | N::MaxAbsDim(op) => {
            kind("input", &op.input, of)?;
            reduced(op)?;
            dtype("out", &op.out, op.input.dtype)
        }
        N::SumDims(op) => {
            kind("input", &op.input, of)?;
            distinct("axes", &op.axes, &op.input)?;
            let mut summed = op.input.shape.to_vec();
            op.axes.iter().for_each(|&axis| summed[axis] = 1);
            is("out", &op.out, &summed, op.input.dtype)
        }
        N::ArgMax(op) | N::ArgMin(op) => {
            kind("input", &op.input, of)?;
            reduced(op)?;
            index(of, &op.input, &op.out)
        }
        N::TopK(op) => {
            kind("input", &op.input, of)?;
            largest(op)?;
            dtype("out", &op.out, op.input.dtype)
        }
        N::ArgTopK(op) => {
            kind("input", &op.input, of)?;
            largest(op)?;
            index(of, &op.input, &op.out)
        }
        N::TopKWithIndices(op) => {
            kind("tensor", &op.tensor, of)?;
            let kept = kept(&op.tensor, op.dim, op.k)?;
            is("out", &op.out, &kept, op.tensor.dtype)?;
            shape("out_indices", &op.out_indices, &kept)?;
            index(of, &op.tensor, &op.out_indices)
        }
        N::MaxDimWithIndices(op) | N::MinDimWithIndices(op) => {
            kind("tensor", &op.tensor, of)?;
            let kept = kept(&op.tensor, op.dim, 1)?;
            is("out", &op.out, &kept, op.tensor.dtype)?;
            shape("out_indices", &op.out_indices, &kept)?;
            index(of, &op.tensor, &op.out_indices)
        }
        N::Greater(op) | N::GreaterEqual(op) | N::Lower(op) | N::LowerEqual(op) => compare(of, op),
        N::GreaterElem(op) | N::GreaterEqualElem(op) | N::LowerElem(op) | N::LowerEqualElem(op) => {
            kind("lhs", &op.lhs, of)?;
            scalar("rhs", op.rhs, op.lhs.dtype)?;
            shape("out", &op.out, &op.lhs.shape)?;
            truth(of, &op.lhs, &op.out)
        }
        N::Powi(op) => {
            kind("lhs", &op.lhs, of)?;
            kind("rhs", &op.rhs, Kind::Int)?;
            if of == Kind::Int {
                dtype("rhs", &op.rhs, op.lhs.dtype)?;
            }
            is(
                "out",
                &op.out,
                &broadcast(&[&op.lhs, &op.rhs])?,
                op.lhs.dtype,
            )
        }
        N::PowiScalar(op) => {
            kind("lhs", &op.lhs, of)?;
            let exponents = match of {
                Kind::Float => i64::from(i32::MIN)..=i64::from(i32::MAX),
                Kind::Int | Kind::Bool => 0..=i64::from(i32::MAX),
            };
            let whole = matches!(op.rhs, ScalarIr::Int(v) if exponents.contains(&v));
            ensure(whole, "rhs", || format!("is {:?}", op.rhs))?;
            like("out", &op.out, &op.lhs)
        }
        N::CumSum(op) | N::CumProd(op) | N::CumMin(op) | N::CumMax(op) => along(of, op),
        N::Sort(op) => {
            kind("input", &op.input, of)?;
            within("dim", op.dim, &op.input)?;
            like("out", &op.out, &op.input)
        }
        N::ArgSort(op) => {
            kind("input", &op.input, of)?;
            within("dim", op.dim, &op.input)?;
            shape("out", &op.out, &op.input.shape)?;
            index(of, &op.input, &op.out)
        }
        N::SortWithIndices(op) => {
            kind("input", &op.input, of)?;
            within("dim", op.dim, &op.input)?;
            like("out", &op.out, &op.input)?;
            shape("out_indices", &op.out_indices, &op.input.shape)?;
            index(of, &op.input, &op.out_indices)
        }
        N::Pad(op) => pad(of, op),
        N::IntRandom(op) => {
            kind("out", &op.out, Kind::Int)?;
            if of != Kind::Int {
                return Err(Fault::Unsupported(
                    "burn's interpreter draws no such integers",
                ));
            }
            drawn(op.distribution, op.out.dtype)
        }
    }
}

pub(super) fn unary(of: Kind, op: &UnaryOpIr) -> Rule {
    kind("input", &op.input, of)?;
    like("out", &op.out, &op.input)
}

pub(super) fn binary(of: Kind, op: &BinaryOpIr) -> Rule {
    kind("lhs", &op.lhs, of)?;
    dtype("rhs", &op.rhs, op.lhs.dtype)?;
    is(
        "out",
        &op.out,
        &broadcast(&[&op.lhs, &op.rhs])?,
        op.lhs.dtype,
    )
}

pub(super) fn with_scalar(of: Kind, op: &ScalarOpIr) -> Rule {
    kind("lhs", &op.lhs, of)?;
    scalar("rhs", op.rhs, op.lhs.dtype)?;
    like("out", &op.out, &op.lhs)
}

/// The same shape, computed along one dimension.
pub(super) fn along(of: Kind, op: &DimOpIr) -> Rule {
    kind("input", &op.input, of)?;
    within("axis", op.axis, &op.input)?;
    like("out", &op.out, &op.input)
}

fn reduce(of: Kind, op: &ReduceOpIr) -> Rule {
    kind("input", &op.input, of)?;
    is("out", &op.out, &[1], op.input.dtype)
}

/// The type of indices: as declared for floats, that of the input for integers, where the CPU makes
/// i64 whatever the input is.
fn index(of: Kind, input: &TensorIr, out: &TensorIr) -> Rule {
    match of {
        Kind::Int => {
            dtype("input", input, DType::I64)?;
            dtype("out", out, DType::I64)
        }
        Kind::Float | Kind::Bool => kind("out", out, Kind::Int),
    }
}

/// The shape that keeps `k` entries of one dimension.
fn kept(tensor: &TensorIr, dim: usize, k: usize) -> Result<Vec<usize>, Fault> {
    within("dim", dim, tensor)?;
    let extent = tensor.shape[dim];
    ensure((1..=extent).contains(&k), "k", || {
        format!("is {k}, of {} in dimension {dim}", tensor.shape)
    })?;
    Ok(replaced(&tensor.shape, dim, k))
}

fn largest(op: &ReduceDimOpIr) -> Rule {
    let kept = kept(&op.input, op.axis, op.accumulator_len)?;
    shape("out", &op.out, &kept)
}

/// Whether a range of numbers is one: kernels panic on others.
fn in_order(min: ScalarIr, max: ScalarIr) -> bool {
    let float = |value| match value {
        ScalarIr::Float(v) => v,
        ScalarIr::Int(v) => v as f64,
        ScalarIr::UInt(v) => v as f64,
        ScalarIr::Bool(_) => f64::NAN,
    };
    match (min, max) {
        (ScalarIr::Int(min), ScalarIr::Int(max)) => min <= max,
        (min, max) => float(min) <= float(max),
    }
}

fn pad(of: Kind, op: &PadOpIr) -> Rule {
    kind("input", &op.input, of)?;
    let fault = || Fault::Parameter {
        what: "padding",
        why: format!("is {:?}, of {}", op.padding, op.input.shape),
    };
    let (count, rank) = (op.padding.len(), op.input.shape.rank());
    ensure(count == rank, "padding", || {
        format!("are {count}, of {}", op.input.shape)
    })?;
    let mut padded = op.input.shape.to_vec();
    for (&(before, after), extent) in op.padding.iter().zip(&mut padded) {
        if matches!(op.mode, PadModeIr::Reflect) && (before >= *extent || after >= *extent) {
            return Err(fault());
        }
        *extent = (extent.checked_add(before))
            .and_then(|extent| extent.checked_add(after))
            .ok_or_else(fault)?;
    }
    if let PadModeIr::Constant(value) = op.mode {
        // Recorded as a float whatever the tensor's type is, and converted by way of f32.
        const WHOLE_IN_F32: f64 = (1 << 24) as f64;
        let whole = |v: f64| v.fract() == 0.0 && v.abs() <= WHOLE_IN_F32;
        match (of, value) {
            (Kind::Int, ScalarIr::Float(v)) => ensure(whole(v), "mode", || format!("is {v}"))?,
            (Kind::Int, ScalarIr::Int(v)) => {
                ensure(whole(v as f64), "mode", || format!("is {v}"))?;
            }
            (_, value) => scalar("mode", value, op.input.dtype)?,
        }
    }
    is("out", &op.out, &padded, op.input.dtype)
}

/// Whether numbers can be drawn so: samplers panic on other parameters.
pub(super) fn drawn(distribution: Distribution, dtype: DType) -> Rule {
    // The largest bound whose span each type can hold.
    let bound = match dtype {
        DType::F16 => 30_000.0,
        DType::I32 => 1e9,
        DType::I64 => 4e18,
        _ => 1e38,
    };
    let fits = match distribution {
        Distribution::Default => true,
        Distribution::Bernoulli(p) => (0.0..=1.0).contains(&p),
        Distribution::Uniform(low, high) => {
            // Rounded to the type, the bounds must still be apart.
            let apart = match dtype {
                DType::I32 | DType::I64 => low.trunc() < high.trunc(),
                _ => (high - low) > 0.01 * low.abs().max(high.abs()) && (high - low) > 1e-4,
            };
            apart && low.abs() <= bound && high.abs() <= bound
        }
        Distribution::Normal(mean, std) => mean.abs() <= bound && (0.0..=bound).contains(&std),
    };
    if fits {
        return Ok(());
    }
    bad("distribution", format!("is {distribution:?}"))
}
