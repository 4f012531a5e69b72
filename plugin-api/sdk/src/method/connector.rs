//! The layer that maps student channels to teacher channels.

use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::levels::Levels;
use crate::MethodError;
use crate::tap::{TapInfo, Taps};

/// When student maps go through a 1×1 convolution before they are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Connectors {
    /// Where channel counts differ.
    #[default]
    Auto,
    /// On every level; starts as the identity where channel counts are equal.
    Always,
    /// Nowhere; channel counts must be equal.
    Never,
}

/// A 1×1 convolution with bias, stride 1, no normalisation or activation.
///
/// `y[n, :, h, w] = weight · x[n, :, h, w] + bias`. Computed as a matrix product, which is also the
/// fast form of its gradients on the CPU.
#[derive(Module, Debug)]
pub struct Connector {
    /// `[C_out, C_in, 1, 1]`, as PyTorch stores it.
    weight: Param<Tensor<4>>,
    /// `[C_out]`.
    bias: Param<Tensor<1>>,
}

impl Connectors {
    /// The connectors that these pairs of taps need, one a level, not shared.
    ///
    /// # Errors
    /// If they are needed but forbidden, or a tap has no fixed number of channels.
    pub fn plan(self, taps: &Taps, device: &Device) -> Result<Levels<Connector>, MethodError> {
        self.plan_pairs(taps.pairs()?, device)
    }

    /// [`Self::plan`] for some pairs of taps, such as those of [`Taps::pairs_at`].
    ///
    /// # Errors
    /// If they are needed but forbidden, or a tap has no fixed number of channels.
    pub fn plan_pairs(
        self,
        pairs: Vec<(&TapInfo, &TapInfo)>,
        device: &Device,
    ) -> Result<Levels<Connector>, MethodError> {
        let mut levels = Vec::new();
        for (student, teacher) in pairs {
            let (from, to) = (student.channels()?, teacher.channels()?);
            match self {
                Connectors::Never if from != to => {
                    return Err(MethodError::config(format!(
                        "`{}` has {from} channels in the student and {to} in the teacher; \
                         `connector = \"never\"` needs them equal",
                        student.name
                    )));
                }
                Connectors::Never => {}
                Connectors::Auto if from == to => {}
                Connectors::Auto | Connectors::Always => {
                    levels.push((student.name.clone(), Connector::new(from, to, device)));
                }
            }
        }
        Ok(Levels::new(levels))
    }
}

impl Connector {
    /// Identity if the channel counts are equal, else He et al. 2015 uniform with fan-in; bias 0.
    #[must_use]
    pub fn new(from: usize, to: usize, device: &Device) -> Self {
        let shape = [to, from, 1, 1];
        let weight = if from == to {
            let mut values = vec![0.0f32; to * from];
            for row in values.chunks_exact_mut(from).enumerate() {
                row.1[row.0] = 1.0;
            }
            let identity = Tensor::from_data(TensorData::new(values, shape), device);
            Param::from_tensor(identity)
        } else {
            let initializer = Initializer::KaimingUniform {
                gain: 1.0,
                fan_out_only: false,
            };
            initializer.init_with(shape, Some(from), Some(to), device)
        };
        Connector {
            weight,
            bias: Initializer::Zeros.init([to], device),
        }
    }

    /// Maps `[N, C_in, H, W]` to `[N, C_out, H, W]`.
    #[must_use]
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let [to, from, _, _] = weight.dims();
        let [n, _, h, w] = x.dims();
        let columns: Tensor<3> = x.reshape([n, from, h * w]);
        let weight: Tensor<3> = weight.reshape([1, to, from]);
        let y = weight.matmul(columns) + self.bias.val().reshape([1, to, 1]);
        y.reshape([n, to, h, w])
    }
}
