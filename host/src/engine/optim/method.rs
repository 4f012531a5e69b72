//! An optimizer of its own for the method's parameters, where the configuration asks for one.

use crate::config::{MethodOptimizerConfig, MethodOptimizerKind, TrainConfig};

use super::groups::decay_by_rank;
use super::{Algorithm, Optimizer};

/// What optimizers call a method's parameter `LABEL.name`, apart from the student's.
#[must_use]
pub fn method_param(name: &str) -> String {
    format!("{METHOD}{name}")
}

const METHOD: &str = "method.";

/// Learns the parameters that [`MethodOptimizer::takes`]; others stay with the student's optimizer.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodOptimizer {
    /// Its state.
    pub optimizer: Optimizer,
    /// Its learning rate over the student's: it follows the same schedule.
    lr_ratio: f64,
    weight_decay: f64,
    bias_decay: f64,
    /// Beginnings of names, with the method's label or without.
    prefixes: Vec<String>,
}

impl MethodOptimizer {
    /// What `train.method` asks for; none where it inherits the student's.
    #[must_use]
    pub fn from_config(train: &TrainConfig) -> Option<Self> {
        let MethodOptimizerConfig {
            optimizer,
            params,
            lr,
            momentum,
            betas,
            eps,
            weight_decay,
            bias_decay,
        } = train.method.clone();
        let algorithm = match optimizer {
            MethodOptimizerKind::Inherit => return None,
            MethodOptimizerKind::Sgd => Algorithm::Sgd { momentum },
            MethodOptimizerKind::Adamw => Algorithm::AdamW { betas, eps },
        };
        Some(MethodOptimizer {
            optimizer: Optimizer::new(algorithm),
            lr_ratio: lr / train.lr,
            weight_decay,
            bias_decay,
            prefixes: params,
        })
    }

    /// Whether it learns the parameter that optimizers call `name`; see [`method_param`].
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        let full = name.strip_prefix(METHOD).unwrap_or(name);
        let bare = full.split_once('.').map_or(full, |(_, bare)| bare);
        let begins = |prefix: &String| full.starts_with(prefix) || bare.starts_with(prefix);
        self.prefixes.is_empty() || self.prefixes.iter().any(begins)
    }

    /// The optimizer of a parameter of the method with this shape, its learning rate and decay; `lr` is
    /// the student's now, phase included.
    pub fn for_param(&mut self, shape: &[usize], lr: f64) -> (&mut Optimizer, f64, f64) {
        let decay = decay_by_rank(shape, self.weight_decay, self.bias_decay);
        (&mut self.optimizer, lr * self.lr_ratio, decay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn its_parameters_follow_its_settings_at_the_students_schedule() {
        let mut train = Config::base().train;
        assert_eq!(MethodOptimizer::from_config(&train), None);
        train.lr = 0.1;
        train.method = MethodOptimizerConfig {
            optimizer: MethodOptimizerKind::Sgd,
            params: vec!["teacher.".into()],
            lr: 0.01,
            momentum: 0.0,
            weight_decay: 0.5,
            bias_decay: 0.0,
            ..train.method
        };
        let mut own = MethodOptimizer::from_config(&train).unwrap();
        let takes = |name| own.takes(&method_param(name));
        assert!(takes("one.teacher.a") && !takes("one.adapter.0"));
        train.method.params = vec!["one.".into()];
        let by_label = MethodOptimizer::from_config(&train).unwrap();
        let takes = |name| by_label.takes(&method_param(name));
        assert!(takes("one.teacher.a") && !takes("other.teacher.a"));
        own.optimizer.begin_step();
        let (mut weight, mut bias) = ([1.0], [1.0]);
        // Half way down the student's schedule: 0.05, so 0.005 here.
        let mut update = |name, shape: &[usize], param: &mut [f32; 1]| {
            let (optimizer, lr, decay) = own.for_param(shape, 0.05);
            optimizer.update(name, param, &[2.0], lr, decay);
        };
        update("teacher.w", &[1, 1], &mut weight);
        update("teacher.b", &[1], &mut bias);
        assert!((weight[0] - (1.0 - 0.005 * 2.5)).abs() < 1e-7);
        assert!((bias[0] - (1.0 - 0.005 * 2.0)).abs() < 1e-7);
    }
}
