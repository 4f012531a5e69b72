//! Gradients become new weights: clipping, then the optimizers.

use crate::distill::schedule::Phase;
use crate::engine::optim::method_param;
use crate::engine::{EngineError, grad_clip};
use crate::values::Values;

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
        let mut student: Vec<(&str, &mut Values)> = specs
            .iter()
            .zip(&mut sum.student)
            .filter_map(|(spec, g)| Some((spec.name.as_str(), g.as_mut()?)))
            .collect();
        let mut method: Vec<(&str, &mut Values)> = method_names
            .iter()
            .map(String::as_str)
            .zip(&mut sum.method)
            .collect();
        // Both are known to be finite before either is touched.
        let norm = grad_clip::norm(&student)?;
        let method_norm = match method.is_empty() {
            true => None,
            false => Some(grad_clip::norm(&method)?),
        };
        for (gradients, norm) in [
            (&mut student, norm),
            (&mut method, method_norm.unwrap_or_default()),
        ] {
            grad_clip::clip(gradients, norm, self.grad_clip_value, self.grad_clip_norm)?;
        }
        self.optimizer.begin_step();
        for (index, gradient) in sum.student.iter().enumerate() {
            let Some(gradient) = gradient else { continue };
            let spec = &specs[index];
            let group = self.groups.of_detector(spec);
            let lr = lr * group.lr_scale * phase.lr_scale.part(spec.part);
            let (optimizer, name, decay) = (&mut self.optimizer, &spec.name, group.weight_decay);
            match gradient {
                Values::Host(gradient) => self.weights.with_param_mut(index, |values| {
                    optimizer.update(name, values, gradient, lr, decay);
                }),
                Values::Device(gradient) => self.weights.replace(index, |values| {
                    optimizer.updated(name, values, gradient.clone(), lr, decay)
                }),
            }
        }
        if let Some(own) = &mut self.method_optimizer {
            own.optimizer.begin_step();
        }
        if let Some(distiller) = &mut self.distiller {
            let shapes: Vec<Vec<usize>> = distiller.param_shapes().map(<[_]>::to_vec).collect();
            let gradients = method_names.iter().zip(&sum.method).zip(&shapes);
            for (index, ((name, gradient), shape)) in gradients.enumerate() {
                let group = self.groups.of_method(shape);
                let lr = lr * group.lr_scale * phase.lr_scale.method;
                let (optimizer, lr, decay) = match &mut self.method_optimizer {
                    Some(own) if own.takes(name) => own.for_param(shape, lr),
                    _ => (&mut self.optimizer, lr, group.weight_decay),
                };
                match gradient {
                    Values::Host(gradient) => {
                        let param = &mut distiller.params_mut()[index].data;
                        optimizer.update(name, param, gradient, lr, decay);
                    }
                    Values::Device(gradient) => distiller.replace_param(index, |param| {
                        optimizer.updated(name, param, gradient.clone(), lr, decay)
                    }),
                }
            }
        }
        Ok((norm, method_norm))
    }
}
