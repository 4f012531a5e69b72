//! The student's head and task losses on the method's maps.

use burn::tensor::{Gradients, Tensor};

use crate::config::Precision;
use crate::engine::EngineError;
use crate::kernels::is_on_host;
use crate::model::{Model, Output, ops};
use crate::values::{Values, into_vec};

use super::truth::Truth;
use super::{Accumulated, add_loss, on_pool};

/// The student's head and task losses as a judge of a method's maps.
pub(super) struct Judge<'a> {
    pub(super) student: &'a dyn Model,
    pub(super) leaves: &'a [Tensor<1>],
    pub(super) precision: Precision,
    /// The student's own: targets are matched once a batch.
    pub(super) truth: &'a Truth<'a>,
    /// After the name of each loss.
    pub(super) suffix: &'a str,
    pub(super) scale: f32,
    pub(super) step: u64,
}

impl Judge<'_> {
    /// Gradients of the task losses at the maps; those at the head's weights, and the losses, go into
    /// `sum`.
    pub(super) fn gradients(
        &self,
        maps: Vec<Tensor<4>>,
        sum: &mut Accumulated,
    ) -> Result<Vec<Tensor<4>>, EngineError> {
        let device = self.leaves[0].device().without_autodiff();
        let on_host = is_on_host(&self.leaves[0]);
        let maps: Vec<Tensor<4>> = maps
            .into_iter()
            .map(|map| map.to_device(&device).autodiff().require_grad())
            .collect();
        let losses = on_pool(on_host, || {
            let maps: Vec<Tensor<4>> = maps
                .iter()
                .map(|map| ops::in_precision(map.clone(), self.precision))
                .collect();
            let detector = self.student.as_detector();
            let detector = detector.expect("only a detector's head reads maps");
            let head = Output::Detection(detector.head(self.leaves, &maps));
            self.truth.losses(self.student, &head)
        });
        let total = task_total(&mut sum.losses, losses, self.suffix, self.scale, self.step)?;
        let mut gradients = on_pool(on_host, || total.backward());
        // Without weight nothing of it may reach the student, not even a zero.
        if self.scale != 0.0 {
            collect_gradients(&mut sum.student, self.leaves, &mut gradients);
        }
        Ok(maps
            .iter()
            .map(|map| {
                map.grad_remove(&mut gradients)
                    .expect("the head reads every map")
            })
            .collect())
    }
}

/// Adds up task losses times `scale`, and records each as `<name><suffix>`.
pub(super) fn task_total(
    record: &mut Vec<(String, f64)>,
    losses: Vec<(&'static str, Tensor<1>)>,
    suffix: &str,
    scale: f32,
    step: u64,
) -> Result<Tensor<1>, EngineError> {
    // All in one transfer: reading from a device waits for everything before.
    let plain = losses
        .iter()
        .map(|(_, loss)| loss.clone().without_autodiff());
    let values = into_vec(Tensor::cat(plain.collect(), 0));
    let mut total: Option<Tensor<1>> = None;
    for ((name, loss), value) in losses.into_iter().zip(values) {
        let name = format!("{name}{suffix}");
        if !value.is_finite() {
            return Err(EngineError::NonFiniteLoss {
                term: name,
                value,
                step,
            });
        }
        add_loss(record, &name, f64::from(value * scale));
        let loss = if scale == 1.0 { loss } else { loss * scale };
        total = Some(match total {
            None => loss,
            Some(total) => total + loss,
        });
    }
    Ok(total.expect("a model has a task loss"))
}

/// Adds the gradients at `leaves` to `sums`.
pub(super) fn collect_gradients(
    sums: &mut [Option<Values>],
    leaves: &[Tensor<1>],
    gradients: &mut Gradients,
) {
    for (slot, leaf) in sums.iter_mut().zip(leaves) {
        if !leaf.is_autodiff() {
            continue;
        }
        let Some(gradient) = leaf.grad_remove(gradients) else {
            continue;
        };
        let gradient = Values::of(gradient);
        match slot {
            None => *slot = Some(gradient),
            Some(sum) => sum.add(gradient),
        }
    }
}
