//! Pixel distillation (TPAMI 2024, arXiv 2112.09532): the student sees a smaller image than its teacher.
//!
//! ```text
//! L_isrd = mean |PReLU(shuffle_s(W · stem(x_small))) − x_large|
//! L_kd   = T² KL(p_t ‖ p_s)                                      classifiers, segmenters
//!        = Σ |σ(z_t) − σ(z_s)| · BCE(σ(z_s), σ(z_t)) / N_fg,
//!          Σ m (1 − GIoU(b_s, b_t)) / Σ m                        detectors, one anchor by one
//! L_fkd  = mean_l mean (up(F_s) − F_t)²                          or standardised maps
//! ```
//!
//! In stages: model and input are compressed one after the other by way of an assistant.

pub mod attention;
pub mod classes;
pub mod features;
pub mod heads;
pub mod isrd;
pub mod options;
pub mod padding;
pub mod stages;
pub mod task;

use kd_plugin::burn::module::Module;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};
use kd_plugin::{
    Connector, DistillMethod, Inputs, Levels, MethodError, Outputs, Plan, Role, TapInfo,
    TapPattern, Taps,
};

use crate::attention::Blocks;
use crate::features::Features;
use crate::heads::Heads;
use crate::isrd::Decoder;
use crate::options::Active;
pub use crate::options::Config;
use crate::padding::Frame;
use crate::task::Task;

const ISRD: &str = "loss_isrd";
const KD: &str = "loss_kd";
const KD_BBOX: &str = "loss_kd_bbox";
const FKD: &str = "loss_fkd";
const ATTN: &str = "loss_attn";

/// The method.
pub struct Pixel;

/// What is learned; all of it is thrown away after training.
#[derive(Module, Debug)]
pub struct Parts {
    /// None without `loss_isrd`.
    decoder: Option<Decoder>,
    /// One for each map whose channels differ, where `adapter` allows it.
    adapter: Levels<Connector>,
}

impl DistillMethod for Pixel {
    type Config = Config;
    type Module = Parts;

    const ID: &'static str = "pixel";
    const TITLE: &'static str = "Pixel distillation";
    const DOC: &'static str = "A student of small images learns from a teacher of large ones: its stem reconstructs the \
         large image, its features and predictions follow the teacher's, in stages by way of an \
         assistant, arXiv 2112.09532.";
    const TAPS: &'static [TapPattern] = &[
        TapPattern::student("stem.conv|stem"),
        TapPattern::teacher("image"),
        TapPattern::student("head.cls_logits.*|logits"),
        TapPattern::teacher("head.cls_logits.*|logits"),
        TapPattern::student("neck.*|backbone.*|feat.last").optional(),
        TapPattern::teacher("neck.*|backbone.*|feat.last").optional(),
        TapPattern::student("head.box_deltas.*").optional(),
        TapPattern::teacher("head.box_deltas.*").optional(),
        TapPattern::student("head.centerness.*").optional(),
        TapPattern::teacher("head.centerness.*").optional(),
        TapPattern::student("attn.*").optional(),
        TapPattern::teacher("attn.*").optional(),
    ];
    const TARGETS: &'static [&'static str] =
        &[padding::TARGETS[0], padding::TARGETS[1], heads::LABELS];
    const LOSSES: &'static [&'static str] = &[ISRD, KD, KD_BBOX, FKD, ATTN];
    const METRICS: &'static [&'static str] =
        &["isrd_gain", "kd_agree", "kd_giou", "kd_scores", "num_fg"];

    fn plan(config: &Config, taps: &Taps, device: &Device) -> Result<Plan<Parts>, MethodError> {
        config.check()?;
        let task = Task::of(taps)?;
        let active = config.active(task)?;
        let schedule = stages::schedule(config, task, active)?;
        let reads = Reads::of(config, task, active, taps)?;
        let parts = Parts {
            decoder: match active.isrd {
                true => Some(Decoder::plan(config, taps, device)?),
                false => None,
            },
            adapter: match &reads.features {
                Some(features) => features.adapters(config, taps, device)?,
                None => Levels::none(),
            },
        };
        let mut plan = Plan::new(parts)
            .uses_taps(taps, |tap| reads.tap(config, tap))
            .reads_targets(&reads.targets());
        for (is_there, name, weight) in [
            (active.isrd, ISRD, config.isrd_weight()),
            (active.kd, KD, config.kd_weight(task)),
            (reads.heads.is_some(), KD_BBOX, config.kd_weight(task)),
            (active.fkd, FKD, config.fkd_weight(task)),
            (active.attn, ATTN, config.attn_weight),
        ] {
            if is_there {
                plan = plan.loss(name, weight);
            }
        }
        Ok(plan.schedule(schedule))
    }

    fn forward(
        config: &Config,
        parts: &Parts,
        inputs: &Inputs<'_>,
    ) -> Result<Outputs, MethodError> {
        let taps = inputs.taps();
        let task = Task::of(taps)?;
        let active = config.active(task)?;
        let frame = match task {
            Task::Classification => None,
            Task::Segmentation | Task::Detection => Some(Frame::of(inputs, config.k)?),
        };
        let not_wanted = || Tensor::<1>::zeros([1], &inputs.device());
        let mut outputs = Outputs::new();

        if let Some(decoder) = &parts.decoder {
            let mut loss = not_wanted();
            if inputs.wants(ISRD) {
                let image = inputs.teacher(isrd::IMAGE)?;
                let [_, _, h, w] = image.dims();
                let stem = inputs.student(config.gsfp.tap())?;
                let painted = decoder.forward(config.isrd_fit, stem, [h, w])?;
                let mask = padding::mask(frame.as_ref(), &image);
                let gain;
                (loss, gain) = isrd::loss(painted, image, mask);
                outputs = outputs.metric("isrd_gain", gain);
            }
            outputs = outputs.loss(ISRD, loss);
        }
        outputs = match (&frame, active.kd) {
            (Some(frame), true) if task == Task::Detection => {
                let (mut classes, mut boxes) = (not_wanted(), not_wanted());
                if inputs.wants(KD) || inputs.wants(KD_BBOX) {
                    let predicted = Heads::of(taps)?.losses(inputs, frame)?;
                    (classes, boxes) = (predicted.classes, predicted.boxes);
                    outputs = outputs
                        .metric("kd_giou", predicted.giou)
                        .metric("kd_scores", predicted.scores)
                        .metric("num_fg", predicted.foreground);
                }
                outputs.loss(KD, classes).loss(KD_BBOX, boxes)
            }
            (frame, true) => {
                let mut loss = not_wanted();
                if inputs.wants(KD) {
                    let agree;
                    (loss, agree) = classes::loss(inputs, config.temperature, frame.as_ref())?;
                    outputs = outputs.metric("kd_agree", agree);
                }
                outputs.loss(KD, loss)
            }
            (_, false) => outputs,
        };
        if active.fkd {
            let loss = match inputs.wants(FKD) {
                true => Features::of(config, task, taps)?.loss(
                    config,
                    task,
                    &parts.adapter,
                    inputs,
                    frame.as_ref(),
                )?,
                false => not_wanted(),
            };
            outputs = outputs.loss(FKD, loss);
        }
        if active.attn {
            let loss = match inputs.wants(ATTN) {
                true => Blocks::of(taps)?.loss(inputs)?,
                false => not_wanted(),
            };
            outputs = outputs.loss(ATTN, loss);
        }
        Ok(outputs)
    }
}

/// What of the bound taps and of the targets is read.
struct Reads {
    task: Task,
    active: Active,
    features: Option<Features>,
    blocks: Option<Blocks>,
    /// Of detectors whose predictions are distilled.
    heads: Option<Heads>,
}

impl Reads {
    /// In a stage whose student and teacher have two architectures, features and attention that do not
    /// fit are not read: it has no loss of them.
    fn of(config: &Config, task: Task, active: Active, taps: &Taps) -> Result<Self, MethodError> {
        let mut reads = Reads {
            task,
            active,
            features: None,
            blocks: None,
            heads: None,
        };
        let must_fit = features::must_fit(config, task);
        if active.fkd {
            features::check_names(config, taps)?;
            reads.features = fitting(Features::of(config, task, taps), must_fit)?;
        }
        if active.attn {
            attention::check(taps)?;
            reads.blocks = fitting(Blocks::of(taps), must_fit)?;
        }
        match task {
            Task::Detection if active.kd => reads.heads = Some(Heads::of(taps)?),
            Task::Detection => {}
            Task::Classification | Task::Segmentation if active.kd => classes::check(taps)?,
            Task::Classification | Task::Segmentation => {}
        }
        Ok(reads)
    }

    fn tap(&self, config: &Config, tap: &TapInfo) -> bool {
        let name = tap.name.as_str();
        let is_stem = tap.role == Role::Student && name == config.gsfp.tap();
        let has_padding = self.task != Task::Classification;
        self.active.isrd && is_stem
            || name == isrd::IMAGE && (self.active.isrd || has_padding)
            || name == task::LOGITS && self.active.kd
            || self.features.as_ref().is_some_and(|f| f.has(name))
            || self.blocks.as_ref().is_some_and(|b| b.has(name))
            || self.heads.as_ref().is_some_and(|h| h.has(name))
    }

    fn targets(&self) -> Vec<&'static str> {
        let mut targets = match self.task {
            Task::Classification => Vec::new(),
            Task::Segmentation | Task::Detection => padding::TARGETS.to_vec(),
        };
        if self.heads.is_some() {
            targets.push(heads::LABELS);
        }
        targets
    }
}

fn fitting<T>(found: Result<T, MethodError>, must_fit: bool) -> Result<Option<T>, MethodError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(_) if !must_fit => Ok(None),
        Err(error) => Err(error),
    }
}

kd_plugin::export!(Pixel);

#[cfg(test)]
mod tests;
