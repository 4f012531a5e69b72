//! Knowledge distillation on class logits (arXiv 1503.02531) of a dense detector or a segmenter.
//!
//! ```text
//! L_kd = T² Σ_{i in selected} KL(p_T,i(T) ‖ p_S,i(T)) / normaliser
//! ```
//!
//! `i` are locations (of a detector: an anchor of a cell) of all levels and images, `p(T)` the
//! predictions of the logits divided by the temperature `T`.

mod pixels;

use kd_plugin::burn::tensor::{Device, Int, Tensor};
use kd_plugin::burn::{self, module::Module};
use kd_plugin::{
    DenseHead, DistillMethod, Divergence, Inputs, MethodError, Outputs, Plan, TapPattern, Taps,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `assign.labels` says of background.
const BACKGROUND: i64 = -1;

/// The method.
pub struct Logits;

/// Options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// What class logits mean.
    pub kl: Kl,
    /// Divides the logits of both; the divergence is multiplied by its square.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
    /// What the sum over locations is divided by.
    pub reduction: Reduction,
    /// Which locations count, by the student's own assignment of this step.
    pub locations: Locations,
    /// Whether `locations = "all"` counts locations that are neither foreground nor background, too.
    pub include_ignored: bool,
    /// Multiplies the loss.
    #[schemars(range(min = 0.0))]
    pub loss_weight: f64,
}

/// What class logits mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kl {
    /// `bernoulli` for detectors, whose heads are sigmoid heads here, `softmax` for segmenters.
    #[default]
    Auto,
    /// Every class is a yes or no of its own.
    Bernoulli,
    /// One distribution over the classes.
    Softmax,
}

impl Kl {
    fn or(self, auto: Divergence) -> Divergence {
        match self {
            Kl::Auto => auto,
            Kl::Bernoulli => Divergence::Bernoulli,
            Kl::Softmax => Divergence::Softmax,
        }
    }
}

/// What the sum over locations is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// `foreground` for detectors, `mean` for segmenters, as their own losses.
    #[default]
    Auto,
    /// The number of foreground locations of the batch, at least 1; of detectors alone.
    Foreground,
    /// The number of locations that count, at least 1.
    Mean,
    /// The number of images.
    Batch,
}

/// Which locations count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Locations {
    /// Foreground and background.
    #[default]
    All,
    /// Foreground.
    Fg,
    /// Background.
    Bg,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            kl: Kl::default(),
            temperature: 1.0,
            reduction: Reduction::default(),
            locations: Locations::default(),
            include_ignored: false,
            loss_weight: 1.0,
        }
    }
}

/// Nothing is learned.
#[derive(Module, Debug)]
pub struct Parts {}

impl DistillMethod for Logits {
    type Config = Config;
    type Module = Parts;

    const ID: &'static str = "logits";
    const TITLE: &'static str = "Knowledge distillation of class logits";
    const DOC: &'static str = "Kullback-Leibler divergence of the student's class predictions from the teacher's at every \
         location of a dense head or pixel of a segmenter, arXiv 1503.02531.";
    const TAPS: &'static [TapPattern] = &[
        TapPattern::student("head.cls_logits.*|logits"),
        TapPattern::teacher("head.cls_logits.*|logits"),
    ];
    const TARGETS: &'static [&'static str] = &["assign.labels"];
    const LOSSES: &'static [&'static str] = &["loss_kd"];
    const METRICS: &'static [&'static str] = &["mean_kl", "num_fg"];

    fn plan(config: &Config, taps: &Taps, _: &Device) -> Result<Plan<Parts>, MethodError> {
        let plan = Plan::new(Parts {}).loss("loss_kd", config.loss_weight);
        config.check_temperature()?;
        if pixels::predicts(taps) {
            pixels::check(config, taps)?;
            return Ok(plan.reads_targets(&[]));
        }
        config.check(&DenseHead::of(taps)?)?;
        Ok(plan)
    }

    fn forward(config: &Config, _: &Parts, inputs: &Inputs<'_>) -> Result<Outputs, MethodError> {
        if pixels::predicts(inputs.taps()) {
            return pixels::forward(config, inputs);
        }
        let head = DenseHead::of(inputs.taps())?;
        let (student, teacher) = head.logits(inputs)?;
        let [images, locations, _] = student.dims();
        let labels: Tensor<2, Int> = inputs.target_int("assign.labels")?;
        if labels.dims() != [images, locations] {
            return Err(MethodError::shape(format!(
                "target `assign.labels` is {:?}, the levels {:?} have {locations} locations in each \
                 of {images} images",
                labels.dims(),
                head.levels()
            )));
        }
        let counts = config.counts(&labels);
        let num_fg = labels.greater_equal_elem(0).float().sum();
        let num_counts = counts.clone().sum().clamp_min(1.0);
        let kl = config.kl.or(Divergence::Bernoulli);
        let kl = kl.kl(student, teacher, config.temperature);
        let total = (kl * counts).sum();
        let loss = match config.reduction {
            Reduction::Auto | Reduction::Foreground => {
                total.clone() / num_fg.clone().clamp_min(1.0)
            }
            Reduction::Mean => total.clone() / num_counts.clone(),
            Reduction::Batch => total.clone() / images as f64,
        };
        Ok(Outputs::new()
            .loss("loss_kd", loss)
            .metric("mean_kl", total.detach() / num_counts)
            .metric("num_fg", num_fg))
    }
}

impl Config {
    fn check_temperature(&self) -> Result<(), MethodError> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(MethodError::config(format!(
                "`temperature` is {}; it must be positive",
                self.temperature
            )));
        }
        Ok(())
    }

    fn check(&self, head: &DenseHead) -> Result<(), MethodError> {
        if self.kl == Kl::Softmax && head.classes() == 1 {
            return Err(MethodError::config(
                "`kl = \"softmax\"` over one class is always 0; use `kl = \"bernoulli\"`",
            ));
        }
        if self.include_ignored && self.locations != Locations::All {
            return Err(MethodError::config(format!(
                "`include_ignored = true` needs `locations = \"all\"`, which is {:?}: ignored \
                 locations are neither foreground nor background",
                self.locations
            )));
        }
        Ok(())
    }

    /// `[N, L]`: 1 where a location counts.
    fn counts(&self, labels: &Tensor<2, Int>) -> Tensor<2> {
        let labels = labels.clone();
        match self.locations {
            Locations::All if self.include_ignored => Tensor::ones(labels.dims(), &labels.device()),
            Locations::All => labels.greater_equal_elem(BACKGROUND).float(),
            Locations::Fg => labels.greater_equal_elem(0).float(),
            Locations::Bg => labels.equal_elem(BACKGROUND).float(),
        }
    }
}

kd_plugin::export!(Logits);

#[cfg(test)]
mod tests;
