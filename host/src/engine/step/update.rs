//! Gradients become new weights: clipping, then the optimizers.

use crate::distill::methods::MethodPart;
use crate::distill::schedule::Phase;
use crate::engine::optim::method_param;
use crate::engine::{EngineError, grad_clip};
use crate::values::Values;

use super::{Accumulated, Learner};

impl Learner {
    /// Clips and updates; returns the norms before clipping, the student's and by label those of the
    /// methods whose parameters learn.
    pub(super) fn apply(
        &mut self,
        sum: &mut Accumulated,
        phase: &Phase,
        lr: f64,
    ) -> Result<(f64, Vec<(String, f64)>), EngineError> {
        let specs = self.model.specs();
        let student = specs
            .iter()
            .zip(&mut sum.student)
            .filter_map(|(spec, g)| Some((spec.name.as_str(), g.as_mut()?)));
        // Of each method's parameters; none for those that do not learn.
        let mut names: Vec<Vec<Option<String>>> = Vec::new();
        for (index, bound) in self.methods.iter().enumerate() {
            let learning = self.methods.learning(index, phase);
            let params = bound.param_names().into_iter().zip(learning);
            let named = params.map(|(name, learns)| learns.then(|| method_param(&name)));
            names.push(named.collect());
        }
        // The student, then each method: one norm over several would slow each for the others.
        let mut clipped: Vec<Vec<(&str, &mut Values)>> = vec![student.collect()];
        for (names, gradients) in names.iter().zip(&mut sum.methods) {
            let params = names.iter().zip(gradients);
            let learning = params.filter_map(|(name, gradient)| Some((name.as_deref()?, gradient)));
            clipped.push(learning.collect());
        }
        // All are known to be finite before any is touched.
        let norms = clipped.iter().map(|gradients| grad_clip::norm(gradients));
        let norms = norms.collect::<Result<Vec<f64>, _>>()?;
        for (gradients, norm) in clipped.iter_mut().zip(&norms) {
            grad_clip::clip(gradients, *norm, self.grad_clip_value, self.grad_clip_norm)?;
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
        let parts: Vec<MethodPart> = (0..self.methods.len())
            .map(|index| self.methods.part_of(index, phase))
            .collect();
        let methods = self.methods.iter_mut().zip(&names).zip(&sum.methods);
        for (((bound, names), gradients), part) in methods.zip(&parts) {
            let distiller = &mut bound.distiller;
            let shapes: Vec<Vec<usize>> = distiller.param_shapes().map(<[_]>::to_vec).collect();
            let gradients = names.iter().zip(gradients).zip(&shapes);
            for (index, ((name, gradient), shape)) in gradients.enumerate() {
                let Some(name) = name else { continue };
                let group = self.groups.of_method(shape);
                let lr = lr * group.lr_scale * part.lr_scale;
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
        let labels = self.methods.iter().map(|bound| bound.label.clone());
        let of_methods = labels.zip(norms[1..].iter().copied()).zip(&names);
        let learning = of_methods.filter(|(_, names)| names.iter().any(Option::is_some));
        Ok((norms[0], learning.map(|(norm, _)| norm).collect()))
    }
}
