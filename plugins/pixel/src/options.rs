//! Options, and which combinations make no sense.

use kd_plugin::{Connectors, MethodError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::task::Task;

/// Weight of `loss_isrd` at the resolution ratio 2, the official code's for CUB-200.
const ISRD_WEIGHT_AT_2: f64 = 10.0;
/// The same at the ratio 4.
const ISRD_WEIGHT_AT_4: f64 = 50.0;
/// Weight of `loss_fkd` where maps are standardised.
const PKD_WEIGHT: f64 = 6.0;
/// A gate this tolerant lets everything pass.
const NO_GATE: f64 = 1.0;

/// Options; the README says which defaults are the official code's, the paper's or chosen here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// In how many stages the student is reached.
    pub mode: Mode,
    /// Side of the teacher's images over the student's.
    #[schemars(extend("exclusiveMinimum" = 1.0))]
    pub k: f64,
    /// Which of both is compressed first in mode `tas`.
    pub order: Order,
    /// Allows `order = "compress_model_first"` for detectors, whose student then keeps the upsampled
    /// pyramid.
    pub force_order: bool,
    /// What the student of the stage `input` starts from.
    pub input_init: InputInit,
    /// Length of the stage `model`, in units of `train.epochs`.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub model_epochs_scale: f64,
    /// Length of the stage `input`, and of the only one of mode `vanilla`.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub input_epochs_scale: f64,
    /// Length of the stage `retune`.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub retune_epochs_scale: f64,
    /// Learning rate of the stage `retune` over the configured one.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub retune_lr_scale: f64,
    /// How much lower than plain training at the small size the AP of the stage `retune` may be, of 1;
    /// 1: the plain detector is not trained, and nothing is asked.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub gate_tolerance: f64,

    /// Whether the stem reconstructs the teacher's image (`loss_isrd`).
    pub isrd: Switch,
    /// Multiplies `loss_isrd`; 0: 10 at `k = 2`, 50 at `k = 4`, and the power of `k` through both.
    #[schemars(range(min = 0.0))]
    pub isrd_weight: f64,
    /// Which map of the stem is decoded.
    pub gsfp: Gsfp,
    /// How what the decoder paints is brought to the image's size, where it is larger.
    pub isrd_fit: IsrdFit,

    /// Whether predictions are distilled (`loss_kd`, of detectors `loss_kd_bbox` too).
    pub kd: Switch,
    /// Multiplies the losses of predictions.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub kd_weight: f64,
    /// Share of the teacher against the labels, for classifiers and segmenters: `loss_kd` has this
    /// factor, and the student's own loss one less it.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub alpha: f64,
    /// Divides the logits of classifiers and segmenters; the divergence is multiplied by its square.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,

    /// Whether features are distilled (`loss_fkd`).
    pub fkd: Switch,
    /// Multiplies `loss_fkd`; 0: 6 where maps are standardised, else 1.
    #[schemars(range(min = 0.0))]
    pub fkd_weight: f64,
    /// How maps are compared.
    pub fkd_norm: FkdNorm,
    /// Taps that are compared, `*` at the end for all that begin so; none: `neck.*` of detectors,
    /// `backbone.*` of others.
    pub fkd_taps: Vec<String>,
    /// How the maps' losses become one.
    pub fkd_reduction: Reduction,
    /// When a student's map goes through a 1x1 convolution before it is compared.
    pub adapter: Connectors,
    /// Multiplies `loss_attn`, the distance of ViT's attention weights; 0: without.
    #[schemars(range(min = 0.0))]
    pub attn_weight: f64,
}

/// In how many stages the student is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Teacher, assistant, student: one stage compresses the model, another one the input.
    #[default]
    Tas,
    /// One stage compresses both.
    Vanilla,
}

/// Which of both is compressed first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The input of detectors, the model of others.
    #[default]
    Auto,
    /// The assistant is the student's architecture and sees large images.
    CompressModelFirst,
    /// The assistant is the teacher's architecture and sees small images.
    CompressInputFirst,
}

/// What the student of the stage `input` starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InputInit {
    /// `teacher` for detectors, `own` for others.
    #[default]
    Auto,
    /// What its architecture is configured to start from.
    Own,
    /// The weights of the stage's teacher, which has its architecture.
    Teacher,
}

/// Whether a part of the method is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// As the mode and the task have it.
    #[default]
    Auto,
    /// Yes.
    On,
    /// No.
    Off,
}

/// Which map of the stem is decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gsfp {
    /// What the first convolution gives, before normalisation, activation and position embedding.
    #[default]
    Conv,
    /// What follows: after normalisation and ReLU, or after the position embedding.
    Stem,
}

/// How what the decoder paints is brought to the image's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IsrdFit {
    /// Its top left is taken.
    #[default]
    Crop,
    /// It is resized, bilinear with half-pixel centres.
    Resize,
}

/// How maps are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FkdNorm {
    /// `pkd` for detectors, `mse` for others.
    #[default]
    Auto,
    /// Mean of squared differences.
    Mse,
    /// Half of that, of maps whose channels have mean 0 and deviation 1 over the batch.
    Pkd,
}

/// How the losses of several maps become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            mode: Mode::default(),
            k: 2.0,
            order: Order::default(),
            force_order: false,
            input_init: InputInit::default(),
            model_epochs_scale: 1.0,
            input_epochs_scale: 1.0,
            retune_epochs_scale: 1.0,
            retune_lr_scale: 0.1,
            gate_tolerance: 0.0,
            isrd: Switch::default(),
            isrd_weight: 0.0,
            gsfp: Gsfp::default(),
            isrd_fit: IsrdFit::default(),
            kd: Switch::default(),
            kd_weight: 1.0,
            alpha: 0.9,
            temperature: 4.0,
            fkd: Switch::default(),
            fkd_weight: 0.0,
            fkd_norm: FkdNorm::default(),
            fkd_taps: Vec::new(),
            fkd_reduction: Reduction::default(),
            adapter: Connectors::Never,
            attn_weight: 0.0,
        }
    }
}

impl Gsfp {
    /// The student's tap.
    #[must_use]
    pub fn tap(self) -> &'static str {
        match self {
            Gsfp::Conv => "stem.conv",
            Gsfp::Stem => "stem",
        }
    }
}

impl Switch {
    fn or(self, auto: bool) -> bool {
        match self {
            Switch::Auto => auto,
            Switch::On => true,
            Switch::Off => false,
        }
    }
}

/// Which parts of the method are there, for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// `loss_isrd`.
    pub isrd: bool,
    /// `loss_kd`, of detectors `loss_kd_bbox` too.
    pub kd: bool,
    /// `loss_fkd`.
    pub fkd: bool,
    /// `loss_attn`.
    pub attn: bool,
}

impl Config {
    /// Whether every option is in its range.
    ///
    /// # Errors
    /// If not; the message names the option.
    pub fn check(&self) -> Result<(), MethodError> {
        let finite = |name: &str, value: f64, fits: bool, must: &str| {
            if value.is_finite() && fits {
                return Ok(());
            }
            Err(MethodError::config(format!(
                "`{name}` is {value}; it must be finite and {must}"
            )))
        };
        finite("k", self.k, self.k > 1.0, "above 1")?;
        for (name, value) in [
            ("model_epochs_scale", self.model_epochs_scale),
            ("input_epochs_scale", self.input_epochs_scale),
            ("retune_epochs_scale", self.retune_epochs_scale),
            ("retune_lr_scale", self.retune_lr_scale),
            ("kd_weight", self.kd_weight),
            ("temperature", self.temperature),
        ] {
            finite(name, value, value > 0.0, "positive")?;
        }
        for (name, value) in [
            ("isrd_weight", self.isrd_weight),
            ("fkd_weight", self.fkd_weight),
            ("attn_weight", self.attn_weight),
        ] {
            finite(name, value, value >= 0.0, "at least 0")?;
        }
        let share = self.alpha > 0.0 && self.alpha <= 1.0;
        finite("alpha", self.alpha, share, "in (0, 1]")?;
        let tolerance = self.gate_tolerance;
        let of_one = (0.0..=1.0).contains(&tolerance);
        finite("gate_tolerance", tolerance, of_one, "in [0, 1]")?;
        if self.mode == Mode::Vanilla && self.order != Order::Auto {
            return Err(MethodError::config(
                "`order` is about the two stages of `mode = \"tas\"`; `mode = \"vanilla\"` has one: \
                 leave `order` at \"auto\"",
            ));
        }
        Ok(())
    }

    /// Which parts there are.
    ///
    /// # Errors
    /// If an option asks for one that cannot be, or none is left.
    pub fn active(&self, task: Task) -> Result<Active, MethodError> {
        let detects = task == Task::Detection;
        let (tas, vanilla) = (self.mode == Mode::Tas, self.mode == Mode::Vanilla);
        if vanilla && detects && self.kd == Switch::On {
            return Err(MethodError::config(
                "`kd = \"on\"`: in `mode = \"vanilla\"` the student's anchors are those of its small \
                 images and the teacher's those of large ones, so their predictions cannot be compared \
                 one by one; leave `kd` at \"auto\", or take `mode = \"tas\"`",
            ));
        }
        if detects && self.attn_weight > 0.0 {
            return Err(MethodError::config(format!(
                "`attn_weight` is {}, and detectors have no attention weights; set it to 0",
                self.attn_weight
            )));
        }
        let active = Active {
            isrd: self.isrd.or(vanilla || !detects),
            kd: self.kd.or(tas || !detects),
            fkd: self.fkd.or(tas || detects),
            attn: self.attn_weight > 0.0,
        };
        if !(active.isrd || active.kd || active.fkd || active.attn) {
            return Err(MethodError::config(
                "`isrd`, `kd` and `fkd` are all off; without a method use `--plugin none`",
            ));
        }
        Ok(active)
    }

    /// Factor of `loss_isrd`.
    #[must_use]
    pub fn isrd_weight(&self) -> f64 {
        if self.isrd_weight > 0.0 {
            return self.isrd_weight;
        }
        let power = (ISRD_WEIGHT_AT_4 / ISRD_WEIGHT_AT_2).log2();
        ISRD_WEIGHT_AT_2 * (self.k / 2.0).powf(power)
    }

    /// Factor of `loss_kd`.
    #[must_use]
    pub fn kd_weight(&self, task: Task) -> f64 {
        match task {
            Task::Detection => self.kd_weight,
            Task::Classification | Task::Segmentation => self.alpha * self.kd_weight,
        }
    }

    /// Factor of the student's own loss in phases that distil predictions.
    #[must_use]
    pub fn task_weight(&self, task: Task) -> f64 {
        match task {
            Task::Detection => 1.0,
            Task::Classification | Task::Segmentation => 1.0 - self.alpha,
        }
    }

    /// Factor of `loss_fkd`.
    #[must_use]
    pub fn fkd_weight(&self, task: Task) -> f64 {
        match (self.fkd_weight > 0.0, self.standardises(task)) {
            (true, _) => self.fkd_weight,
            (false, true) => PKD_WEIGHT,
            (false, false) => 1.0,
        }
    }

    /// Whether maps are compared standardised.
    #[must_use]
    pub fn standardises(&self, task: Task) -> bool {
        match self.fkd_norm {
            FkdNorm::Auto => task == Task::Detection,
            FkdNorm::Mse => false,
            FkdNorm::Pkd => true,
        }
    }

    /// Whether the model is compressed before the input.
    #[must_use]
    pub fn model_first(&self, task: Task) -> bool {
        match self.order {
            Order::Auto => task != Task::Detection,
            Order::CompressModelFirst => true,
            Order::CompressInputFirst => false,
        }
    }

    /// Whether the stage `input` starts from its teacher's weights.
    #[must_use]
    pub fn starts_from_teacher(&self, task: Task) -> bool {
        match self.input_init {
            InputInit::Auto => task == Task::Detection,
            InputInit::Own => false,
            InputInit::Teacher => true,
        }
    }

    /// Whether the stage `retune` must reach something.
    #[must_use]
    pub fn has_gate(&self) -> bool {
        self.gate_tolerance < NO_GATE
    }
}
