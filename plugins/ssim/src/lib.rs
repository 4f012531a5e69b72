//! SSIM-KD: structural knowledge distillation for object detection (arXiv 2211.13133).
//!
//! ```text
//! L_feat = Σ_r mean_{N,C,H,W} (1 − SSIM(ψ(φ_r(S_r)), ψ(T_r))) / 2      over the neck's levels r
//! ```
//!
//! `S`, `T` are the neck outputs of student and teacher, `φ` the 1×1 connector, `ψ` the scaling to
//! [0, 1]. The loss proper is in [`loss`], scaling and resizing in [`normalize`].

pub mod loss;
pub mod normalize;

use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self, module::Module};
use kd_plugin::{
    Connector, Connectors, DistillMethod, Inputs, Levels, MethodError, Outputs, Plan, TapPattern,
    Taps,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::loss::{Exponents, Window};
use crate::normalize::NormScope;

/// The method.
pub struct Ssim;

/// Options; the defaults are the paper's where it states them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// Side of the Gaussian window in cells; odd. Smaller maps use a smaller one.
    #[schemars(range(min = 1))]
    pub patch_size: usize,
    /// Standard deviation of the Gaussian window in cells.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub sigma: f64,
    /// Exponent of the luminance term.
    #[schemars(range(min = 0.0))]
    pub alpha: f64,
    /// Exponent of the contrast term.
    #[schemars(range(min = 0.0))]
    pub beta: f64,
    /// Exponent of the structure term.
    #[schemars(range(min = 0.0))]
    pub gamma: f64,
    /// Over what minimum and maximum are taken when maps are scaled to [0, 1].
    pub norm_scope: NormScope,
    /// When student maps go through a learned 1x1 convolution first.
    pub connector: Connectors,
    /// Multiplies the loss.
    #[schemars(range(min = 0.0))]
    pub loss_weight: f64,
    /// Teacher maps are resized to the student's if neither side differs by more than this factor.
    #[schemars(range(min = 1.0))]
    pub max_resize_ratio: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            patch_size: 11,
            sigma: 1.5,
            alpha: 1.0,
            beta: 1.0,
            gamma: 1.0,
            norm_scope: NormScope::Image,
            connector: Connectors::Auto,
            loss_weight: 4.0,
            max_resize_ratio: 2.0,
        }
    }
}

/// The connectors φ, one a level, where needed.
#[derive(Module, Debug)]
pub struct Parts {
    connector: Levels<Connector>,
}

impl DistillMethod for Ssim {
    type Config = Config;
    type Module = Parts;

    const ID: &'static str = "ssim";
    const TITLE: &'static str = "Structural knowledge distillation (SSIM-KD)";
    const DOC: &'static str =
        "Structural dissimilarity of student and teacher neck maps, arXiv 2211.13133.";
    const TAPS: &'static [TapPattern] =
        &[TapPattern::student("neck.*"), TapPattern::teacher("neck.*")];
    const LOSSES: &'static [&'static str] = &["loss_ssim"];

    fn plan(config: &Config, taps: &Taps, device: &Device) -> Result<Plan<Parts>, MethodError> {
        config.check()?;
        let connector = config.connector.plan(taps, device)?;
        Ok(Plan::new(Parts { connector }).loss("loss_ssim", config.loss_weight))
    }

    fn forward(
        config: &Config,
        parts: &Parts,
        inputs: &Inputs<'_>,
    ) -> Result<Outputs, MethodError> {
        let exponents = config.exponents();
        let mut total = Tensor::zeros([1], &inputs.device());
        for pair in inputs.pairs()? {
            let student = match parts.connector.get(&pair.name) {
                Some(connector) => connector.forward(pair.student),
                None => pair.student,
            };
            let [_, _, height, width] = student.dims();
            let teacher = normalize::fit(pair.teacher, [height, width], config.max_resize_ratio)
                .map_err(|error| error.at(&pair.name))?;
            let window = Window::new(config, [height, width], &inputs.device());
            let student = normalize::min_max(student, config.norm_scope);
            let teacher = normalize::min_max(teacher, config.norm_scope);
            total = total + loss::dissimilarity(student, teacher, &window, exponents).mean();
        }
        Ok(Outputs::new().loss("loss_ssim", total))
    }
}

impl Config {
    /// α, β, γ.
    #[must_use]
    pub fn exponents(&self) -> Exponents {
        Exponents {
            luminance: self.alpha,
            contrast: self.beta,
            structure: self.gamma,
        }
    }

    fn check(&self) -> Result<(), MethodError> {
        if self.patch_size.is_multiple_of(2) {
            return Err(MethodError::config(format!(
                "`patch_size` is {}; it must be odd, so that a window has a center",
                self.patch_size
            )));
        }
        if !(self.sigma.is_finite() && self.sigma > 0.0) {
            return Err(MethodError::config(format!(
                "`sigma` is {}; it must be positive",
                self.sigma
            )));
        }
        let exponents = [self.alpha, self.beta, self.gamma];
        if exponents.iter().any(|e| !e.is_finite() || *e < 0.0) || exponents == [0.0; 3] {
            return Err(MethodError::config(format!(
                "`alpha`, `beta`, `gamma` are {exponents:?}; none may be negative, one must be positive"
            )));
        }
        Ok(())
    }
}

kd_plugin::export!(Ssim);

#[cfg(test)]
mod tests;
