//! The student's head and task losses on the method's maps.

use burn::tensor::{Device, Gradients, Tensor};

use crate::detection::Assignment;
use crate::engine::EngineError;
use crate::model::Detector;

use super::{Accumulated, accumulate, add_loss, on_pool};

/// The student's head and task losses as a judge of a method's maps.
pub(super) struct Judge<'a> {
    pub(super) detector: &'a dyn Detector,
    pub(super) leaves: &'a [Tensor<1>],
    /// The student's own: targets are matched once a batch.
    pub(super) assignment: &'a Assignment,
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
        let device = Device::flex().autodiff();
        let maps: Vec<Tensor<4>> = maps
            .into_iter()
            .map(|map| Tensor::from_inner(map).to_device(&device).require_grad())
            .collect();
        let losses = on_pool(|| {
            let head = self.detector.head(self.leaves, &maps);
            self.detector.losses(&head, self.assignment)
        });
        let total = task_total(&mut sum.losses, losses, "_maps", self.scale, self.step)?;
        let mut gradients = on_pool(|| total.backward());
        collect_gradients(&mut sum.student, self.leaves, &mut gradients);
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
    let mut total: Option<Tensor<1>> = None;
    for (name, loss) in losses {
        let name = format!("{name}{suffix}");
        let value = loss.clone().without_autodiff().into_scalar::<f32>();
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
    Ok(total.expect("a detector has a task loss"))
}

/// Adds the gradients at `leaves` to `sums`.
pub(super) fn collect_gradients(
    sums: &mut [Option<Vec<f32>>],
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
        let gradient = gradient
            .into_data()
            .try_into_vec::<f32>()
            .expect("weights and gradients are f32");
        match slot {
            None => *slot = Some(gradient),
            Some(sum) => accumulate(sum, &gradient),
        }
    }
}
