//! `E` and `D`: three convolutions each, after which a teacher's map is a sparse code and back.

use std::sync::Arc;

use kd_plugin::burn::module::Module;
use kd_plugin::burn::tensor::activation::relu;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};
use kd_plugin::{MapSize, Packed};

use crate::layers::{BatchNorm, Conv, NewStatistics, TransposedConv};
use crate::options::{Config, SparsityReduction};

/// Variances below this do not divide.
const NO_VARIANCE: f64 = 1e-12;

/// `E`: `C_t → C_t → C_z → C_z`, each 3×3 of its stride, BatchNorm, ReLU.
#[derive(Module, Debug)]
pub struct Encoder {
    conv1: Conv,
    norm1: BatchNorm,
    conv2: Conv,
    norm2: BatchNorm,
    conv3: Conv,
    norm3: BatchNorm,
}

/// `D`: the encoder backwards, `C_z → C_z → C_t → C_t`, transposed convolutions; the last is linear.
#[derive(Module, Debug)]
pub struct Decoder {
    conv1: TransposedConv,
    norm1: BatchNorm,
    conv2: TransposedConv,
    norm2: BatchNorm,
    conv3: TransposedConv,
}

/// What a learning encoder gives.
#[derive(Debug)]
pub struct Encoded {
    /// Code of each level, `[N, C_z, ceil(H / ρ), ceil(W / ρ)]`.
    pub code: Packed,
    /// Sizes of what each convolution read.
    sizes: [Arc<[MapSize]>; 3],
}

/// Strides of the three convolutions of each level.
type Strides = [[usize; 3]];

fn of_layer(strides: &Strides, layer: usize) -> impl Iterator<Item = usize> + '_ {
    strides.iter().map(move |of_level| of_level[layer])
}

fn activated(x: &Packed) -> Packed {
    x.with(relu(x.cells()))
}

impl Encoder {
    /// For maps of `channels`, a code of `code` channels.
    #[must_use]
    pub fn new(channels: usize, code: usize, device: &Device) -> Self {
        Encoder {
            conv1: Conv::without_bias(channels, channels, device),
            norm1: BatchNorm::new(channels, device),
            conv2: Conv::without_bias(channels, code, device),
            norm2: BatchNorm::new(code, device),
            conv3: Conv::without_bias(code, code, device),
            norm3: BatchNorm::new(code, device),
        }
    }

    fn layers(&self) -> [(&Conv, &BatchNorm); 3] {
        [
            (&self.conv1, &self.norm1),
            (&self.conv2, &self.norm2),
            (&self.conv3, &self.norm3),
        ]
    }

    /// With the statistics of the batch.
    #[must_use]
    pub fn learn(
        &self,
        maps: &Packed,
        strides: &Strides,
        path: &str,
        statistics: &mut NewStatistics,
    ) -> Encoded {
        let mut x = maps.clone();
        let sizes = std::array::from_fn(|layer| {
            let (conv, norm) = self.layers()[layer];
            let sizes = Arc::clone(x.sizes());
            let y = conv.on_levels(&x, of_layer(strides, layer));
            let path = format!("{path}.norm{}", layer + 1);
            x = activated(&norm.learn(&y, &path, statistics));
            sizes
        });
        Encoded { code: x, sizes }
    }

    /// With the running statistics: a fixed function. The result is not detached.
    #[must_use]
    pub fn encode(&self, maps: &Packed, strides: &Strides) -> Packed {
        let layers = self.layers().into_iter().enumerate();
        layers.fold(maps.clone(), |x, (layer, (conv, norm))| {
            activated(&norm.frozen(&conv.on_levels(&x, of_layer(strides, layer))))
        })
    }
}

impl Decoder {
    /// For maps of `channels` and a code of `code` channels.
    #[must_use]
    pub fn new(channels: usize, code: usize, device: &Device) -> Self {
        Decoder {
            conv1: TransposedConv::without_bias(code, code, device),
            norm1: BatchNorm::new(code, device),
            conv2: TransposedConv::without_bias(code, channels, device),
            norm2: BatchNorm::new(channels, device),
            conv3: TransposedConv::new(channels, channels, device),
        }
    }

    /// With the statistics of the batch; maps of the sizes that the encoder was given.
    #[must_use]
    pub fn learn(
        &self,
        encoded: &Encoded,
        strides: &Strides,
        path: &str,
        statistics: &mut NewStatistics,
    ) -> Packed {
        let [first, second, third] = &encoded.sizes;
        let x = (self.conv1).on_levels(&encoded.code, of_layer(strides, 2), third);
        let x = activated(&self.norm1.learn(&x, &format!("{path}.norm1"), statistics));
        let x = self.conv2.on_levels(&x, of_layer(strides, 1), second);
        let x = activated(&self.norm2.learn(&x, &format!("{path}.norm2"), statistics));
        self.conv3.on_levels(&x, of_layer(strides, 0), first)
    }
}

/// A teacher's map, its code, and what comes back of it.
#[derive(Debug)]
pub struct Level {
    /// `[N, C_t, H, W]`; constant.
    pub map: Tensor<4>,
    /// `[N, C_z, h, w]`; not negative.
    pub code: Tensor<4>,
    /// `[N, C_t, H, W]`.
    pub decoded: Tensor<4>,
}

impl Level {
    /// `mean (map − decoded)² + sparsity · size`, where the code's size is `Σ|z| / N` or the mean of
    /// `|z|`. `[1]`.
    #[must_use]
    pub fn loss(&self, config: &Config) -> Tensor<1> {
        let error = (self.map.clone() - self.decoded.clone()).square().mean();
        // The code comes out of a ReLU: it is its own absolute value.
        let size = match config.sparsity_reduction {
            SparsityReduction::Sum => self.code.clone().sum() / self.code.dims()[0] as f64,
            SparsityReduction::Mean => self.code.clone().mean(),
        };
        error + size * config.sparsity
    }

    /// `1 − mean (map − decoded)² / variance`, the variance that of the map's values around the mean of
    /// their channel in this batch: 0 for a decoder that knows these means alone. `[1]`, no gradient.
    #[must_use]
    pub fn r2(&self) -> Tensor<1> {
        let [n, c, h, w] = self.map.dims();
        let error = (self.map.clone() - self.decoded.clone().detach())
            .square()
            .mean();
        let channels: Tensor<2> = self.map.clone().swap_dims(0, 1).reshape([c, n * h * w]);
        let centered = channels.clone() - channels.mean_dim(1);
        let variance = centered.square().mean().clamp_min(NO_VARIANCE);
        error / variance * -1.0 + 1.0
    }
}
