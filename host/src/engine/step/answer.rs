//! What a method answered, under the names of the run.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

use crate::distill::{DistillError, DistillStep, Distiller, Methods};
use crate::engine::EngineError;

use super::{Accumulated, add_loss};

/// What a method's terms are called.
pub(super) struct Names {
    pub(super) label: String,
    /// Before the name of a term or metric: nothing for a single method.
    prefix: String,
    /// After the name of a task loss on its maps.
    pub(super) maps_suffix: String,
}

impl Names {
    pub(super) fn new(methods: &Methods, index: usize) -> Self {
        let label = methods.label(index).to_owned();
        let prefix = methods.name(&label, "");
        Names {
            maps_suffix: match prefix.as_str() {
                "" => "_maps".to_owned(),
                _ => format!("_maps_{label}"),
            },
            label,
            prefix,
        }
    }

    pub(super) fn loss(&self, name: &str) -> String {
        let bare = name.strip_prefix("loss_").unwrap_or(name);
        format!("loss_kd_{}{bare}", self.prefix)
    }

    pub(super) fn metric(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn weight(&self, name: &str) -> String {
        let bare = name.strip_prefix("loss_").unwrap_or(name);
        format!("weight_kd_{}{bare}", self.prefix)
    }

    /// Says which of several methods failed: two may be of one plugin.
    pub(super) fn of_entry(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::Distill(source) if !self.prefix.is_empty() => {
                EngineError::Distill(DistillError::OfEntry {
                    label: self.label.clone(),
                    source: Box::new(source),
                })
            }
            error => error,
        }
    }
}

/// Adds what a method answered to what the step has so far.
pub(super) fn take_answer(
    sum: &mut Accumulated,
    index: usize,
    names: &Names,
    distiller: &Distiller,
    answer: &mut DistillStep,
    scale: f32,
) {
    for ((name, value), (_, weight)) in answer.losses.iter().zip(distiller.losses()) {
        let name = names.loss(name);
        // One that does not count may be anything, NaN too.
        let value = match weight {
            0.0 => 0.0,
            weight => f64::from(*value) * weight * f64::from(scale),
        };
        add_loss(&mut sum.losses, &name, value);
        if weight == 0.0 && !sum.weightless.contains(&name) {
            sum.weightless.push(name);
        }
    }
    if distiller.has_maps() && distiller.maps_weight() == 0.0 {
        for (name, _) in &sum.losses {
            if name.ends_with(&names.maps_suffix) && !sum.weightless.contains(name) {
                sum.weightless.push(name.clone());
            }
        }
    }
    let metrics = std::mem::take(&mut answer.metrics).into_iter();
    let metrics = metrics.map(|(name, value)| (names.metric(&name), value));
    sum.metrics.extend(metrics);
    let gradients = std::mem::take(&mut answer.param_gradients);
    for (slot, gradient) in sum.methods[index].iter_mut().zip(gradients) {
        if slot.is_empty() {
            *slot = gradient;
        } else {
            slot.add(gradient);
        }
    }
}

/// Adds the L2 norms of gradients at taps to those of other methods, as if they were one.
pub(super) fn join_norms(norms: &mut BTreeMap<String, f64>, gradients: &[(String, Tensor<4>)]) {
    for (name, gradient) in gradients {
        let square = gradient.clone().square().sum().into_scalar::<f32>();
        let norm = f64::from(square).sqrt();
        let joint = norms.entry(name.clone());
        joint
            .and_modify(|joint| *joint = joint.hypot(norm))
            .or_insert(norm);
    }
}
