//! Template: each student map, seen through a learned 1×1 convolution, points where the teacher's
//! does.
//!
//! ```text
//! L = Σ_r mean_{N,H,W} (1 − cos(φ_r(S_r), T_r))      cosine over channels, sum over levels
//! ```

use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self, module::Module};
use kd_plugin::{
    Connector, Connectors, DistillMethod, Inputs, Levels, MethodError, Outputs, Plan, TapPattern,
    Taps,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Keeps the length of a zero vector from being 0.
const LENGTH_EPS: f64 = 1e-12;

/// The method.
pub struct Template;

/// Options: doc comments become the help text, `Default` the defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// Multiplies the loss.
    #[schemars(range(min = 0.0))]
    pub loss_weight: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config { loss_weight: 1.0 }
    }
}

/// Learned parts; the host knows `connector.neck.p3.weight` and so on.
#[derive(Module, Debug)]
pub struct Parts {
    connector: Levels<Connector>,
}

impl DistillMethod for Template {
    type Config = Config;
    type Module = Parts;

    const ID: &'static str = "template";
    const TITLE: &'static str = "Template (cosine imitation)";
    const DOC: &'static str = "Cosine distance of neck features; a template for methods.";
    const TAPS: &'static [TapPattern] =
        &[TapPattern::student("neck.*"), TapPattern::teacher("neck.*")];
    const LOSSES: &'static [&'static str] = &["loss_template"];

    fn plan(config: &Config, taps: &Taps, device: &Device) -> Result<Plan<Parts>, MethodError> {
        let connector = Connectors::Always.plan(taps, device)?;
        Ok(Plan::new(Parts { connector }).loss("loss_template", config.loss_weight))
    }

    fn forward(_: &Config, parts: &Parts, inputs: &Inputs<'_>) -> Result<Outputs, MethodError> {
        let mut total = Tensor::zeros([1], &inputs.device());
        for pair in inputs.pairs()? {
            let student = parts.connector.expect(&pair.name)?.forward(pair.student);
            let cosine = (unit(student) * unit(pair.teacher)).sum_dim(1);
            total = total + (cosine.neg() + 1.0).mean();
        }
        Ok(Outputs::new().loss("loss_template", total))
    }
}

/// Channel vectors of `[N, C, H, W]` scaled to length 1.
fn unit(x: Tensor<4>) -> Tensor<4> {
    let length = (x.clone().square().sum_dim(1) + LENGTH_EPS).sqrt();
    x / length
}

kd_plugin::export!(Template);

#[cfg(test)]
mod tests {
    use kd_plugin::testkit::{Bench, TapShape, gradcheck};
    use serde_json::json;

    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        for (student, teacher) in [(3, 3), (3, 5)] {
            let taps = TapShape::pair("neck.p3", [2, student, 4, 5], [2, teacher, 4, 5]);
            let mut bench = Bench::new::<Template>(&json!({}), &taps).unwrap();
            bench.fill(7);
            gradcheck::check(&mut bench, &gradcheck::Options::default()).unwrap();
        }
    }

    #[test]
    fn a_scaled_teacher_is_imitated_perfectly() {
        let taps = TapShape::pair("neck.p3", [2, 3, 4, 5], [2, 3, 4, 5]);
        let mut bench = Bench::new::<Template>(&json!({}), &taps).unwrap();
        bench.fill(7);
        let scaled: Vec<f32> = bench.tap_mut(1).iter().map(|value| 3.0 * value).collect();
        bench.tap_mut(0).copy_from_slice(&scaled);
        // Connectors start as the identity; one rounding of a cosine near 1.
        assert!(bench.forward().unwrap().losses[0].abs() < 1e-6);
    }
}
