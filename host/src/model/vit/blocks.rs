//! A block: attention among the tokens of an image (arXiv 1706.03762), then an MLP on each, both after a
//! normalisation and beside the identity.

use burn::tensor::Tensor;

use super::super::layers::{Builder, Linear};
use super::super::pass::Pass;
use super::super::{Part, ops};
use super::patches::Tokens;
use super::{LayerNorm, linear};

/// One of the blocks.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// From 1, as in the names of taps.
    number: usize,
    heads: usize,
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    /// Block `index`, from 0, of `dim` channels, `hidden` inside the MLP.
    pub(super) fn new(
        builder: &mut Builder,
        index: usize,
        dim: usize,
        heads: usize,
        hidden: usize,
    ) -> Self {
        let name = |part: &str| format!("blocks.{index}.{part}");
        // In forward order, as weights are passed.
        let norm1 = LayerNorm::new(builder, &name("norm1"), dim);
        let mut add = |part: &str, shape| linear(builder, &name(part), shape, Part::Backbone);
        let qkv = add("attn.qkv", [3 * dim, dim]);
        let proj = add("attn.proj", [dim, dim]);
        let norm2 = LayerNorm::new(builder, &name("norm2"), dim);
        let mut add = |part: &str, shape| linear(builder, &name(part), shape, Part::Backbone);
        Block {
            number: index + 1,
            heads,
            norm1,
            qkv,
            proj,
            norm2,
            fc1: add("mlp.fc1", [hidden, dim]),
            fc2: add("mlp.fc2", [dim, hidden]),
        }
    }

    /// Tokens to tokens; `None` if the pass stopped before.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, tokens: Tokens) -> Option<Tokens> {
        let x = tokens.rows.clone();
        let attended = self.attention(pass, &tokens)?;
        let x = x + attended;
        let inner = self.fc1.forward(pass, self.norm2.forward(pass, x.clone()));
        let x = x + self.fc2.forward(pass, ops::gelu(inner));
        let tokens = tokens.with(x);
        pass.offer(&format!("backbone.b{}", self.number), || tokens.grid());
        (!pass.done()).then_some(tokens)
    }

    /// Multi-head self-attention: rows to rows.
    fn attention(&self, pass: &mut Pass<'_>, tokens: &Tokens) -> Option<Tensor<2>> {
        let [rows, dim] = tokens.rows.dims();
        let (n, t, heads) = (tokens.segment.n, tokens.count(), self.heads);
        let normed = self.norm1.forward(pass, tokens.rows.clone());
        let dtype = normed.dtype();
        let parts: [Tensor<2>; 3] = self.qkv.parts(pass, &normed);
        // `[N, heads, T, dim / heads]`.
        let [q, k, v] = parts.map(|x| x.reshape([n, t, heads, dim / heads]).swap_dims(1, 2));
        let scale = ((dim / heads) as f64).sqrt().recip();
        let weights = ops::softmax(q.mul_scalar(scale).matmul(k.swap_dims(2, 3)));
        pass.offer(&format!("attn.b{}", self.number), || weights.clone());
        if pass.done() {
            return None;
        }
        let mixed = ops::as_type(weights, dtype).matmul(v);
        let mixed = mixed.swap_dims(1, 2).reshape([rows, dim]);
        Some(self.proj.forward(pass, mixed))
    }
}
