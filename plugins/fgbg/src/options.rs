//! Options, and which combinations make no sense.

use kd_plugin::{Connectors, DenseHead, Divergence, MethodError, TapInfo, Taps};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// Which vectors of a location have their directions compared.
    pub vectors: Vectors,
    /// When student vectors go through a learned 1x1 convolution first. Logits never do.
    pub connector: Connectors,
    /// Subtracts the mean over classes from both logit vectors before they are compared; for
    /// `vectors = "logits"`.
    pub center: bool,
    /// What is compared at foreground.
    pub fg_loss: FgLoss,
    /// What is compared at background.
    pub bg_loss: BgLoss,
    /// What class logits mean at background.
    pub bg_kl: Divergence,
    /// Divides the logits of both in every divergence, which is multiplied by its square.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub temperature: f64,
    /// How much a background location counts.
    pub bg_weight: BgWeight,
    /// What foreground is.
    pub foreground: Foreground,
    /// Where the student follows the teacher.
    pub gate: GateKind,
    /// Which of both losses the gate acts on.
    pub gate_on: GateOn,
    /// What the gate compares.
    pub better_by: BetterBy,
    /// Adds `1 - IoU` of the decoded box to what the gate compares at foreground.
    pub gate_box: bool,
    /// The teacher must be better by more than this.
    #[schemars(range(min = 0.0))]
    pub margin: f64,
    /// Scale of `gate = "soft"`.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub soft_scale: f64,
    /// Multiplies `loss_fg`.
    #[schemars(range(min = 0.0))]
    pub loss_weight_fg: f64,
    /// Multiplies `loss_bg`.
    #[schemars(range(min = 0.0))]
    pub loss_weight_bg: f64,
}

/// Which vectors are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Vectors {
    /// A cell's features before the class predictor.
    #[default]
    ClsFeat,
    /// A cell's features before the box predictor.
    BoxFeat,
    /// A cell's features after the neck.
    Neck,
    /// The class logits of a location.
    Logits,
}

/// What is compared at foreground.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FgLoss {
    /// 1 minus the cosine of the vectors.
    #[default]
    Cosine,
    /// The divergence of the class predictions, a yes or no a class.
    Kl,
    /// The mean squared difference of the vectors.
    Mse,
    /// Nothing.
    Off,
}

/// What is compared at background.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BgLoss {
    /// The divergence of the class predictions.
    #[default]
    Kl,
    /// 1 minus the cosine of the vectors.
    Cosine,
    /// Nothing.
    Off,
}

/// How much a background location counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BgWeight {
    /// The teacher's largest class score there.
    #[default]
    TeacherScore,
    /// 1.
    Uniform,
}

/// What foreground is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Foreground {
    /// The student's own positives and negatives of this step; what it ignores is neither.
    #[default]
    Assigned,
    /// Inside a ground-truth box, of which the smallest gives the class; all else is background.
    Boxes,
}

/// Where the student follows the teacher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateKind {
    /// Where the teacher is better, location by location.
    #[default]
    Location,
    /// The more the better the teacher is: `sigmoid((l_S - l_T - margin) / soft_scale)`.
    Soft,
    /// In images where the teacher is better in sum.
    Image,
    /// Everywhere.
    Off,
}

/// Which of both losses the gate acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateOn {
    /// Foreground and background.
    #[default]
    Both,
    /// Foreground; background follows the teacher everywhere.
    Fg,
    /// Background; foreground follows the teacher everywhere.
    Bg,
}

/// What the gate compares; smaller is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BetterBy {
    /// Foreground: `-log p` of the true class. Background: the sum of `-log(1 - p)` over classes.
    #[default]
    Score,
    /// The detector's own losses at the location.
    TaskLoss,
    /// Foreground: `1 - IoU` of the decoded box and its object. Background: as `score`.
    Iou,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            vectors: Vectors::default(),
            connector: Connectors::default(),
            center: false,
            fg_loss: FgLoss::default(),
            bg_loss: BgLoss::default(),
            bg_kl: Divergence::default(),
            temperature: 1.0,
            bg_weight: BgWeight::default(),
            foreground: Foreground::default(),
            gate: GateKind::default(),
            gate_on: GateOn::default(),
            better_by: BetterBy::default(),
            gate_box: false,
            margin: 0.0,
            soft_scale: 0.1,
            loss_weight_fg: 2.0,
            loss_weight_bg: 1.0,
        }
    }
}

impl Vectors {
    /// Where the taps of the vectors are; logits are the head's anyway.
    #[must_use]
    pub fn place(self) -> Option<&'static str> {
        match self {
            Vectors::ClsFeat => Some("head.cls_feat"),
            Vectors::BoxFeat => Some("head.box_feat"),
            Vectors::Neck => Some("neck"),
            Vectors::Logits => None,
        }
    }
}

impl Config {
    /// Whether a loss compares vectors.
    #[must_use]
    pub fn compares_vectors(&self) -> bool {
        matches!(self.fg_loss, FgLoss::Cosine | FgLoss::Mse) || self.bg_loss == BgLoss::Cosine
    }

    /// Whether vectors are looked at: by a loss, or, where that takes no connector, to tell how far
    /// apart their directions are.
    #[must_use]
    pub fn reads_vectors(&self, taps: &Taps, head: &DenseHead) -> bool {
        let equal = |(student, teacher): &(&TapInfo, &TapInfo)| {
            student.channels().ok() == teacher.channels().ok()
        };
        self.compares_vectors()
            || match self
                .vectors
                .place()
                .map(|p| taps.pairs_at(p, head.levels()))
            {
                None => true,
                Some(Ok(pairs)) => pairs.iter().all(equal),
                // Nothing to look at, and nothing that needs it.
                Some(Err(_)) => false,
            }
    }

    /// The targets that these options read.
    #[must_use]
    pub fn targets(&self) -> Vec<&'static str> {
        let mut targets = match self.foreground {
            Foreground::Assigned => vec!["assign.labels"],
            Foreground::Boxes => vec!["points_xy", "gt_boxes_xyxy", "gt_labels", "gt_batch"],
        };
        if self.looks_at_boxes() {
            targets.extend(["student.boxes_xyxy", "teacher.boxes_xyxy"]);
            if self.foreground == Foreground::Assigned {
                targets.extend(["assign.gt_index", "gt_boxes_xyxy"]);
            }
        }
        if self.better_by == BetterBy::TaskLoss {
            targets.extend(["student.task_loss", "teacher.task_loss"]);
        }
        targets
    }

    /// Whether a loss compares directions.
    fn compares_directions(&self) -> bool {
        self.fg_loss == FgLoss::Cosine || self.bg_loss == BgLoss::Cosine
    }

    /// Whether the gate looks at boxes.
    #[must_use]
    pub fn looks_at_boxes(&self) -> bool {
        self.gate_box || self.better_by == BetterBy::Iou
    }

    /// Whether the options make sense together and for these heads.
    ///
    /// # Errors
    /// If not; the message says what to change.
    pub fn check(&self, head: &DenseHead) -> Result<(), MethodError> {
        for (name, value, may_be_zero) in [
            ("temperature", self.temperature, false),
            ("soft_scale", self.soft_scale, false),
            ("margin", self.margin, true),
        ] {
            if !(value.is_finite() && (value > 0.0 || may_be_zero && value == 0.0)) {
                let least = if may_be_zero {
                    "at least 0"
                } else {
                    "positive"
                };
                return Err(MethodError::config(format!(
                    "`{name}` is {value}; it must be finite and {least}"
                )));
            }
        }
        if self.fg_loss == FgLoss::Off && self.bg_loss == BgLoss::Off {
            return Err(MethodError::config(
                "`fg_loss` and `bg_loss` are both \"off\"; without a method use `--plugin none`",
            ));
        }
        if self.gate_box && self.better_by == BetterBy::Iou {
            return Err(MethodError::config(
                "`gate_box = true` adds 1 - IoU to what the gate compares, and `better_by = \"iou\"` \
                 compares just that; set `gate_box = false`",
            ));
        }
        if self.center && self.vectors != Vectors::Logits {
            return Err(MethodError::config(
                "`center = true` subtracts a mean over classes; it needs `vectors = \"logits\"`",
            ));
        }
        let classes = head.classes();
        if self.bg_kl == Divergence::Softmax && self.bg_loss == BgLoss::Kl && classes == 1 {
            return Err(MethodError::config(
                "`bg_kl = \"softmax\"` over one class is always 0; use `bg_kl = \"bernoulli\"`",
            ));
        }
        if self.vectors == Vectors::Logits && self.compares_directions() {
            let fewest = if self.center { 3 } else { 2 };
            if classes < fewest {
                let centered = if self.center { " less their mean" } else { "" };
                return Err(MethodError::config(format!(
                    "`vectors = \"logits\"`: logits of {classes} class(es){centered} have two \
                     directions, so their cosine is 1 or -1 and has no gradient; at least {fewest} \
                     classes, or `vectors = \"cls_feat\"`"
                )));
            }
        }
        Ok(())
    }
}
