//! Gradients become new weights: clipping, then the optimizers.

use crate::distill::schedule::Phase;
use crate::engine::grad_clip::views;
use crate::engine::optim::method_param;
use crate::engine::{EngineError, grad_clip};

use super::{Accumulated, Learner};

impl Learner {
    /// Clips and updates; returns the norms before clipping, the student's and the method's.
    pub(super) fn apply(
        &mut self,
        sum: &mut Accumulated,
        phase: &Phase,
        lr: f64,
    ) -> Result<(f64, Option<f64>), EngineError> {
        let specs = self.detector.specs();
        let method_names: Vec<String> = match &self.distiller {
            Some(distiller) if phase.learn.method => {
                distiller.param_names().map(method_param).collect()
            }
            _ => Vec::new(),
        };
        let mut student: Vec<(&str, &mut [f32])> = specs
            .iter()
            .zip(&mut sum.student)
            .filter_map(|(spec, g)| Some((spec.name.as_str(), g.as_deref_mut()?)))
            .collect();
        let mut method: Vec<(&str, &mut [f32])> = method_names
            .iter()
            .zip(&mut sum.method)
            .map(|(name, g)| (name.as_str(), g.as_mut_slice()))
            .collect();
        // Both are known to be finite before either is touched.
        let norm = grad_clip::global_norm(&views(&student))?;
        let method_norm = match method.is_empty() {
            true => None,
            false => Some(grad_clip::global_norm(&views(&method))?),
        };
        for (gradients, mut norm) in [
            (&mut student, norm),
            (&mut method, method_norm.unwrap_or_default()),
        ] {
            if self.grad_clip_value > 0.0 {
                grad_clip::clip_values(gradients, self.grad_clip_value as f32);
                norm = grad_clip::global_norm(&views(gradients))?;
            }
            grad_clip::clip_known_norm(gradients, norm, self.grad_clip_norm);
        }
        self.optimizer.begin_step();
        for (index, gradient) in sum.student.iter().enumerate() {
            let Some(gradient) = gradient else { continue };
            let spec = &specs[index];
            let group = self.groups.of_detector(spec);
            let lr = lr * group.lr_scale * phase.lr_scale.part(spec.part);
            let optimizer = &mut self.optimizer;
            self.weights.with_param_mut(index, |values| {
                optimizer.update(&spec.name, values, gradient, lr, group.weight_decay);
            });
        }
        if let Some(own) = &mut self.method_optimizer {
            own.optimizer.begin_step();
        }
        if let Some(distiller) = &mut self.distiller {
            let gradients = method_names.iter().zip(&sum.method);
            for ((name, gradient), param) in gradients.zip(distiller.params_mut()) {
                let group = self.groups.of_method(&param.shape);
                let lr = lr * group.lr_scale * phase.lr_scale.method;
                match &mut self.method_optimizer {
                    Some(own) if own.takes(name) => {
                        own.update(name, &param.shape, &mut param.data, gradient, lr);
                    }
                    _ => self.optimizer.update(
                        name,
                        &mut param.data,
                        gradient,
                        lr,
                        group.weight_decay,
                    ),
                }
            }
        }
        Ok((norm, method_norm))
    }
}
