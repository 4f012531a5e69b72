//! `C_f` and `C_a`: what turns a student's map into something that a code is compared with.

use kd_plugin::Packed;
use kd_plugin::burn::module::Module;
use kd_plugin::burn::tensor::activation::relu;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};

use crate::layers::{BatchNorm, Conv, NewStatistics};

/// `C_f`: 3×3 convolution of stride 1, BatchNorm, ReLU.
#[derive(Module, Debug)]
pub struct FeatureAdapter {
    conv: Conv,
    norm: BatchNorm,
}

impl FeatureAdapter {
    /// `C_s` to `C_z` channels.
    #[must_use]
    pub fn new(from: usize, to: usize, device: &Device) -> Self {
        FeatureAdapter {
            conv: Conv::without_bias(from, to, device),
            norm: BatchNorm::new(to, device),
        }
    }

    /// `[N, C_s, H, W]` to `[N, C_z, H, W]`, not negative, with the statistics of the batch.
    #[must_use]
    pub fn forward(&self, map: Tensor<4>, path: &str, statistics: &mut NewStatistics) -> Tensor<4> {
        let x = Packed::pack([self.conv.forward(map, 1)]);
        let x = self.norm.learn(&x, &format!("{path}.norm"), statistics);
        relu(x.level(0))
    }
}

/// `C_a`: 3×3 convolution of stride 1 with bias.
#[derive(Module, Debug)]
pub struct AffinityAdapter {
    conv: Conv,
}

impl AffinityAdapter {
    /// `C_s` to `C_z` channels.
    #[must_use]
    pub fn new(from: usize, to: usize, device: &Device) -> Self {
        AffinityAdapter {
            conv: Conv::new(from, to, device),
        }
    }

    /// `[N, C_s, H, W]` to `[N, C_z, H, W]`.
    #[must_use]
    pub fn forward(&self, map: Tensor<4>) -> Tensor<4> {
        self.conv.forward(map, 1)
    }
}
