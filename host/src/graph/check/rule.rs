//! What rules are written with.
//!
//! A rule sees tensors that were read and that fit the limits: every extent and every product of
//! extents is bounded. Results are not bounded yet, so rules compare them and never compute with them.

use kd_graph::burn_ir::{ScalarIr, TensorIr};
use kd_graph::{BoolStore, DType};

use burn_std::Shape;

pub(super) use super::error::Fault;

/// A rule's verdict.
pub(super) type Rule = Result<(), Fault>;

/// Parameters of convolutions and poolings are no larger, so that products of two fit everywhere.
pub(super) const MAX_PARAMETER: usize = 1 << 16;

/// What the interpreter tells apart: it has three sorts of handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Float,
    Int,
    Bool,
}

impl Kind {
    /// `None` for types that programs may not have: f64 and flex32, which no method needs and GPUs
    /// lack, narrow and unsigned integers, quantised values, booleans in words.
    pub(super) fn of(dtype: DType) -> Option<Kind> {
        match dtype {
            DType::F32 | DType::F16 | DType::BF16 => Some(Kind::Float),
            DType::I32 | DType::I64 => Some(Kind::Int),
            DType::Bool(BoolStore::Native | BoolStore::U8) => Some(Kind::Bool),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Float => "a float",
            Kind::Int => "an integer",
            Kind::Bool => "a bool",
        }
    }
}

/// Product of extents.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    // A zero makes the product small, wherever it stands.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &e| n.checked_mul(e))
}

pub(super) fn bad(what: &'static str, why: String) -> Rule {
    Err(Fault::Parameter { what, why })
}

pub(super) fn ensure(holds: bool, what: &'static str, why: impl FnOnce() -> String) -> Rule {
    if holds { Ok(()) } else { bad(what, why()) }
}

pub(super) fn kind(what: &'static str, tensor: &TensorIr, kind: Kind) -> Rule {
    if Kind::of(tensor.dtype) == Some(kind) {
        return Ok(());
    }
    Err(Fault::kind(what, tensor.dtype, kind.name()))
}

pub(super) fn dtype(what: &'static str, tensor: &TensorIr, dtype: DType) -> Rule {
    if tensor.dtype == dtype {
        return Ok(());
    }
    Err(Fault::kind(what, tensor.dtype, dtype.name()))
}

/// Several tensors of the type of `first`, which is float.
pub(super) fn floats(first: &TensorIr, others: &[(&'static str, &TensorIr)]) -> Rule {
    kind("input", first, Kind::Float)?;
    others
        .iter()
        .try_for_each(|(what, tensor)| dtype(what, tensor, first.dtype))
}

pub(super) fn shape(what: &'static str, tensor: &TensorIr, expected: &[usize]) -> Rule {
    if tensor.shape.as_slice() == expected {
        return Ok(());
    }
    Err(Fault::Shape {
        what,
        found: tensor.shape.to_vec(),
        expected: expected.to_vec(),
    })
}

/// Shape and type.
pub(super) fn is(what: &'static str, tensor: &TensorIr, expected: &[usize], of: DType) -> Rule {
    shape(what, tensor, expected)?;
    dtype(what, tensor, of)
}

/// The shape and type of another tensor.
pub(super) fn like(what: &'static str, tensor: &TensorIr, other: &TensorIr) -> Rule {
    is(what, tensor, &other.shape, other.dtype)
}

pub(super) fn rank(what: &'static str, tensor: &TensorIr, expected: usize) -> Rule {
    if tensor.shape.rank() == expected {
        return Ok(());
    }
    Err(Fault::Rank {
        what,
        found: tensor.shape.to_vec(),
        expected,
    })
}

/// The extents of a tensor that must have `N`.
pub(super) fn extents<const N: usize>(
    what: &'static str,
    tensor: &TensorIr,
) -> Result<[usize; N], Fault> {
    rank(what, tensor, N)?;
    let mut extents = [0; N];
    extents.copy_from_slice(&tensor.shape);
    Ok(extents)
}

/// A dimension's index.
pub(super) fn within(what: &'static str, dim: usize, tensor: &TensorIr) -> Rule {
    ensure(dim < tensor.shape.rank(), what, || {
        format!("is {dim}, of {}", tensor.shape)
    })
}

/// Different dimensions' indices.
pub(super) fn distinct(what: &'static str, dims: &[usize], tensor: &TensorIr) -> Rule {
    let (count, rank) = (dims.len(), tensor.shape.rank());
    ensure(count <= rank, what, || {
        format!("are {count}, of {}", tensor.shape)
    })?;
    dims.iter().try_for_each(|&dim| within(what, dim, tensor))?;
    let repeated = (1..dims.len()).any(|i| dims[..i].contains(&dims[i]));
    ensure(!repeated, what, || format!("repeats one: {dims:?}"))
}

/// `shape` with one extent replaced.
pub(super) fn replaced(shape: &Shape, dim: usize, extent: usize) -> Vec<usize> {
    let mut extents = shape.to_vec();
    extents[dim] = extent;
    extents
}

/// What tensors of one rank broadcast to.
pub(super) fn broadcast(tensors: &[&TensorIr]) -> Result<Shape, Fault> {
    Shape::broadcast_many(tensors.iter().map(|t| &t.shape)).map_err(|_| Fault::Parameter {
        what: "shapes",
        why: format!(
            "do not broadcast: {:?}",
            tensors.iter().map(|t| t.shape.to_vec()).collect::<Vec<_>>()
        ),
    })
}

/// A number that the backend turns into `dtype`: conversions of anything else panic.
pub(super) fn scalar(what: &'static str, value: ScalarIr, dtype: DType) -> Rule {
    let fits = match (Kind::of(dtype), value) {
        // Kernels compute in f32; a finite number beyond it has none.
        (Some(Kind::Float), ScalarIr::Float(v)) => !v.is_finite() || v.abs() <= f64::from(f32::MAX),
        (Some(Kind::Float), ScalarIr::Int(_) | ScalarIr::UInt(_)) => true,
        (Some(Kind::Int), ScalarIr::Int(v)) => dtype == DType::I64 || i32::try_from(v).is_ok(),
        (Some(Kind::Bool), ScalarIr::Bool(_)) => true,
        _ => false,
    };
    ensure(fits, what, || {
        format!("is {value:?}, which is no {}", dtype.name())
    })
}

/// A finite float, such as a layer's constant.
pub(super) fn finite(what: &'static str, value: ScalarIr) -> Result<f64, Fault> {
    match value {
        ScalarIr::Float(v) if v.is_finite() => Ok(v),
        _ => Err(Fault::Parameter {
            what,
            why: format!("is {value:?}, it must be a finite float"),
        }),
    }
}
