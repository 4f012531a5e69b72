//! Label embeddings: PointNet (arXiv 1612.00593) over the objects of an image.

use kd_plugin::burn::module::Module;
use kd_plugin::burn::tensor::activation::relu;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};

use crate::layers::{Linear, layer_norm};
use crate::objects::Objects;

/// A transform for each object: `m × m`, neither started at nor pulled to the identity.
#[derive(Module, Debug)]
pub struct Stn {
    conv1: Linear,
    conv2: Linear,
    conv3: Linear,
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

impl Stn {
    fn new(m: usize, device: &Device) -> Self {
        Stn {
            conv1: Linear::new(m, 64, device),
            conv2: Linear::new(64, 128, device),
            conv3: Linear::new(128, 1024, device),
            fc1: Linear::new(1024, 512, device),
            fc2: Linear::new(512, 256, device),
            fc3: Linear::new(256, m * m, device),
        }
    }

    /// `x A(x)`, row by row: `[R, m]`.
    fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        let [rows, m] = x.dims();
        let layers = [&self.conv1, &self.conv2, &self.conv3, &self.fc1, &self.fc2];
        let features = layers
            .into_iter()
            .fold(x.clone(), |x, layer| activated(layer, x));
        let transforms: Tensor<3> = self.fc3.forward(features).reshape([rows, m, m]);
        x.unsqueeze_dim::<3>(1)
            .matmul(transforms)
            .reshape([rows, m])
    }
}

/// PointNet with LayerNorm in the place of BatchNorm.
#[derive(Module, Debug)]
pub struct LabelEncoder {
    stn1: Stn,
    conv1: Linear,
    stn2: Stn,
    conv2: Linear,
    conv3: Linear,
    conv4: Linear,
}

impl LabelEncoder {
    /// From descriptors of length `k` to `channels`.
    #[must_use]
    pub fn new(k: usize, channels: usize, device: &Device) -> Self {
        LabelEncoder {
            stn1: Stn::new(k, device),
            conv1: Linear::new(k, 64, device),
            stn2: Stn::new(64, device),
            conv2: Linear::new(64, 128, device),
            conv3: Linear::new(128, 1024, device),
            conv4: Linear::new(64 + 1024, channels, device),
        }
    }

    /// `[R, C]`. Objects meet only in the maximum over those of their image.
    #[must_use]
    pub fn forward(&self, objects: &Objects) -> Tensor<2> {
        let x = self.stn1.apply(objects.descriptors.clone());
        let local = self.stn2.apply(activated(&self.conv1, x));
        let features = activated(&self.conv2, local.clone());
        let features = activated(&self.conv3, features);
        // After ReLU nothing is negative, so the zeros of other images never win.
        let member = objects.member.clone();
        let of_image = features.unsqueeze_dim::<3>(1) * member.clone().unsqueeze_dim::<3>(2);
        let largest: Tensor<2> = of_image.max_dim(0).squeeze_dim(0);
        let global = member.matmul(largest);
        activated(&self.conv4, Tensor::cat(vec![local, global], 1))
    }
}

/// Linear, LayerNorm, ReLU.
fn activated(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    relu(layer_norm(layer.forward(x)))
}
