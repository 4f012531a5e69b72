//! Rules of layers: norms, linear layers, tables and attention; convolutions and poolings have their own.

use burn_std::Shape;
use kd_graph::burn_ir::{AttentionOpIr, ModuleOperationIr, TensorIr};

use super::Limits;
use super::float::positive;
use super::rule::{
    Fault, Kind, Rule, dtype, ensure, extents, finite, floats, is, kind, like, replaced, shape,
};
use super::{conv, pool};

pub(super) fn rule(op: &ModuleOperationIr, limits: &Limits) -> Rule {
    use ModuleOperationIr as M;
    match op {
        M::BatchNorm(op) => {
            kind("x", &op.x, Kind::Float)?;
            finite("epsilon", op.epsilon)?;
            let [_, channels, ..] = *op.x.shape.as_slice() else {
                return Err(too_flat("x", &op.x));
            };
            for (what, tensor) in [
                ("gamma", &op.gamma),
                ("beta", &op.beta),
                ("mean", &op.mean),
                ("variance", &op.variance),
            ] {
                is(what, tensor, &[channels], op.x.dtype)?;
            }
            like("out", &op.out, &op.x)
        }
        M::LayerNorm(op) => {
            kind("input", &op.input, Kind::Float)?;
            positive("epsilon", op.epsilon)?;
            let width = last(&op.input.shape);
            is("gamma", &op.gamma, &[width], op.input.dtype)?;
            if let Some(beta) = &op.beta {
                is("beta", beta, &[width], op.input.dtype)?;
            }
            like("out", &op.out, &op.input)
        }
        M::Embedding(op) => {
            kind("weights", &op.weights, Kind::Float)?;
            let rows = rows_of(&op.weights, &op.indices)?;
            is("out", &op.out, &rows, op.weights.dtype)
        }
        M::EmbeddingBackward(op) => {
            kind("weights", &op.weights, Kind::Float)?;
            let rows = rows_of(&op.weights, &op.indices)?;
            is("out_grad", &op.out_grad, &rows, op.weights.dtype)?;
            like("out", &op.out, &op.weights)
        }
        M::Linear(op) => {
            floats(&op.x, &[("weight", &op.weight)])?;
            let [inputs, outputs] = extents("weight", &op.weight)?;
            let out = linear("x", &op.x, inputs, outputs)?;
            if let Some(bias) = &op.bias {
                is("bias", bias, &[outputs], op.x.dtype)?;
            }
            is("out", &op.out, &out, op.x.dtype)
        }
        M::LinearXBackward(op) => {
            floats(&op.output_grad, &[("weight", &op.weight)])?;
            let [inputs, outputs] = extents("weight", &op.weight)?;
            let out = linear("output_grad", &op.output_grad, outputs, inputs)?;
            is("out", &op.out, &out, op.output_grad.dtype)
        }
        M::LinearWeightBackward(op) => {
            floats(&op.x, &[("output_grad", &op.output_grad)])?;
            let (inputs, outputs) = (last(&op.x.shape), last(&op.output_grad.shape));
            let grad = linear("x", &op.x, inputs, outputs)?;
            shape("output_grad", &op.output_grad, &grad)?;
            is("out", &op.out, &[inputs, outputs], op.x.dtype)
        }
        M::LinearBiasBackward(op) => {
            kind("output_grad", &op.output_grad, Kind::Float)?;
            let outputs = last(&op.output_grad.shape);
            linear("output_grad", &op.output_grad, outputs, outputs)?;
            is("out", &op.out, &[outputs], op.output_grad.dtype)
        }
        M::Attention(op) => attention(op),
        M::CtcLoss(_) | M::CtcLossBackward(_) => {
            Err(Fault::Unsupported("no detector has a sequence to align"))
        }
        op => (conv::rule(op, limits).or_else(|| pool::rule(op, limits)))
            .unwrap_or(Err(Fault::Unsupported("it has no rule"))),
    }
}

fn too_flat(what: &'static str, tensor: &TensorIr) -> Fault {
    Fault::Rank {
        what,
        found: tensor.shape.to_vec(),
        expected: 2,
    }
}

/// The last extent; every tensor has one dimension at least.
fn last(shape: &Shape) -> usize {
    shape.last().copied().unwrap_or(0)
}

/// `[..., from]` to `[..., to]`.
fn linear(what: &'static str, x: &TensorIr, from: usize, to: usize) -> Result<Vec<usize>, Fault> {
    let dim = (x.shape.rank().checked_sub(1))
        .filter(|&dim| dim >= 1)
        .ok_or_else(|| too_flat(what, x))?;
    shape(what, x, &replaced(&x.shape, dim, from))?;
    Ok(replaced(&x.shape, dim, to))
}

/// Rows of a table, for a table of indices.
fn rows_of(weights: &TensorIr, indices: &TensorIr) -> Result<[usize; 3], Fault> {
    kind("indices", indices, Kind::Int)?;
    let [_, width] = extents("weights", weights)?;
    let [batch, length] = extents("indices", indices)?;
    Ok([batch, length, width])
}

/// `[batch, heads, tokens, width]` each; queries and values may have other counts than keys.
fn attention(op: &AttentionOpIr) -> Rule {
    floats(&op.query, &[("key", &op.key), ("value", &op.value)])?;
    let [batch, heads, queries, width] = extents("query", &op.query)?;
    let [_, _, keys, _] = extents::<4>("key", &op.key)?;
    let [_, _, _, values] = extents::<4>("value", &op.value)?;
    shape("key", &op.key, &[batch, heads, keys, width])?;
    shape("value", &op.value, &[batch, heads, keys, values])?;

    let scores = [batch, heads, queries, keys];
    let broadcasts = |what, tensor: &TensorIr| {
        let extents = extents::<4>(what, tensor)?;
        let fits = (extents.iter().zip(scores)).all(|(&e, score)| e == score || e == 1);
        ensure(fits, what, || {
            format!("is {extents:?}, of scores {scores:?}")
        })
    };
    if let Some(mask) = &op.mask {
        kind("mask", mask, Kind::Bool)?;
        broadcasts("mask", mask)?;
    }
    if let Some(bias) = &op.attn_bias {
        dtype("attn_bias", bias, op.query.dtype)?;
        broadcasts("attn_bias", bias)?;
    }
    if let Some(scale) = op.options.scale {
        finite("scale", scale)?;
    }
    if let Some(cap) = op.options.softcap {
        positive("softcap", cap)?;
    }
    is(
        "out",
        &op.out,
        &[batch, heads, queries, values],
        op.query.dtype,
    )
}
