//! LGD: label-guided self-distillation for object detection (arXiv 2109.11496).
//!
//! ```text
//! L = L_det(head(X)) + L_det(head(Xᴵ)) + λ · mean (IN(φ(X)) − IN(sg Xᴵ))²       over all of p3…p7
//! ```
//!
//! `X` are the student's neck maps, `Xᴵ` instructive maps made of ground truth and `X` by a teacher
//! that trains beside the student and is thrown away afterwards, `φ` an adapter of three convolutions,
//! `IN` instance normalisation, `sg` stops the gradient. The host runs the student's own head and task
//! losses on `Xᴵ`.

pub mod label_encoder;
pub mod layers;
pub mod objects;
pub mod phases;
pub mod relation;
pub mod teacher;

use kd_plugin::burn::module::Module;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};
use kd_plugin::{
    Conv2d, DistillMethod, Inputs, MethodError, Outputs, Packed, Plan, Role, TapInfo, TapPattern,
    Taps,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::objects::{GroundTruth, MASK_CROP, Objects};
use crate::phases::PhaseUnit;
use crate::relation::InteractPattern;
use crate::teacher::Teacher;

/// The method.
pub struct Lgd;

/// Options, under the official names in lower case; defaults are those of the published RetinaNet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// λ of the distillation loss.
    #[schemars(range(min = 0.0))]
    pub loss_weight: f64,
    /// Adds the whole image as an object to every image that has any.
    pub add_context_box: bool,
    /// Cuts the gradient of the instructive maps at the student's maps (the authors: two-stage
    /// detectors, short schedules).
    pub detach_appearance_embed: bool,
    /// Heads of the attention between objects; must divide the channels of the neck.
    #[schemars(range(min = 1))]
    pub nr_transformer_heads: usize,
    /// What asks and what answers between appearance and label embeddings.
    pub interact_pattern: InteractPattern,
    /// Appends the 7x7 crop of each object's instance mask to its descriptor; needs masks.
    pub load_labelmap: bool,
    /// Unit of the three lengths below.
    pub phase_unit: PhaseUnit,
    /// The backbone does not learn before this point.
    #[schemars(range(min = 0.0))]
    pub pre_freeze_backbone: f64,
    /// The distillation loss trains its adapter alone before this point.
    #[schemars(range(min = 0.0))]
    pub pre_nondistill: f64,
    /// The distillation loss trains its adapter alone for this long at the end.
    #[schemars(range(min = 0.0))]
    pub post_nondistill: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            loss_weight: 1.0,
            add_context_box: true,
            detach_appearance_embed: false,
            nr_transformer_heads: 8,
            interact_pattern: InteractPattern::default(),
            load_labelmap: false,
            phase_unit: PhaseUnit::default(),
            // 20 000, 30 000 and 0 of the 180 000 iterations of the 2x schedule.
            pre_freeze_backbone: 1.0 / 9.0,
            pre_nondistill: 1.0 / 6.0,
            post_nondistill: 0.0,
        }
    }
}

/// Everything that is learned and thrown away after training.
#[derive(Module, Debug)]
pub struct Parts {
    teacher: Teacher,
    adapter: Vec<Conv2d>,
}

impl DistillMethod for Lgd {
    type Config = Config;
    type Module = Parts;

    const ID: &'static str = "lgd";
    const TITLE: &'static str = "Label-guided self-distillation (LGD)";
    const DOC: &'static str = "The student imitates maps made of its labels and its own neck and judged by its own head, \
         arXiv 2109.11496.";
    const TAPS: &'static [TapPattern] = &[TapPattern::student("neck.*")];
    const TARGETS: &'static [&'static str] = &[
        "gt_boxes_xyxy",
        "gt_labels",
        "gt_batch",
        "input_size",
        "gt_mask_crops",
    ];
    const LOSSES: &'static [&'static str] = &["loss_distill"];
    const MAPS: &'static [&'static str] = &["p2", "p3", "p4", "p5", "p6", "p7"];
    const METRICS: &'static [&'static str] = &["correlation"];

    fn plan(config: &Config, taps: &Taps, device: &Device) -> Result<Plan<Parts>, MethodError> {
        let channels = config.channels(taps)?;
        let crop = if config.load_labelmap {
            MASK_CROP * MASK_CROP
        } else {
            0
        };
        let descriptor = 4 + taps.num_classes()? + crop;
        let parts = Parts {
            teacher: Teacher::new(config, descriptor, channels, device),
            adapter: (0..3)
                .map(|_| Conv2d::new(channels, channels, 3, device))
                .collect(),
        };
        let plan = Plan::new(parts)
            .loss("loss_distill", config.loss_weight)
            .schedule(phases::schedule(config)?);
        Ok(levels(taps).fold(plan, |plan, (level, tap)| plan.map(level, &tap.name)))
    }

    fn forward(
        config: &Config,
        parts: &Parts,
        inputs: &Inputs<'_>,
    ) -> Result<Outputs, MethodError> {
        let student = inputs.students("neck.");
        let images = student[0].dims()[0];
        let student = Packed::pack(student);
        let num_classes = inputs.taps().num_classes()?;
        let objects = Objects::new(config, GroundTruth::read(inputs)?, images, num_classes)?;

        let instructive = parts.teacher.forward(config, &student, &objects);
        let loss = parts.distill_loss(&inputs.in_loss(student), &instructive.detach());
        // Of normalised channels, the mean squared difference is 2 (1 − ρ).
        let correlation = loss.clone().detach() * -0.5 + 1.0;

        let outputs = Outputs::new()
            .loss("loss_distill", loss)
            .metric("correlation", correlation);
        Ok(levels(inputs.taps())
            .zip(instructive.unpack())
            .fold(outputs, |outputs, ((level, _), map)| {
                outputs.map(level, map)
            }))
    }
}

impl Parts {
    /// Mean over all cells and channels of all levels, so that a level weighs what it has of them.
    fn distill_loss(&self, student: &Packed, instructive: &Packed) -> Tensor<1> {
        let [first, second, third] = self.adapter.as_slice() else {
            unreachable!("the adapter has three layers");
        };
        let adapted = third.forward(&second.forward_relu(&first.forward_relu(student)));
        let difference = adapted.instance_norm().cells() - instructive.instance_norm().cells();
        difference.square().mean()
    }
}

impl Config {
    /// Channels that all levels have.
    fn channels(&self, taps: &Taps) -> Result<usize, MethodError> {
        let mut channels = None;
        for (_, tap) in levels(taps) {
            let here = tap.channels()?;
            if *channels.get_or_insert(here) != here {
                return Err(MethodError::shape(format!(
                    "`{}` has {here} channels, other levels have others; its layers are shared by \
                     all levels",
                    tap.name
                )));
            }
        }
        let Some(channels) = channels else {
            return Err(MethodError::shape("the student has no `neck.*` tap"));
        };
        let heads = self.nr_transformer_heads;
        if heads == 0 || !channels.is_multiple_of(heads) {
            return Err(MethodError::config(format!(
                "`nr_transformer_heads` is {heads}, which does not divide the {channels} channels of \
                 the neck"
            )));
        }
        Ok(channels)
    }
}

/// The student's levels with their short names: `p3` for `neck.p3`.
fn levels(taps: &Taps) -> impl Iterator<Item = (&str, &TapInfo)> {
    taps.iter()
        .filter(|tap| tap.role == Role::Student)
        .filter_map(|tap| Some((tap.name.strip_prefix("neck.")?, tap)))
}

kd_plugin::export!(Lgd);

#[cfg(test)]
mod tests;
