//! The teacher that trains beside its student: from labels and the student's own maps to instructive
//! maps. Shared by all levels.

use kd_plugin::burn::module::Module;
use kd_plugin::burn::tensor::activation::relu;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};
use kd_plugin::{Conv2d, Packed};

use crate::Config;
use crate::label_encoder::LabelEncoder;
use crate::layers::{Linear, layer_norm};
use crate::objects::Objects;
use crate::relation::{Attention, InteractPattern, other_images};

/// Official names: `DynamicTeacher` and its layers.
#[derive(Module, Debug)]
pub struct Teacher {
    label_encoder: LabelEncoder,
    canoni_proj_1d: Linear,
    student_proj_2d: Conv2d,
    attention: Attention,
    local_inst_proj_1d: Linear,
    local_inst_proj_2d: Conv2d,
    /// Only with a context object.
    global_ctx_proj_1d: Option<Linear>,
    refinement: Vec<Conv2d>,
}

impl Teacher {
    /// For maps of `channels` and descriptors of length `k`.
    #[must_use]
    pub fn new(config: &Config, k: usize, channels: usize, device: &Device) -> Self {
        let linear = || Linear::new(channels, channels, device);
        let conv = || Conv2d::new(channels, channels, 3, device);
        Teacher {
            label_encoder: LabelEncoder::new(k, channels, device),
            canoni_proj_1d: linear(),
            student_proj_2d: conv(),
            attention: Attention::new(channels, device),
            local_inst_proj_1d: linear(),
            local_inst_proj_2d: conv(),
            global_ctx_proj_1d: config.add_context_box.then(linear),
            refinement: (0..3).map(|_| conv()).collect(),
        }
    }

    /// Instructive maps of the extents of `student`.
    #[must_use]
    pub fn forward(&self, config: &Config, student: &Packed, objects: &Objects) -> Packed {
        let labels = self.label_encoder.forward(objects);
        let labels = relu(layer_norm(self.canoni_proj_1d.forward(labels)));
        let student = match config.detach_appearance_embed {
            true => student.detach(),
            false => student.clone(),
        };
        let appearance = self.student_proj_2d.forward(&student).group_norm_relu();
        let blocked = other_images(&objects.member);

        let levels = student.sizes().len();
        let (mut rendered, mut contexts) = (Vec::new(), Vec::new());
        for level in 0..levels {
            let masks = objects.masks(student.sizes()[level]);
            let cells = appearance.cells().slice([appearance.range(level)]);
            let embedded = self.relate(config, pool(&masks, cells), &labels, &blocked);
            let inside = (masks * objects.rendered.clone()).transpose();
            rendered.push(inside.matmul(self.local_inst_proj_1d.forward(embedded.clone())));
            if let Some(project) = &self.global_ctx_proj_1d {
                let images = objects.member.dims()[1];
                let rows = objects.rows();
                contexts.push(project.forward(embedded.narrow(0, rows - images, images)));
            }
        }
        let rendered = student.with(Tensor::cat(rendered, 0));
        let maps = if contexts.is_empty() {
            self.local_inst_proj_2d.forward_relu(&rendered)
        } else {
            let maps = self.local_inst_proj_2d.forward(&rendered);
            let spread: Vec<Tensor<2>> = contexts
                .into_iter()
                .zip(student.sizes().iter())
                .map(|(context, size)| {
                    let [images, channels] = context.dims();
                    let cells = size.h * size.w;
                    let context: Tensor<3> = context.unsqueeze_dim(1);
                    context
                        .expand([images, cells, channels])
                        .reshape([images * cells, channels])
                })
                .collect();
            maps.with(relu(maps.cells() + Tensor::cat(spread, 0)))
        };
        self.refine(maps)
    }

    /// `[R, C]`: appearance embeddings that have asked the labels, or as the pattern says.
    fn relate(
        &self,
        config: &Config,
        appearance: Tensor<2>,
        labels: &Tensor<2>,
        blocked: &Tensor<2>,
    ) -> Tensor<2> {
        let attend = |query, context| {
            let heads = config.nr_transformer_heads;
            self.attention
                .forward(query, context, blocked.clone(), heads)
        };
        match config.interact_pattern {
            InteractPattern::StuGuided => attend(appearance, labels.clone()),
            InteractPattern::LabelGuided => attend(labels.clone(), appearance),
            InteractPattern::StudentFill => appearance,
            InteractPattern::TeacherFill => labels.clone(),
        }
    }

    /// Three convolutions, each normalised; the last without ReLU.
    fn refine(&self, maps: Packed) -> Packed {
        let [first, second, third] = self.refinement.as_slice() else {
            unreachable!("the refinement has three layers");
        };
        let x = first.forward(&maps).group_norm_relu();
        let x = second.forward(&x).group_norm_relu();
        third.forward(&x).group_norm()
    }
}

/// Mean over the cells of each mask: `[R, cells]`, `[cells, C]` to `[R, C]`; 0 for an empty mask.
fn pool(masks: &Tensor<2>, cells: Tensor<2>) -> Tensor<2> {
    let count = masks.clone().sum_dim(1).clamp_min(1.0);
    masks.clone().matmul(cells) / count
}
