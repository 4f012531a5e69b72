//! Rules of the operations that this format has beside burn's.

use kd_graph::DType;
use kd_graph::burn_ir::{CustomOpIr, TensorIr};
use kd_graph::ops::{
    CONV2D, CONV2D_BACKWARD, Packing, SCOPE_CHANNEL, SCOPE_IMAGE, STANDARDIZE, STANDARDIZE_BACKWARD,
};

use super::rule::{Fault, MAX_PARAMETER, Rule, ensure, extents, is, like};

pub(super) fn rule(op: &CustomOpIr) -> Rule {
    match op.id.as_str() {
        CONV2D => {
            let Packing { options, sizes } = packing::<1>(op)?;
            flag("relu", options[0])?;
            let ([x, weight, bias], [y]) = (inputs(op)?, outputs(op)?);
            let conv = conv2d(x, weight, cells(&sizes)?)?;
            is("bias", bias, &[conv.out_channels], DType::F32)?;
            is("y", y, &[conv.cells, conv.out_channels], DType::F32)
        }
        CONV2D_BACKWARD => {
            let Packing { options, sizes } = packing::<2>(op)?;
            let [relu, wanted] = options;
            flag("relu", relu)?;
            ensure((1..8).contains(&wanted), "wanted", || {
                format!("is {wanted}")
            })?;
            let (x, weight, y, dy) = if relu == 1 {
                let [x, weight, y, dy] = inputs(op)?;
                (x, weight, Some(y), dy)
            } else {
                let [x, weight, dy] = inputs(op)?;
                (x, weight, None, dy)
            };
            let conv = conv2d(x, weight, cells(&sizes)?)?;
            let out = [conv.cells, conv.out_channels];
            if let Some(y) = y {
                is("y", y, &out, DType::F32)?;
            }
            is("dy", dy, &out, DType::F32)?;
            let bias = [conv.out_channels];
            let all: [(&'static str, &[usize]); 3] = [
                ("dx", &x.shape),
                ("dweight", &weight.shape),
                ("dbias", &bias),
            ];
            let wanted: Vec<_> = (all.iter().enumerate())
                .filter(|(bit, _)| wanted >> bit & 1 == 1)
                .map(|(_, gradient)| gradient)
                .collect();
            ensure(op.outputs.len() == wanted.len(), "outputs", || {
                format!("are {}, wanted are {}", op.outputs.len(), wanted.len())
            })?;
            (wanted.iter().zip(&op.outputs))
                .try_for_each(|((what, shape), out)| is(what, out, shape, DType::F32))
        }
        STANDARDIZE => {
            let sizes = standardize(op)?;
            let ([x], [y]) = (inputs(op)?, outputs(op)?);
            packed(x, cells(&sizes)?)?;
            like("y", y, x)
        }
        STANDARDIZE_BACKWARD => {
            let sizes = standardize(op)?;
            let ([x, dy], [dx]) = (inputs(op)?, outputs(op)?);
            packed(x, cells(&sizes)?)?;
            like("dy", dy, x)?;
            like("dx", dx, x)
        }
        _ => Err(Fault::Unsupported("the host has no such operation")),
    }
}

struct Conv {
    cells: usize,
    out_channels: usize,
}

/// A convolution's input and weight: `[cells, C_in]`, `[C_out, C_in, k, k]` with an odd k.
fn conv2d(x: &TensorIr, weight: &TensorIr, cells: usize) -> Result<Conv, Fault> {
    let channels = packed(x, cells)?;
    let [out_channels, _, _, k] = extents("weight", weight)?;
    is(
        "weight",
        weight,
        &[out_channels, channels, k, k],
        DType::F32,
    )?;
    ensure(k % 2 == 1 && k <= MAX_PARAMETER, "weight", || {
        format!("has a kernel of {k}, it must be odd to keep sizes")
    })?;
    Ok(Conv {
        cells,
        out_channels,
    })
}

/// Channels of `[cells, C]`.
fn packed(x: &TensorIr, cells: usize) -> Result<usize, Fault> {
    let [_, channels] = extents("x", x)?;
    is("x", x, &[cells, channels], DType::F32)?;
    Ok(channels)
}

fn standardize(op: &CustomOpIr) -> Result<Vec<[usize; 3]>, Fault> {
    let Packing { options, sizes } = packing::<2>(op)?;
    let [scope, relu] = options;
    flag("relu", relu)?;
    ensure(
        [SCOPE_IMAGE, SCOPE_CHANNEL].contains(&scope),
        "scope",
        || format!("is {scope}"),
    )?;
    Ok(sizes)
}

fn packing<const N: usize>(op: &CustomOpIr) -> Result<Packing<N>, Fault> {
    Packing::from_scalars(&op.scalars).ok_or_else(|| Fault::Parameter {
        what: "scalars",
        why: format!(
            "are {}, not {N} options and three extents a level",
            op.scalars.len()
        ),
    })
}

/// Cells of all levels, which have some.
fn cells(sizes: &[[usize; 3]]) -> Result<usize, Fault> {
    let level = |size: &[usize; 3]| {
        let cells = super::rule::elements(size)?;
        (cells >= 1).then_some(cells)
    };
    (sizes.iter())
        .try_fold(0usize, |sum, size| sum.checked_add(level(size)?))
        .filter(|&cells| cells >= 1)
        .ok_or_else(|| Fault::Parameter {
            what: "sizes",
            why: "have no cells, or more than can be counted".to_owned(),
        })
}

fn flag(what: &'static str, value: i64) -> Rule {
    ensure(value == 0 || value == 1, what, || {
        format!("is {value}, neither 0 nor 1")
    })
}

fn inputs<const N: usize>(op: &CustomOpIr) -> Result<[&TensorIr; N], Fault> {
    all("inputs", &op.inputs)
}

fn outputs<const N: usize>(op: &CustomOpIr) -> Result<[&TensorIr; N], Fault> {
    all("outputs", &op.outputs)
}

fn all<'a, const N: usize>(
    what: &'static str,
    tensors: &'a [TensorIr],
) -> Result<[&'a TensorIr; N], Fault> {
    let found = tensors.len();
    let tensors = <&[TensorIr; N]>::try_from(tensors).map_err(|_| Fault::Parameter {
        what,
        why: format!("are {found}, they must be {N}"),
    })?;
    Ok(tensors.each_ref())
}
