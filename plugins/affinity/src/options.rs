//! Options, and which combinations make no sense.

use kd_plugin::MethodError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options; the defaults are the paper's where it states them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// Levels of the neck whose maps are compared, for models without `feat.last`.
    #[schemars(length(min = 1))]
    pub levels: Vec<u32>,
    /// What turns a teacher's map into its code.
    pub autoencoder: AutoEncoder,
    /// Channels of the code; 0: half of the teacher's.
    pub code_channels: usize,
    /// Input pixels per cell of the code, to whose grid student maps are then averaged; 0: the student's,
    /// to which codes are resized.
    pub code_stride: u32,
    /// Weight of the code's size in `loss_ae`.
    #[schemars(range(min = 0.0))]
    pub sparsity: f64,
    /// How the code's size is summed up.
    pub sparsity_reduction: SparsityReduction,
    /// Epochs of the auto-encoder's phase.
    #[schemars(range(min = 1))]
    pub autoencoder_epochs: u64,
    /// Optimizer steps of the auto-encoder's phase; 0: `autoencoder_epochs` decides.
    pub autoencoder_iters: u64,
    /// Learning rate of the auto-encoder's phase at its first step.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub autoencoder_lr: f64,
    /// Weight decay of the auto-encoder's phase.
    #[schemars(range(min = 0.0))]
    pub autoencoder_weight_decay: f64,
    /// Norm of the difference of two vectors in `loss_adapt`: 1 or 2.
    #[schemars(range(min = 1, max = 2))]
    pub p: u32,
    /// Norm that vectors are divided by in `loss_adapt`: 1 or 2.
    #[schemars(range(min = 1, max = 2))]
    pub q: u32,
    /// What a vector of `loss_adapt` is.
    pub norm_scope: NormScope,
    /// How the difference of two affinity matrices is reduced.
    pub affinity: Reduction,
    /// Multiplies `loss_adapt`; 0: neither the loss nor its adapter exist.
    #[schemars(range(min = 0.0))]
    pub loss_weight_adapt: f64,
    /// Multiplies `loss_aff`; 0: neither the loss nor its adapter exist.
    #[schemars(range(min = 0.0))]
    pub loss_weight_aff: f64,
}

/// What turns a teacher's map into its code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AutoEncoder {
    /// One auto-encoder that all maps share; they need equally many channels.
    #[default]
    Shared,
    /// One auto-encoder a map.
    PerLevel,
    /// Nothing: the map is its own code.
    None,
}

/// How the code's size is summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SparsityReduction {
    /// Sum over channels and cells, mean over images.
    #[default]
    Sum,
    /// Mean over all.
    Mean,
}

/// What a vector of `loss_adapt` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NormScope {
    /// The channels of one position.
    #[default]
    Location,
    /// A whole map.
    Sample,
}

/// How `D`, the difference of two affinity matrices of `m` positions, is reduced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Mean of squares over all entries: `|D|_F^2 / m^2`.
    #[default]
    Mse,
    /// Root of that: `|D|_F / m`.
    Rms,
    /// Mean over rows of a row's length: `sum_i |D_i|_2 / m`.
    Row,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            levels: vec![3, 4, 5],
            autoencoder: AutoEncoder::default(),
            code_channels: 0,
            code_stride: 0,
            sparsity: 1e-7,
            sparsity_reduction: SparsityReduction::default(),
            autoencoder_epochs: 1,
            autoencoder_iters: 0,
            autoencoder_lr: 0.1,
            autoencoder_weight_decay: 1e-4,
            p: 1,
            q: 2,
            norm_scope: NormScope::default(),
            affinity: Reduction::default(),
            loss_weight_adapt: 50.0,
            loss_weight_aff: 1.0,
        }
    }
}

impl Config {
    /// Whether a code is learned.
    #[must_use]
    pub fn has_autoencoder(&self) -> bool {
        self.autoencoder != AutoEncoder::None
    }

    /// Whether there is `loss_adapt`.
    #[must_use]
    pub fn adapts(&self) -> bool {
        self.loss_weight_adapt != 0.0
    }

    /// Whether there is `loss_aff`.
    #[must_use]
    pub fn relates(&self) -> bool {
        self.loss_weight_aff != 0.0
    }

    /// Channels of the code of a map of so many.
    #[must_use]
    pub fn code_channels(&self, teacher: usize) -> usize {
        match (self.autoencoder, self.code_channels) {
            (AutoEncoder::None, _) => teacher,
            (_, 0) => (teacher / 2).max(1),
            (_, channels) => channels,
        }
    }

    /// # Errors
    /// If an option is out of range or contradicts another.
    pub fn check(&self) -> Result<(), MethodError> {
        let refuse = |message: String| Err(MethodError::config(message));
        for (key, value) in [("p", self.p), ("q", self.q)] {
            if ![1, 2].contains(&value) {
                return refuse(format!("`{key}` is {value}; 1 and 2 are known"));
            }
        }
        let not_negative = [
            ("sparsity", self.sparsity),
            ("autoencoder_weight_decay", self.autoencoder_weight_decay),
            ("loss_weight_adapt", self.loss_weight_adapt),
            ("loss_weight_aff", self.loss_weight_aff),
        ];
        for (key, value) in not_negative {
            if !value.is_finite() || value < 0.0 {
                return refuse(format!("`{key}` is {value}; it must be 0 or more"));
            }
        }
        if !(self.autoencoder_lr.is_finite() && self.autoencoder_lr > 0.0) {
            return refuse(format!(
                "`autoencoder_lr` is {}; it must be positive",
                self.autoencoder_lr
            ));
        }
        if self.autoencoder_epochs == 0 && self.autoencoder_iters == 0 {
            return refuse(
                "`autoencoder_epochs` and `autoencoder_iters` are 0; the auto-encoder needs steps, or \
                 `autoencoder = \"none\"`"
                    .to_owned(),
            );
        }
        if !self.adapts() && !self.relates() {
            return refuse(
                "`loss_weight_adapt` and `loss_weight_aff` are 0; one must be positive".to_owned(),
            );
        }
        if self.levels.is_empty() {
            return refuse("`levels` is empty; name at least one".to_owned());
        }
        let is_double = |(at, level): (usize, &u32)| self.levels[..at].contains(level);
        if self.levels.iter().enumerate().any(is_double) {
            return refuse(format!("`levels` {:?} names a level twice", self.levels));
        }
        if !self.has_autoencoder() && (self.code_channels > 0 || self.code_stride > 0) {
            return refuse(
                "`code_channels` and `code_stride` are of a learned code; with \
                 `autoencoder = \"none\"` leave them at 0"
                    .to_owned(),
            );
        }
        Ok(())
    }
}
