//! Hint: the student's features imitate the teacher's, element by element (FitNets, arXiv 1412.6550).

use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self, module::Module};
use kd_plugin::{
    Connector, Connectors, DistillMethod, Inputs, Levels, MethodError, Outputs, Plan, TapPattern,
    Taps, resize_bilinear,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Feature imitation with an absolute or squared distance.
pub struct Hint;

/// Options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// How two values are compared.
    pub distance: Distance,
    /// Scale both maps to [0, 1] by their own minimum and maximum, per image and level, before they
    /// are compared.
    pub normalize: bool,
    /// What becomes of student maps that have not the size of the teacher's.
    pub resize: Resize,
    /// When student maps go through a learned 1x1 convolution first.
    pub connector: Connectors,
    /// Multiplies the loss.
    #[schemars(range(min = 0.0))]
    pub loss_weight: f64,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// `|s - t|`.
    L1,
    /// `(s - t)^2`.
    #[default]
    L2,
}

/// What becomes of student maps that have not the size of the teacher's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// They are brought to the teacher's size, bilinearly with half-pixel centres, after the connector.
    #[default]
    Student,
    /// They are refused.
    Never,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            distance: Distance::default(),
            normalize: false,
            resize: Resize::default(),
            connector: Connectors::Auto,
            loss_weight: 1.0,
        }
    }
}

/// One connector a level, where needed.
#[derive(Module, Debug)]
pub struct Parts {
    connector: Levels<Connector>,
}

impl DistillMethod for Hint {
    type Config = Config;
    type Module = Parts;

    const ID: &'static str = "hint";
    const TITLE: &'static str = "Feature imitation (L1, L2)";
    const DOC: &'static str = "The student's neck (of a segmenter: its last map) imitates the teacher's: mean distance a \
         level, summed over levels.";
    const TAPS: &'static [TapPattern] = &[
        TapPattern::student("neck.*|feat.last"),
        TapPattern::teacher("neck.*|feat.last"),
    ];
    const LOSSES: &'static [&'static str] = &["loss_hint"];

    fn plan(config: &Config, taps: &Taps, device: &Device) -> Result<Plan<Parts>, MethodError> {
        let connector = config.connector.plan(taps, device)?;
        Ok(Plan::new(Parts { connector }).loss("loss_hint", config.loss_weight))
    }

    fn forward(
        config: &Config,
        parts: &Parts,
        inputs: &Inputs<'_>,
    ) -> Result<Outputs, MethodError> {
        let mut total = Tensor::zeros([1], &inputs.device());
        for pair in inputs.pairs()? {
            let student = match parts.connector.get(&pair.name) {
                Some(connector) => connector.forward(pair.student),
                None => pair.student,
            };
            let [_, _, height, width] = pair.teacher.dims();
            let student = match config.resize {
                Resize::Student => resize_bilinear(student, [height, width]),
                Resize::Never => student,
            };
            if student.dims() != pair.teacher.dims() {
                return Err(MethodError::shape(format!(
                    "`{}`: student {:?}, teacher {:?}; the maps must have one size, or \
                     `resize = \"student\"`",
                    pair.name,
                    student.dims(),
                    pair.teacher.dims()
                )));
            }
            let (student, teacher) = if config.normalize {
                (min_max(student), min_max(pair.teacher))
            } else {
                (student, pair.teacher)
            };
            let difference = student - teacher;
            total = total
                + match config.distance {
                    Distance::L1 => difference.abs().mean(),
                    Distance::L2 => difference.square().mean(),
                };
        }
        Ok(Outputs::new().loss("loss_hint", total))
    }
}

/// `(x − min) / (max − min + 1e-6)` over channels and cells of each image; gradients flow through
/// minimum and maximum.
fn min_max(x: Tensor<4>) -> Tensor<4> {
    let flat: Tensor<2> = x.clone().flatten(1, 3);
    let low: Tensor<4> = flat.clone().min_dim(1).unsqueeze_dims(&[-1, -1]);
    let high: Tensor<4> = flat.max_dim(1).unsqueeze_dims(&[-1, -1]);
    (x - low.clone()) / (high - low + 1e-6)
}

kd_plugin::export!(Hint);

#[cfg(test)]
mod tests;
