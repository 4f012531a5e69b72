//! One training step: design and order as in `ARCHITECTURE.md`.
//!
//! ```text
//! teacher.forward (no gradient, as deep as the wanted taps)
//! student.forward → taps, task losses
//! method.forward → losses;  method.backward → d_taps, d_params
//! total = task losses + Σ inject(tap, d_tap);  total.backward
//! clip → optimizer (student and method parameters) → batch statistics → EMA
//! ```
//! Nothing is applied before every loss and gradient of the step is known to be finite.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};

use crate::data::Batch;
use crate::distill::inject::inject;
use crate::distill::schedule::{Phase, Schedule};
use crate::distill::taps::{STUDENT, TEACHER};
use crate::distill::{DistillStep, Distiller};
use crate::model::{BatchStats, Detector, ForwardRequest, Part};
use crate::plugin::CallInfo;

use super::EngineError;
use super::ema::Ema;
use super::grad_clip;
use super::lr_schedule::LrSchedule;
use super::optim::{Optimizer, ParamGroups};
use super::teacher::Teacher;
use super::weights::ModelWeights;

/// PyTorch's default momentum of running statistics.
const BATCH_STATS_MOMENTUM: f64 = 0.1;

/// Everything that a training step reads and writes.
pub struct Learner {
    /// The model to deploy.
    pub detector: Arc<dyn Detector>,
    /// Its weights.
    pub weights: ModelWeights,
    /// Optimizer state of student and method.
    pub optimizer: Optimizer,
    /// Decay and learning-rate factors by kind of parameter.
    pub groups: ParamGroups,
    /// Learning rate by step.
    pub lr: LrSchedule,
    /// Phases.
    pub schedule: Schedule,
    /// The method; none for plain training.
    pub distiller: Option<Distiller>,
    /// The model to learn from, if the method reads one.
    pub teacher: Option<Teacher>,
    /// Averaged weights, if asked for.
    pub ema: Option<Ema>,
    /// Global gradient norm is clipped to it; 0: off.
    pub grad_clip_norm: f64,
}

/// Where in the run a step happens.
#[derive(Clone, Copy, Debug)]
pub struct StepPosition {
    /// Optimizer steps done.
    pub step: u64,
    /// Optimizer steps the run will have.
    pub total_steps: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Seed of the run.
    pub seed: u64,
}

/// Time spent in each part of a step.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct StepTimes {
    /// Waiting for data.
    pub data: f64,
    /// Teacher forward.
    pub teacher: f64,
    /// Student forward and task losses.
    pub student_forward: f64,
    /// Inside the method's forward.
    pub method_forward: f64,
    /// Inside the method's backward.
    pub method_backward: f64,
    /// Backward of the student.
    pub student_backward: f64,
    /// Clipping, optimizer, statistics, EMA.
    pub optimizer: f64,
    /// This side of the plugin boundary: views, outputs, checks.
    pub boundary: f64,
}

impl StepTimes {
    /// Parts with their names, seconds.
    #[must_use]
    pub fn named(&self) -> [(&'static str, f64); 8] {
        [
            ("data", self.data),
            ("teacher", self.teacher),
            ("student_forward", self.student_forward),
            ("method_forward", self.method_forward),
            ("method_backward", self.method_backward),
            ("student_backward", self.student_backward),
            ("optimizer", self.optimizer),
            ("boundary", self.boundary),
        ]
    }

    /// Median of each part.
    #[must_use]
    pub fn median(steps: &[StepTimes]) -> StepTimes {
        let part = |of: fn(&StepTimes) -> f64| {
            let mut values: Vec<f64> = steps.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        StepTimes {
            data: part(|t| t.data),
            teacher: part(|t| t.teacher),
            student_forward: part(|t| t.student_forward),
            method_forward: part(|t| t.method_forward),
            method_backward: part(|t| t.method_backward),
            student_backward: part(|t| t.student_backward),
            optimizer: part(|t| t.optimizer),
            boundary: part(|t| t.boundary),
        }
    }

    /// Sum over the parts, seconds.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.named().iter().map(|(_, seconds)| seconds).sum()
    }
}

/// What a step did.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Each term as it enters the total (weights applied), mean over micro-batches: task losses,
    /// then the method's under `loss_kd_<name>`.
    pub losses: Vec<(String, f64)>,
    /// Statistics from the method, of the last micro-batch.
    pub metrics: Vec<(String, f64)>,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Seconds.
    pub times: StepTimes,
}

/// Gradients and losses of the micro-batches so far.
struct Accumulated {
    student: Vec<Option<Vec<f32>>>,
    method: Vec<Vec<f32>>,
    losses: Vec<(String, f64)>,
    metrics: Vec<(String, f64)>,
    batch_stats: Vec<Vec<BatchStats>>,
    times: StepTimes,
}

/// Gradients of one step with the names and values they were computed at; for the pre-flight.
pub struct Probe {
    /// Terms as they would enter the total.
    pub losses: Vec<(String, f64)>,
    /// L2 norm of the gradient at each of the method's parameters.
    pub method_gradient_norms: Vec<(String, f64)>,
    /// Seconds.
    pub times: StepTimes,
}

impl Learner {
    /// Runs one optimizer step over `micro_batches`.
    ///
    /// # Errors
    /// If a loss or gradient is not finite or the plugin fails; weights, statistics and optimizer
    /// are then as before the step. Buffers of the method may have moved.
    pub fn step(
        &mut self,
        micro_batches: Vec<Batch>,
        at: StepPosition,
    ) -> Result<StepReport, EngineError> {
        let (call, phase) = self.call(at, false);
        let mut sum = self.gradients(micro_batches, &call, &phase)?;
        let lr = self.lr.lr(at.step);
        let clock = Instant::now();
        let mut times = sum.times;
        let grad_norm = self.apply(&mut sum, &phase, lr)?;
        for stats in &sum.batch_stats {
            let learned = stats
                .iter()
                .filter(|s| self.learns_at(s.mean_index, &phase))
                .cloned();
            self.weights
                .blend_batch_stats(&learned.collect::<Vec<_>>(), BATCH_STATS_MOMENTUM);
        }
        if let Some(ema) = &mut self.ema {
            ema.update(&self.weights);
        }
        times.optimizer = clock.elapsed().as_secs_f64();
        Ok(StepReport {
            losses: sum.losses,
            metrics: sum.metrics,
            grad_norm,
            lr,
            times,
        })
    }

    /// Computes a step's losses and gradients and applies nothing.
    ///
    /// # Errors
    /// As [`Learner::step`].
    pub fn probe(&mut self, batch: Batch, at: StepPosition) -> Result<Probe, EngineError> {
        let (call, phase) = self.call(at, true);
        let before = self.distiller.as_ref().map(Distiller::to_state);
        let sum = self.gradients(vec![batch], &call, &phase)?;
        let mut norms = Vec::new();
        if let (Some(distiller), Some(before)) = (&mut self.distiller, before) {
            // Buffers may have moved; the run must start as if the check had not happened.
            distiller.load_state(&before)?;
            for (name, gradient) in distiller.param_names().zip(&sum.method) {
                let square = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
                norms.push((name.to_owned(), square.sqrt()));
            }
        }
        Ok(Probe {
            losses: sum.losses,
            method_gradient_norms: norms,
            times: sum.times,
        })
    }

    fn call(&self, at: StepPosition, check: bool) -> (CallInfo, Phase) {
        let (index, phase) = self.schedule.at(at.step);
        let call = CallInfo {
            training: true,
            check,
            stage: 0,
            phase: index,
            step: at.step,
            phase_step: at.step - phase.start,
            phase_steps: phase.end - phase.start,
            total_steps: at.total_steps,
            epoch: at.epoch,
            seed: at.seed,
            ..CallInfo::default()
        };
        (call, phase.clone())
    }

    fn learns_at(&self, index: usize, phase: &Phase) -> bool {
        phase.learn.part(self.detector.specs()[index].part)
    }

    fn gradients(
        &mut self,
        micro_batches: Vec<Batch>,
        call: &CallInfo,
        phase: &Phase,
    ) -> Result<Accumulated, EngineError> {
        let scale = 1.0 / micro_batches.len() as f32;
        let num_method = self
            .distiller
            .as_ref()
            .map_or(0, |d| d.param_names().count());
        let mut sum = Accumulated {
            student: vec![None; self.detector.specs().len()],
            method: vec![Vec::new(); num_method],
            losses: Vec::new(),
            metrics: Vec::new(),
            batch_stats: Vec::new(),
            times: StepTimes::default(),
        };
        for batch in micro_batches {
            self.micro_batch(batch, call, phase, scale, &mut sum)?;
        }
        Ok(sum)
    }

    fn micro_batch(
        &mut self,
        mut batch: Batch,
        call: &CallInfo,
        phase: &Phase,
        scale: f32,
        sum: &mut Accumulated,
    ) -> Result<(), EngineError> {
        let pixels = TensorData::new(std::mem::take(&mut batch.images), batch.shape);
        let images = Tensor::<4>::from_data(pixels, &Device::flex());

        let clock = Instant::now();
        let teacher_taps = match (&self.teacher, &self.distiller) {
            (Some(teacher), Some(distiller)) => {
                let names = distiller.tap_names(TEACHER);
                on_pool(|| teacher.taps(&images, &names))
            }
            _ => Default::default(),
        };
        add(&mut sum.times.teacher, clock.elapsed());

        let clock = Instant::now();
        let leaves = self
            .weights
            .leaves(&|spec| spec.trainable && phase.learn.part(spec.part));
        let request = ForwardRequest {
            training: true,
            taps: self
                .distiller
                .as_ref()
                .map(|d| d.tap_names(STUDENT))
                .unwrap_or_default(),
            stop_at_taps: false,
        };
        let [_, _, height, width] = batch.shape;
        let (forward, losses) = on_pool(|| {
            let forward = self.detector.forward(&leaves, images, &request);
            let head = forward.head.as_ref().expect("a full pass ends at the head");
            let assignment = self.detector.assign([height, width], &batch.targets);
            let losses = self.detector.losses(head, &assignment);
            (forward, losses)
        });
        let mut total: Option<Tensor<1>> = None;
        for (name, loss) in losses {
            let value = loss.clone().without_autodiff().into_scalar::<f32>();
            if !value.is_finite() {
                return Err(EngineError::NonFiniteLoss {
                    term: name.into(),
                    value,
                    step: call.step,
                });
            }
            add_loss(&mut sum.losses, name, f64::from(value * scale));
            let loss = if scale == 1.0 { loss } else { loss * scale };
            total = Some(match total {
                None => loss,
                Some(total) => total + loss,
            });
        }
        let mut total = total.expect("a detector has a task loss");
        add(&mut sum.times.student_forward, clock.elapsed());

        if let Some(distiller) = &mut self.distiller {
            let answer = distiller.step(call, &forward.taps, &teacher_taps, &batch, scale)?;
            add(&mut sum.times.method_forward, answer.forward);
            add(&mut sum.times.method_backward, answer.backward);
            add(&mut sum.times.boundary, answer.boundary);
            take_answer(sum, distiller, &answer, scale);
            if phase.distill_gradient {
                for (name, gradient) in answer.tap_gradients {
                    total = total + inject(forward.taps[&name].clone(), gradient);
                }
            }
        }

        let clock = Instant::now();
        let mut gradients = on_pool(|| total.backward());
        for (slot, leaf) in sum.student.iter_mut().zip(&leaves) {
            if !leaf.is_autodiff() {
                continue;
            }
            let Some(gradient) = leaf.grad_remove(&mut gradients) else {
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
        add(&mut sum.times.student_backward, clock.elapsed());
        sum.batch_stats.push(forward.batch_stats);
        Ok(())
    }

    /// Clips and updates; returns the norm before clipping.
    fn apply(&mut self, sum: &mut Accumulated, phase: &Phase, lr: f64) -> Result<f64, EngineError> {
        let specs = self.detector.specs();
        let method_names: Vec<String> = match &self.distiller {
            Some(distiller) => distiller
                .param_names()
                .map(|n| format!("method.{n}"))
                .collect(),
            None => Vec::new(),
        };
        let method_learns = phase.learn.method;
        let student = specs
            .iter()
            .zip(&sum.student)
            .filter_map(|(spec, g)| Some((spec.name.as_str(), g.as_deref()?)));
        let method = method_names
            .iter()
            .zip(&sum.method)
            .filter(|_| method_learns)
            .map(|(name, g)| (name.as_str(), g.as_slice()));
        let named: Vec<(&str, &[f32])> = student.chain(method).collect();
        let norm = grad_clip::global_norm(&named)?;
        let coefficient = match self.grad_clip_norm {
            0.0 => 1.0,
            max => grad_clip::clip_coefficient(norm, max) as f32,
        };
        if coefficient < 1.0 {
            let student = sum.student.iter_mut().flatten();
            for gradient in student.chain(&mut sum.method) {
                grad_clip::scale(gradient, coefficient);
            }
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
        if let (Some(distiller), true) = (&mut self.distiller, method_learns) {
            let params = distiller.params_mut().iter_mut();
            for ((name, gradient), param) in method_names.iter().zip(&sum.method).zip(params) {
                let group = self.groups.of_method(&param.shape);
                let lr = lr * group.lr_scale * phase.lr_scale.method;
                self.optimizer
                    .update(name, &mut param.data, gradient, lr, group.weight_decay);
            }
        }
        Ok(norm)
    }

    /// Parts whose parameters receive gradients now, for messages.
    #[must_use]
    pub fn learning_parts(&self, step: u64) -> Vec<Part> {
        let (_, phase) = self.schedule.at(step);
        [Part::Backbone, Part::Neck, Part::Head]
            .into_iter()
            .filter(|part| phase.learn.part(*part))
            .collect()
    }
}

fn take_answer(sum: &mut Accumulated, distiller: &Distiller, answer: &DistillStep, scale: f32) {
    for ((name, value), (_, weight)) in answer.losses.iter().zip(distiller.losses()) {
        let name = format!("loss_kd_{}", name.strip_prefix("loss_").unwrap_or(name));
        add_loss(
            &mut sum.losses,
            &name,
            f64::from(*value) * weight * f64::from(scale),
        );
    }
    sum.metrics.clone_from(&answer.metrics);
    for (slot, gradient) in sum.method.iter_mut().zip(&answer.param_gradients) {
        if slot.is_empty() {
            slot.clone_from(gradient);
        } else {
            accumulate(slot, gradient);
        }
    }
}

/// Runs `f` on a thread of the kernels' pool: from outside, each of a pass's hundreds of parallel
/// loops would wake the pool and be waited for.
fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

fn accumulate(sum: &mut [f32], gradient: &[f32]) {
    for (s, g) in sum.iter_mut().zip(gradient) {
        *s += g;
    }
}

fn add(slot: &mut f64, time: Duration) {
    *slot += time.as_secs_f64();
}

fn add_loss(losses: &mut Vec<(String, f64)>, name: &str, value: f64) {
    match losses.iter_mut().find(|(known, _)| known == name) {
        Some((_, sum)) => *sum += value,
        None => losses.push((name.to_owned(), value)),
    }
}
