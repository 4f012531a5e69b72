//! From an image to tokens: patches, their positions, the class token.

use burn::tensor::Tensor;

use super::super::layers::Builder;
use super::super::ops::{self, ConvOptions2d};
use super::super::pass::Pass;
use super::super::{Init, ParamKind, ParamSpec, Part};
use super::{TOKEN_STD, WEIGHT_STD};
use crate::kernels::conv::Window;
use crate::maps::{Maps, Segment};

/// A class token and the cells of a grid, of each image of a batch.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    /// `[N * T, D]`, `T = 1 + h w`: image by image the class token, then the cells row by row.
    pub(super) rows: Tensor<2>,
    /// The images and their grid.
    pub(super) segment: Segment,
}

impl Tokens {
    /// Tokens of an image.
    pub(super) fn count(&self) -> usize {
        1 + self.segment.h * self.segment.w
    }

    /// Others in their place.
    pub(super) fn with(self, rows: Tensor<2>) -> Self {
        Tokens { rows, ..self }
    }

    /// `[N, T, D]`.
    fn by_image(&self) -> Tensor<3> {
        let [_, dim] = self.rows.dims();
        self.rows
            .clone()
            .reshape([self.segment.n, self.count(), dim])
    }

    /// The grid `[N, D, h, w]`, without the class token.
    pub(super) fn grid(&self) -> Tensor<4> {
        let Segment { n, h, w } = self.segment;
        let [_, dim] = self.rows.dims();
        let cells = self.by_image().slice([0..n, 1..self.count()]);
        cells.reshape([n, h, w, dim]).permute([0, 3, 1, 2])
    }

    /// The class tokens `[N, D]`.
    pub(super) fn class(&self) -> Tensor<2> {
        let [_, dim] = self.rows.dims();
        let n = self.segment.n;
        self.by_image().slice([0..n, 0..1]).reshape([n, dim])
    }
}

/// The patch embedding, a convolution whose stride is its kernel, and what is put before and on it.
#[derive(Clone, Debug)]
pub(super) struct Patches {
    token: usize,
    positions: usize,
    weight: usize,
    bias: usize,
    patch: usize,
    dim: usize,
}

impl Patches {
    /// Patches of `patch` pixels a side on a `grid`, `[h, w]`. The convolution starts as PyTorch's own,
    /// which timm leaves as it is.
    pub(super) fn new(builder: &mut Builder, patch: usize, dim: usize, grid: [usize; 2]) -> Self {
        let mut push = |name: &str, shape: &[usize], kind, init| {
            builder.push(ParamSpec {
                name: name.to_owned(),
                shape: shape.to_vec(),
                kind,
                part: Part::Backbone,
                init,
                trainable: true,
            })
        };
        let std = WEIGHT_STD;
        let bound = ((3 * patch * patch) as f32).sqrt().recip();
        let uniform = Init::Uniform { bound };
        Patches {
            token: push(
                "cls_token",
                &[1, 1, dim],
                ParamKind::Token,
                Init::Normal { std: TOKEN_STD },
            ),
            positions: push(
                "pos_embed",
                &[1, 1 + grid[0] * grid[1], dim],
                ParamKind::Positions { grid },
                Init::Normal { std },
            ),
            weight: push(
                "patch_embed.proj.weight",
                &[dim, 3, patch, patch],
                ParamKind::Weight,
                uniform,
            ),
            bias: push("patch_embed.proj.bias", &[dim], ParamKind::Bias, uniform),
            patch,
            dim,
        }
    }

    /// Side of a patch in pixels.
    pub(super) fn patch(&self) -> usize {
        self.patch
    }

    /// `[N, 3, H, W]` to tokens; what a side has beyond whole patches is not seen. `None` if the pass
    /// stopped before.
    pub(super) fn forward(&self, pass: &mut Pass<'_>, images: Tensor<4>) -> Option<Tokens> {
        let Patches { patch, dim, .. } = *self;
        let options = ConvOptions2d {
            window: Window::square(patch, patch, 0),
            groups: 1,
            relu: false,
        };
        let weight = pass.weight(self.weight).reshape([dim, 3, patch, patch]);
        let bias = pass.weight(self.bias);
        let grid = ops::conv2d(&Maps::from_nchw(images), weight, Some(bias), options);
        let segment = grid.segment();
        pass.offer("stem.conv", || grid.nchw(0));
        if pass.done() {
            return None;
        }
        let (n, cells) = (segment.n, segment.h * segment.w);
        let cells_of_images = grid.cells().clone().reshape([n, cells, dim]);
        let dtype = cells_of_images.dtype();
        let of_type = |weight: usize| ops::as_type(pass.weight(weight), dtype);
        let token = of_type(self.token).reshape([1, 1, dim]);
        let positions = of_type(self.positions).reshape([1, 1 + cells, dim]);
        let tokens = Tensor::cat(vec![token.expand([n, 1, dim]), cells_of_images], 1) + positions;
        let tokens = Tokens {
            rows: tokens.reshape([n * (1 + cells), dim]),
            segment,
        };
        pass.offer("stem", || tokens.grid());
        (!pass.done()).then_some(tokens)
    }
}
