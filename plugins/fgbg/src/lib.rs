//! Directions at foreground, predictions at background, and only where the teacher is better: a
//! distillation of one-stage detectors after a thesis of Tamkang University (2022).
//!
//! ```text
//! L_fg = Σ_{i in FG} g_i (1 − cos(φ(d_S,i), d_T,i)) / max(N_fg, 1)
//! L_bg = Σ_{i in BG} g_i w_i KL(p_T,i ‖ p_S,i) / (Σ_{i in BG} w_i + 1e-6)
//! g_i  = 1 where l_T,i < l_S,i, else 0
//! ```
//!
//! `i` are the locations of a dense head over all levels and images, `d` feature vectors, `φ` a 1×1
//! connector, `p` class predictions, `l` what a network's prediction costs against the ground truth.

pub mod gate;
pub mod locations;
pub mod options;
pub mod vectors;

use kd_plugin::burn::module::Module;
use kd_plugin::burn::tensor::activation::sigmoid;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};
use kd_plugin::{
    Connector, DenseHead, DistillMethod, Divergence, Inputs, Levels, MethodError, Outputs, Plan,
    Surprise, TapInfo, TapPattern, Taps,
};

use crate::gate::Gate;
use crate::locations::Locations;
pub use crate::options::Config;
use crate::options::{BgLoss, BgWeight, FgLoss};
use crate::vectors::Agreement;

/// Added to the sum of background weights.
const WEIGHT_EPS: f64 = 1e-6;

/// The method.
pub struct FgBg;

/// The connectors φ, one a level, where needed.
#[derive(Module, Debug)]
pub struct Parts {
    connector: Levels<Connector>,
}

impl DistillMethod for FgBg {
    type Config = Config;
    type Module = Parts;

    const ID: &'static str = "fgbg";
    const TITLE: &'static str = "Foreground directions, background predictions, adaptive";
    const DOC: &'static str = "Cosine distance of foreground features and divergence of background predictions where the \
         teacher is better, after the Tamkang University thesis U0002-1509202200002000.";
    const TAPS: &'static [TapPattern] = &[
        TapPattern::student("head.cls_logits.*"),
        TapPattern::teacher("head.cls_logits.*"),
        TapPattern::student("head.cls_feat.*").optional(),
        TapPattern::teacher("head.cls_feat.*").optional(),
        TapPattern::student("head.box_feat.*").optional(),
        TapPattern::teacher("head.box_feat.*").optional(),
        TapPattern::student("neck.*").optional(),
        TapPattern::teacher("neck.*").optional(),
    ];
    const TARGETS: &'static [&'static str] = &[
        "assign.labels",
        "assign.gt_index",
        "points_xy",
        "student.boxes_xyxy",
        "teacher.boxes_xyxy",
        "student.task_loss",
        "teacher.task_loss",
        "gt_boxes_xyxy",
        "gt_labels",
        "gt_batch",
    ];
    const LOSSES: &'static [&'static str] = &["loss_fg", "loss_bg"];
    const METRICS: &'static [&'static str] = &[
        "gated_fg",
        "gated_bg",
        "teacher_better_fg",
        "teacher_better_bg",
        "mean_cos",
        "mean_kl_bg",
        "student_norm",
        "num_fg",
    ];

    fn plan(config: &Config, taps: &Taps, device: &Device) -> Result<Plan<Parts>, MethodError> {
        let head = DenseHead::of(taps)?;
        config.check(&head)?;
        let connector = match config.vectors.place() {
            Some(place) if config.compares_vectors() => {
                let pairs = taps.pairs_at(place, head.levels())?;
                config.connector.plan_pairs(pairs, device)?
            }
            _ => Levels::none(),
        };
        let place = config.vectors.place();
        let place = place.filter(|_| config.reads_vectors(taps, &head));
        let is_read = |tap: &TapInfo| {
            let Some((of, level)) = tap.name.rsplit_once('.') else {
                return false;
            };
            let is_place = of == "head.cls_logits" || Some(of) == place;
            is_place && head.levels().iter().any(|known| known == level)
        };
        let mut plan = Plan::new(Parts { connector })
            .uses_taps(taps, is_read)
            .reads_targets(&config.targets());
        if config.fg_loss != FgLoss::Off {
            plan = plan.loss("loss_fg", config.loss_weight_fg);
        }
        if config.bg_loss != BgLoss::Off {
            plan = plan.loss("loss_bg", config.loss_weight_bg);
        }
        Ok(plan)
    }

    fn forward(
        config: &Config,
        parts: &Parts,
        inputs: &Inputs<'_>,
    ) -> Result<Outputs, MethodError> {
        let head = DenseHead::of(inputs.taps())?;
        let (student, teacher) = head.logits(inputs)?;
        let [images, count, _] = student.dims();
        let at = Locations::new(config, inputs, [images, count])?;
        let predictions = Predictions::new(student, teacher);
        let gate = Gate::new(
            config,
            inputs,
            &at,
            &predictions.student_surprise.detach(),
            &predictions.teacher_surprise,
        )?;
        let agreement = match config.reads_vectors(inputs.taps(), &head) {
            true => {
                let logits = (&predictions.student, &predictions.teacher);
                let connector = &parts.connector;
                Some(Agreement::new(config, connector, inputs, &head, logits)?)
            }
            false => None,
        };

        let num_fg = at.fg.clone().sum();
        let per_fg = num_fg.clone().clamp_min(1.0);
        let per_bg = at.bg.clone().sum().clamp_min(1.0);
        let share = |x: &Tensor<2>, of: &Tensor<2>, per: &Tensor<1>| {
            (x.clone().detach() * of.clone()).sum() / per.clone()
        };
        let background_kl = predictions.kl(config.bg_kl, config.temperature);

        let mut outputs = Outputs::new();
        let fg_distance = match (config.fg_loss, &agreement) {
            (FgLoss::Cosine, Some(agreement)) => Some(agreement.cosine().neg() + 1.0),
            (FgLoss::Mse, Some(agreement)) => Some(agreement.mean_square_difference()),
            (FgLoss::Kl, _) => Some(predictions.kl(Divergence::Bernoulli, config.temperature)),
            (FgLoss::Off | FgLoss::Cosine | FgLoss::Mse, _) => None,
        };
        if let Some(distance) = fg_distance {
            let followed = at.fg.clone() * gate.fg.clone();
            outputs = outputs.loss("loss_fg", (followed * distance).sum() / per_fg.clone());
        }
        let bg_distance = match (config.bg_loss, &agreement) {
            (BgLoss::Kl, _) => Some(background_kl.clone()),
            (BgLoss::Cosine, Some(agreement)) => Some(agreement.cosine().neg() + 1.0),
            (BgLoss::Off | BgLoss::Cosine, _) => None,
        };
        if let Some(distance) = bg_distance {
            let weight = at.bg.clone() * predictions.background_weight(config.bg_weight);
            let total = weight.clone().sum() + WEIGHT_EPS;
            let followed = weight * gate.bg.clone();
            outputs = outputs.loss("loss_bg", (followed * distance).sum() / total);
        }
        if let Some(agreement) = &agreement {
            let length = agreement.student_length();
            outputs = outputs
                .metric("mean_cos", share(&agreement.cosine(), &at.fg, &per_fg))
                .metric("student_norm", share(&length, &at.fg, &per_fg));
        }
        Ok(outputs
            .metric("gated_fg", share(&gate.fg, &at.fg, &per_fg))
            .metric("gated_bg", share(&gate.bg, &at.bg, &per_bg))
            .metric(
                "teacher_better_fg",
                share(&gate.teacher_better, &at.fg, &per_fg),
            )
            .metric(
                "teacher_better_bg",
                share(&gate.teacher_better, &at.bg, &per_bg),
            )
            .metric("mean_kl_bg", share(&background_kl, &at.bg, &per_bg))
            .metric("num_fg", num_fg))
    }
}

/// Class logits of both, `[N, L, K]`, and what they say.
struct Predictions {
    student: Tensor<3>,
    teacher: Tensor<3>,
    student_surprise: Surprise,
    teacher_surprise: Surprise,
}

impl Predictions {
    fn new(student: Tensor<3>, teacher: Tensor<3>) -> Self {
        Predictions {
            student_surprise: Surprise::of(student.clone()),
            teacher_surprise: Surprise::of(teacher.clone()),
            student,
            teacher,
        }
    }

    /// `[N, L]`.
    fn kl(&self, divergence: Divergence, temperature: f64) -> Tensor<2> {
        if divergence == Divergence::Bernoulli && temperature == 1.0 {
            return self.student_surprise.kl_from(&self.teacher_surprise);
        }
        divergence.kl(self.student.clone(), self.teacher.clone(), temperature)
    }

    /// `w`, `[N, L]`.
    fn background_weight(&self, kind: BgWeight) -> Tensor<2> {
        let largest: Tensor<2> = self.teacher.clone().max_dim(2).squeeze_dim(2);
        match kind {
            BgWeight::TeacherScore => sigmoid(largest),
            BgWeight::Uniform => largest.ones_like(),
        }
    }
}

kd_plugin::export!(FgBg);

#[cfg(test)]
mod tests;
