//! Relations between the objects of an image: one attention layer, shared by all levels.

use kd_plugin::burn::module::{Module, Param};
use kd_plugin::burn::nn::Initializer;
use kd_plugin::burn::tensor::activation::softmax;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::layers::Linear;

/// Added to the score of what must not be attended to: its share then is exactly 0.
const BLOCKED: f64 = -1e30;

/// What asks and what answers in the relation of appearance and label embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InteractPattern {
    /// Appearance is the query, labels are key and value: the paper's.
    #[default]
    #[serde(rename = "stuGuided")]
    StuGuided,
    /// Labels are the query, appearance is key and value.
    #[serde(rename = "labelGuided")]
    LabelGuided,
    /// No relation: appearance itself.
    #[serde(rename = "student_fill")]
    StudentFill,
    /// No relation: labels themselves.
    #[serde(rename = "teacher_fill")]
    TeacherFill,
}

/// `torch.nn.MultiheadAttention(channels, heads)` without dropout.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[3 C, C]`: query, key, value.
    in_proj_weight: Param<Tensor<2>>,
    /// `[3 C]`.
    in_proj_bias: Param<Tensor<1>>,
    out_proj: Linear,
}

impl Attention {
    /// With torch's initial values: Xavier uniform projections, biases 0.
    #[must_use]
    pub fn new(channels: usize, device: &Device) -> Self {
        let xavier = Initializer::XavierUniform { gain: 1.0 };
        let [outputs, inputs] = [3 * channels, channels];
        Attention {
            in_proj_weight: xavier.init_with(
                [outputs, inputs],
                Some(inputs),
                Some(outputs),
                device,
            ),
            in_proj_bias: Initializer::Zeros.init([outputs], device),
            out_proj: Linear::with_zero_bias(channels, channels, device),
        }
    }

    /// `query`, `context` (key and value) and the result are `[R, C]`; `blocked` `[R, R]` is added to
    /// the scores.
    #[must_use]
    pub fn forward(
        &self,
        query: Tensor<2>,
        context: Tensor<2>,
        blocked: Tensor<2>,
        heads: usize,
    ) -> Tensor<2> {
        let [rows, channels] = query.dims();
        let width = channels / heads;
        let weight = self.in_proj_weight.val();
        let bias = self.in_proj_bias.val();
        // [heads, R, width]
        let project = |x: Tensor<2>, part: usize| -> Tensor<3> {
            let range = part * channels..(part + 1) * channels;
            let bias: Tensor<2> = bias.clone().slice([range.clone()]).unsqueeze();
            let y = x.matmul(weight.clone().slice([range]).transpose()) + bias;
            y.reshape([rows, heads, width]).swap_dims(0, 1)
        };
        let (q, k, v) = (
            project(query, 0),
            project(context.clone(), 1),
            project(context, 2),
        );
        let scores = q.matmul(k.transpose()) * (1.0 / (width as f64).sqrt());
        let shares = softmax(scores + blocked.unsqueeze(), 2);
        let mixed = shares.matmul(v).swap_dims(0, 1).reshape([rows, channels]);
        self.out_proj.forward(mixed)
    }
}

/// Scores to add so that rows see only rows of their own image. Rows of no image see all others
/// alike: a softmax over nothing would be NaN.
#[must_use]
pub fn other_images(member: &Tensor<2>) -> Tensor<2> {
    let same = member.clone().matmul(member.clone().transpose());
    (same - 1.0) * -BLOCKED
}
