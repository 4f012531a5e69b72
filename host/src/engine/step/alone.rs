//! A step of a method alone, before the run: teachers run, the student does not.
//!
//! ```text
//! teacher.forward (no gradient, as deep as the wanted taps)
//! method.forward → the phase's losses;  method.backward → d_params
//! clip → the phase's optimizer
//! ```
//! Student taps have their extents and hold NaN: a loss that reads one is not finite, and is named.

use std::time::Instant;

use burn::tensor::Tensor;

use crate::data::Batch;
use crate::distill::DistillError;
use crate::distill::schedule::PretrainPhase;
use crate::distill::step::TapValues;
use crate::engine::optim::{PretrainOptimizer, method_param};
use crate::engine::step_times::StepTimes;
use crate::engine::teacher::{model_taps, sources};
use crate::engine::{EngineError, grad_clip};
use crate::model::Forward;
use crate::plugin::CallInfo;
use crate::values::Values;

use super::answer::Names;
use super::{Learner, add, add_loss, of_micro_batch};

/// Where in a phase a step happens.
#[derive(Clone, Copy, Debug)]
pub struct AlonePosition {
    /// Position among the schedule's phases of the method alone.
    pub phase: usize,
    /// Optimizer steps done in it.
    pub step: u64,
    /// Epochs completed in it.
    pub epoch: u64,
    /// Seed of the run.
    pub seed: u64,
}

/// What a step of a method alone did.
#[derive(Clone, Debug)]
pub struct AloneReport {
    /// The losses that count, as in the run's log: with the weights of the method's plan, mean over
    /// micro-batches.
    pub losses: Vec<(String, f64)>,
    /// Statistics from the method, of the last micro-batch. What would read the student is NaN.
    pub metrics: Vec<(String, f64)>,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Seconds.
    pub times: StepTimes,
}

/// What one batch showed, applied to nothing.
#[derive(Clone, Debug)]
pub struct AloneProbe {
    /// The losses that count.
    pub losses: Vec<(String, f64)>,
    /// Parameters that should learn and got no gradient, as `LABEL.name`.
    pub without_gradient: Vec<String>,
}

/// Losses and gradients of the micro-batches so far.
#[derive(Default)]
struct Sum {
    losses: Vec<(String, f64)>,
    /// At each of the method's parameters.
    params: Vec<Values>,
    metrics: Vec<(String, f64)>,
    times: StepTimes,
}

impl Learner {
    /// Runs one optimizer step of the method that declares phases over `micro_batches`.
    ///
    /// # Errors
    /// If a loss, gradient or buffer is not finite or the plugin fails; nothing is changed then.
    ///
    /// # Panics
    /// If the schedule has no such phase.
    pub fn step_alone(
        &mut self,
        micro_batches: Vec<Batch>,
        at: AlonePosition,
        optimizer: &mut PretrainOptimizer,
    ) -> Result<AloneReport, EngineError> {
        let owner = self.owner();
        let before = self.methods.distiller_mut(owner).buffer_values();
        let done = self.try_step_alone(micro_batches, at, optimizer);
        if done.is_err() {
            self.methods.distiller_mut(owner).restore_buffers(before);
        }
        done
    }

    fn try_step_alone(
        &mut self,
        micro_batches: Vec<Batch>,
        at: AlonePosition,
        optimizer: &mut PretrainOptimizer,
    ) -> Result<AloneReport, EngineError> {
        let phase = self.schedule.pretrain()[at.phase].clone();
        let mut sum = self.gradients_alone(micro_batches, &phase, at, false)?;
        let lr = phase.recipe.lr(at.step, phase.steps);
        let clock = Instant::now();
        let grad_norm = self.apply_alone(&mut sum, &phase, lr, optimizer)?;
        add(&mut sum.times.optimizer, clock.elapsed());
        Ok(AloneReport {
            losses: sum.losses,
            metrics: sum.metrics,
            grad_norm,
            lr,
            times: sum.times,
        })
    }

    /// Computes losses and gradients of a step of the method alone and applies nothing.
    ///
    /// # Errors
    /// As [`Learner::step_alone`].
    ///
    /// # Panics
    /// As [`Learner::step_alone`].
    pub fn probe_alone(
        &mut self,
        batch: Batch,
        at: AlonePosition,
    ) -> Result<AloneProbe, EngineError> {
        let phase = self.schedule.pretrain()[at.phase].clone();
        let owner = self.owner();
        let before = self.methods.distiller_mut(owner).buffer_values();
        let sum = self.gradients_alone(vec![batch], &phase, at, true);
        // The phase must start as if the check had not happened.
        self.methods.distiller_mut(owner).restore_buffers(before);
        let sum = sum?;
        let params = self.learning_alone(&phase).into_iter();
        let params = params.zip(sum.params);
        let idle = params.filter_map(|(name, gradient)| {
            let nothing = gradient.into_vec().iter().all(|g| *g == 0.0);
            name.filter(|_| nothing)
        });
        Ok(AloneProbe {
            losses: sum.losses,
            without_gradient: idle.collect(),
        })
    }

    /// The method that declares phases.
    fn owner(&self) -> usize {
        let owner = self.methods.owner();
        owner.expect("a phase has a method that declares it")
    }

    /// For each of the method's parameters its name `LABEL.name`; none where it does not learn.
    fn learning_alone(&self, phase: &PretrainPhase) -> Vec<Option<String>> {
        let owner = self.methods.bound(self.owner());
        let full = owner.param_names().into_iter();
        let named = full.zip(owner.distiller.param_names());
        named
            .map(|(full, name)| phase.selection.learns(name).then_some(full))
            .collect()
    }

    fn gradients_alone(
        &mut self,
        micro_batches: Vec<Batch>,
        phase: &PretrainPhase,
        at: AlonePosition,
        check: bool,
    ) -> Result<Sum, EngineError> {
        let scale = 1.0 / micro_batches.len() as f32;
        let call = CallInfo {
            training: true,
            check,
            stage: self.schedule.stage(),
            phase: phase.index,
            step: at.step,
            phase_step: at.step,
            phase_steps: phase.steps,
            detach_student: true,
            total_steps: phase.steps,
            epoch: at.epoch,
            seed: at.seed,
            ..CallInfo::default()
        };
        self.methods.weigh_alone(phase);
        let owner = self.owner();
        let names = Names::new(&self.methods, owner);
        let mut sum = Sum::default();
        for (index, batch) in micro_batches.into_iter().enumerate() {
            let call = of_micro_batch(&call, index);
            let done = self.micro_batch_alone(batch, &call, scale, &names, &mut sum);
            done.map_err(|error| names.of_entry(in_phase(error, phase)))?;
        }
        Ok(sum)
    }

    fn micro_batch_alone(
        &mut self,
        mut batch: Batch,
        call: &CallInfo,
        scale: f32,
        names: &Names,
        sum: &mut Sum,
    ) -> Result<(), EngineError> {
        let owner = self.owner();
        let wanted = |name: &str| {
            let distiller = self.methods.distiller(owner);
            (
                distiller.teacher_taps(name),
                distiller.reads_predictions(name),
            )
        };
        let (_, taught) = self.teach(&mut batch, wanted, &mut sum.times.teachers);

        let unread = self.unread_taps(owner, batch.shape);
        let student = Forward::default();
        let taps = model_taps(&unread, &taught);
        let model = self.model.as_ref();
        let sources = sources(&batch, model, &student, &self.teachers, &taught);
        let distiller = self.methods.distiller_mut(owner);
        let answer = distiller.step(call, &taps, &sources, scale, |_| {
            unreachable!("a method with maps has no phase of its own")
        });
        let answer = answer.map_err(EngineError::Distill)?;
        if let Some(buffer) = distiller.broken_buffer() {
            return Err(EngineError::Distill(DistillError::BrokenBuffer {
                method: distiller.id().to_owned(),
                buffer: buffer.to_owned(),
            }));
        }
        let times = sum.times.methods.entry(names.label.clone()).or_default();
        add(&mut times.forward, answer.forward);
        add(&mut times.backward, answer.backward);
        add(&mut times.boundary, answer.boundary);
        for (name, value, weight) in distiller.counted(&answer.losses) {
            let value = f64::from(value) * weight * f64::from(scale);
            add_loss(&mut sum.losses, &names.loss(name), value);
        }
        let metrics = answer.metrics.into_iter();
        sum.metrics = metrics
            .map(|(name, value)| (names.metric(&name), value))
            .collect();
        match sum.params.is_empty() {
            true => sum.params = answer.param_gradients,
            false => {
                for (total, gradient) in sum.params.iter_mut().zip(answer.param_gradients) {
                    total.add(gradient);
                }
            }
        }
        Ok(())
    }

    /// Student taps that the method reads, of the extents that a batch `[N, 3, H, W]` would give
    /// them, full of NaN.
    fn unread_taps(&mut self, owner: usize, [images, _, height, width]: [usize; 4]) -> TapValues {
        let device = self.weights.device();
        let names = self.methods.distiller_mut(owner).student_taps();
        let tap = |name: String| {
            let mut all = self.model.taps().iter();
            let spec = all.find(|spec| spec.name == name);
            let spec = spec.expect("a method is bound to taps that exist");
            let [rows, columns] = self.model.tap_size(spec, [height, width]);
            let shape = [images, spec.channels, rows, columns];
            (name, Tensor::full(shape, f32::NAN, &device))
        };
        names.into_iter().map(tap).collect()
    }

    /// Clips and updates; returns the norm before clipping.
    fn apply_alone(
        &mut self,
        sum: &mut Sum,
        phase: &PretrainPhase,
        lr: f64,
        optimizer: &mut PretrainOptimizer,
    ) -> Result<f64, EngineError> {
        let names = self.learning_alone(phase).into_iter();
        let names: Vec<Option<String>> = names
            .map(|name| name.map(|name| method_param(&name)))
            .collect();
        let params = names.iter().zip(&mut sum.params);
        let mut learning: Vec<(&str, &mut Values)> = params
            .filter_map(|(name, gradient)| Some((name.as_deref()?, gradient)))
            .collect();
        let norm = grad_clip::norm(&learning)?;
        grad_clip::clip(
            &mut learning,
            norm,
            self.grad_clip_value,
            self.grad_clip_norm,
        )?;
        optimizer.begin_step();
        let owner = self.owner();
        let distiller = self.methods.distiller_mut(owner);
        for (index, (name, gradient)) in names.iter().zip(&sum.params).enumerate() {
            if let Some(name) = name {
                optimizer.update(distiller, index, name, gradient, lr);
            }
        }
        Ok(norm)
    }
}

/// Says in which phase an error happened.
fn in_phase(error: EngineError, phase: &PretrainPhase) -> EngineError {
    match error {
        EngineError::Distill(source) => EngineError::Distill(DistillError::Alone {
            phase: phase.name.clone(),
            source: Box::new(source),
        }),
        error => error,
    }
}
