//! Vision transformer (arXiv 2010.11929) in the layout of DeiT (arXiv 2012.12877): timm's
//! `VisionTransformer` with a class token, its parameters under timm's names.
//!
//! Blocks normalise first, with an epsilon of 1e-6; the activation is the exact GELU. There is neither
//! dropout nor drop path, which timm leaves off too unless it is told otherwise: a pass has no random
//! draws of its own, so that student and teacher see the same features in every pass.
//!
//! A model is built for images of one size: its position embedding has a row for each cell of the grid
//! of patches.

mod blocks;
mod patches;

use burn::tensor::Tensor;

use self::blocks::Block;
use self::patches::Patches;
use super::layers::{Builder, Linear};
use super::ops;
use super::pass::Pass;
use super::validate::{require, validate};
use super::{
    ClassifierEntry, Forward, ForwardRequest, Init, Model, ModelError, Output, ParamKind,
    ParamSpec, Part, TapSpec,
};
use crate::config::{ModelConfig, Task};

inventory::submit! {
    ClassifierEntry { name: "vit", build }
}

fn build(config: &ModelConfig, num_classes: usize) -> Result<Box<dyn Model>, ModelError> {
    Ok(Box::new(Vit::new(config, num_classes)?))
}

/// Images come in the size that the model is built for.
const SIZE_DIVISOR: usize = 1;
/// timm's epsilon of the layer normalisations.
const NORM_EPS: f64 = 1e-6;
/// Of weights and positions. timm draws them by `trunc_normal_`, whose ends at ±2 are a hundred
/// deviations away: none is ever cut.
const WEIGHT_STD: f32 = 0.02;
/// Of the class token.
const TOKEN_STD: f32 = 1e-6;

/// The architecture; weights come with each call.
#[derive(Clone, Debug)]
struct Vit {
    specs: Vec<ParamSpec>,
    taps: Vec<TapSpec>,
    /// `[height, width]` of the images.
    image_size: [usize; 2],
    patches: Patches,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    num_classes: usize,
}

impl Vit {
    fn new(config: &ModelConfig, num_classes: usize) -> Result<Self, ModelError> {
        validate(config, num_classes)?;
        let image_size = checked(config)?;
        let vit = &config.vit;
        let (dim, patch) = (vit.dim, vit.patch_size);
        let grid = image_size.map(|extent| extent / patch);
        let mut builder = Builder::default();
        let patches = Patches::new(&mut builder, patch, dim, grid);
        let hidden = hidden(dim, vit.mlp_ratio);
        let blocks = (0..vit.depth).map(|i| Block::new(&mut builder, i, dim, vit.heads, hidden));
        let blocks = blocks.collect();
        let norm = LayerNorm::new(&mut builder, "norm", dim);
        let head = linear(&mut builder, "head", [num_classes, dim], Part::Head);
        Ok(Vit {
            specs: builder.finish(),
            taps: taps(config, num_classes),
            image_size,
            patches,
            blocks,
            norm,
            head,
            num_classes,
        })
    }

    /// Logits `[N, K]`; `None` if the pass stopped before.
    ///
    /// # Panics
    /// If the images have another size than the model is built for.
    fn logits(&self, pass: &mut Pass<'_>, images: Tensor<4>) -> Option<Tensor<2>> {
        let [_, _, height, width] = images.dims();
        assert!(
            [height, width] == self.image_size,
            "the positions are those of {:?} images, got {height}x{width}; set `vit.image_size` of \
             this model to the size of its images",
            self.image_size
        );
        pass.offer("image", || images.clone());
        if pass.done() {
            return None;
        }
        let mut tokens = self.patches.forward(pass, images)?;
        for block in &self.blocks {
            tokens = block.forward(pass, tokens)?;
        }
        let normed = self.norm.forward(pass, tokens.rows.clone());
        let tokens = tokens.with(normed);
        pass.offer("feat.last", || tokens.grid());
        if pass.done() {
            return None;
        }
        let logits = self.head.forward(pass, tokens.class());
        let logits = ops::in_f32(logits);
        let [n, k] = logits.dims();
        pass.offer("logits", || logits.clone().reshape([n, k, 1, 1]));
        (!pass.done()).then_some(logits)
    }
}

/// Channels inside an MLP.
fn hidden(dim: usize, ratio: f64) -> usize {
    (dim as f64 * ratio) as usize
}

/// The size of the images.
///
/// # Errors
/// On the first key of `[vit]`, or beside it, whose value makes no sense.
fn checked(config: &ModelConfig) -> Result<[usize; 2], ModelError> {
    let vit = &config.vit;
    for (key, value) in [
        ("vit.patch_size", vit.patch_size),
        ("vit.dim", vit.dim),
        ("vit.depth", vit.depth),
        ("vit.heads", vit.heads),
    ] {
        require(key, value >= 1, || {
            format!("got {value}, expected 1 or more")
        })?;
    }
    let (dim, heads, ratio) = (vit.dim, vit.heads, vit.mlp_ratio);
    require("vit.dim", dim.is_multiple_of(heads), || {
        format!("got {dim}, expected a multiple of `vit.heads` ({heads})")
    })?;
    let whole = ratio.is_finite() && ratio > 0.0 && hidden(dim, ratio) >= 1;
    require("vit.mlp_ratio", whole, || {
        format!("got {ratio}, which leaves no channel of {dim}")
    })?;
    let layers = config.trainable_layers;
    require("trainable_layers", layers == 5, || {
        format!(
            "got {layers}, but a vision transformer has no stages to count; set it to 5: all learn"
        )
    })?;
    let size = &vit.image_size;
    let Ok(size) = <[usize; 2]>::try_from(size.as_slice()) else {
        return Err(ModelError::Config {
            key: "vit.image_size",
            reason: format!("got {size:?}, expected the `[height, width]` of the images"),
        });
    };
    let patch = vit.patch_size;
    let fits = size.iter().all(|&extent| extent >= patch);
    require("vit.image_size", fits, || {
        format!("got {size:?}, expected at least one patch of `vit.patch_size` ({patch}) each way")
    })?;
    Ok(size)
}

/// In the order of the pass. Attention is between tokens and logits are of the whole image: they have no
/// grid.
fn taps(config: &ModelConfig, num_classes: usize) -> Vec<TapSpec> {
    let vit = &config.vit;
    let tap = |name: String, channels, stride| TapSpec {
        name,
        channels,
        stride,
    };
    let grid = |name: &str| tap(name.to_owned(), vit.dim, vit.patch_size);
    let mut taps = vec![
        tap("image".to_owned(), 3, 1),
        grid("stem.conv"),
        grid("stem"),
    ];
    for i in 1..=vit.depth {
        taps.push(tap(format!("attn.b{i}"), vit.heads, 0));
        taps.push(grid(&format!("backbone.b{i}")));
    }
    taps.push(grid("feat.last"));
    taps.push(tap("logits".to_owned(), num_classes, 0));
    taps
}

impl Model for Vit {
    fn task(&self) -> Task {
        Task::Classification
    }

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn taps(&self) -> &[TapSpec] {
        &self.taps
    }

    fn size_divisor(&self) -> usize {
        SIZE_DIVISOR
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    fn forward(
        &self,
        weights: &[Tensor<1>],
        images: Tensor<4>,
        request: &ForwardRequest,
    ) -> Forward {
        let mut pass = Pass::new(weights, &self.taps, request);
        let logits = self.logits(&mut pass, images);
        pass.finish(Vec::new(), logits.map(Output::Classification))
    }

    /// A side of an attention map is the class token and the patches.
    fn tap_size(&self, tap: &TapSpec, input_size: [usize; 2]) -> [usize; 2] {
        let grid = input_size.map(|extent| extent / self.patches.patch());
        match tap.name.as_str() {
            "image" => input_size,
            "logits" => [1, 1],
            name if name.starts_with("attn.") => [1 + grid[0] * grid[1]; 2],
            _ => grid,
        }
    }
}

/// A linear layer as timm starts it: a normal distribution, and no bias.
fn linear(builder: &mut Builder, name: &str, shape: [usize; 2], part: Part) -> Linear {
    let init = [Init::Normal { std: WEIGHT_STD }, Init::Constant(0.0)];
    builder.linear(name, shape, part, init)
}

/// Layer normalisation of each token.
#[derive(Clone, Debug)]
struct LayerNorm {
    gamma: usize,
    beta: usize,
}

impl LayerNorm {
    fn new(builder: &mut Builder, name: &str, channels: usize) -> Self {
        let mut entry = |suffix, kind, start| {
            builder.push(ParamSpec {
                name: format!("{name}.{suffix}"),
                shape: vec![channels],
                kind,
                part: Part::Backbone,
                init: Init::Constant(start),
                trainable: true,
            })
        };
        LayerNorm {
            gamma: entry("weight", ParamKind::NormWeight, 1.0),
            beta: entry("bias", ParamKind::NormBias, 0.0),
        }
    }

    fn forward(&self, pass: &Pass<'_>, x: Tensor<2>) -> Tensor<2> {
        let (gamma, beta) = (pass.weight(self.gamma), pass.weight(self.beta));
        ops::layer_norm(x, gamma, beta, NORM_EPS)
    }
}
