//! One training step: design and order as in `ARCHITECTURE.md`.
//!
//! ```text
//! teacher.forward (no gradient, as deep as the wanted taps)
//! student.forward → taps, task losses
//! of each method: forward → losses, maps;  head(maps) → task losses → d_maps
//!                 backward → d_taps, d_params
//! total = task losses + Σ inject(tap, d_tap);  total.backward
//! clip → optimizer (student and method parameters) → batch statistics → EMA
//! ```
//! Nothing is applied before every loss and gradient of the step is known to be finite.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Precision;
use crate::data::Batch;
use crate::distill::Methods;
use crate::distill::inject::inject;
use crate::distill::methods::Bound;
use crate::distill::schedule::{Phase, Schedule};
use crate::model::{BatchStats, ForwardRequest, Model, Part};
use crate::plugin::CallInfo;
use crate::rng::KeyedRng;

mod alone;
mod answer;
mod judge;
mod teach;
#[cfg(test)]
mod tests;
mod truth;
mod update;

pub use alone::{AlonePosition, AloneProbe, AloneReport};

use super::EngineError;
use super::ema::Ema;
use super::lr_schedule::LrSchedule;
use super::optim::{MethodOptimizer, Optimizer, ParamGroups};
use super::step_times::StepTimes;
use super::teacher::{Teachers, model_taps, sources};
use super::weights::ModelWeights;
use crate::values::Values;

use answer::{Names, join_norms, take_answer};
use judge::{Judge, collect_gradients, task_total};
use truth::Truth;

/// PyTorch's default momentum of running statistics.
const BATCH_STATS_MOMENTUM: f64 = 0.1;

/// Everything that a training step reads and writes.
pub struct Learner {
    /// The model to deploy.
    pub model: Arc<dyn Model>,
    /// Its weights; the step runs where they lie, and the teachers' lie there too.
    pub weights: ModelWeights,
    /// Numbers of activations and convolutions.
    pub precision: Precision,
    /// Optimizer state of student and method.
    pub optimizer: Optimizer,
    /// The optimizer of the method's parameters, if they have one of their own.
    pub method_optimizer: Option<MethodOptimizer>,
    /// Decay and learning-rate factors by kind of parameter.
    pub groups: ParamGroups,
    /// Learning rate by step.
    pub lr: LrSchedule,
    /// Phases.
    pub schedule: Schedule,
    /// The methods; none for plain training.
    pub methods: Methods,
    /// The models that methods learn from.
    pub teachers: Teachers,
    /// Averaged weights, if asked for.
    pub ema: Option<Ema>,
    /// The norms of the student's and of each method's gradients are each clipped to it; 0: off.
    pub grad_clip_norm: f64,
    /// Elements of gradients are clipped to plus and minus this; 0: off.
    pub grad_clip_value: f64,
    /// Weight of the student's own task losses; 1 but for a look at other terms alone.
    pub(super) task_weight: f32,
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

impl StepPosition {
    /// What a method is told of this place in the run, outside training and checks.
    #[must_use]
    pub fn call(&self, schedule: &Schedule) -> CallInfo {
        let (index, phase) = schedule.at(self.step);
        CallInfo {
            training: false,
            check: false,
            stage: schedule.stage(),
            phase: index,
            step: self.step,
            phase_step: self.step - phase.start,
            phase_steps: phase.end - phase.start,
            detach_student: !phase.distill_gradient,
            total_steps: self.total_steps,
            epoch: self.epoch,
            seed: self.seed,
            ..CallInfo::default()
        }
    }
}

/// What a method is told with the `index`-th micro-batch of a step: `call` with a seed of its own, so that
/// what a method draws is new each time, and the same again on resume.
fn of_micro_batch(call: &CallInfo, index: usize) -> CallInfo {
    let (stage, phase) = (u64::from(call.stage), u64::from(call.phase));
    let key = [call.seed, stage, phase, call.step, index as u64];
    CallInfo {
        seed: KeyedRng::new("method call", &key).next_u64(),
        ..call.clone()
    }
}

/// What a step did.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Each term as it enters the total (weights applied), mean over micro-batches: task losses, the
    /// task losses on a method's maps under `<name>_maps`, a method's own under `loss_kd_<name>`; with
    /// several methods `<name>_maps_<label>` and `loss_kd_<label>_<name>`.
    pub losses: Vec<(String, f64)>,
    /// Those of them whose weight is 0 in this step.
    pub weightless: Vec<String>,
    /// Weights that follow a schedule, under `weight_kd_<name>` or `weight_kd_<label>_<name>`.
    pub weights: Vec<(String, f64)>,
    /// Statistics from the methods, of the last micro-batch; with several under `<label>_<name>`.
    pub metrics: Vec<(String, f64)>,
    /// Norm of the student's gradients before clipping.
    pub grad_norm: f64,
    /// Norm of the gradients of a method's parameters before clipping, by label, of those that have
    /// some that learn.
    pub method_grad_norms: Vec<(String, f64)>,
    /// Learning rate.
    pub lr: f64,
    /// Seconds.
    pub times: StepTimes,
}

/// Gradients and losses of the micro-batches so far.
struct Accumulated {
    student: Vec<Option<Values>>,
    /// Of each method, in the order of its parameters.
    methods: Vec<Vec<Values>>,
    losses: Vec<(String, f64)>,
    weightless: Vec<String>,
    metrics: Vec<(String, f64)>,
    batch_stats: Vec<Vec<BatchStats>>,
    times: StepTimes,
    /// In checks alone.
    tap_gradients: BTreeMap<String, f64>,
}

/// Gradients of one step with the names and values they were computed at; for the pre-flight.
pub struct Probe {
    /// Terms as they would enter the total.
    pub losses: Vec<(String, f64)>,
    /// Gradient at each of the student's parameters; none where nothing arrives.
    pub student_gradients: Vec<Option<Vec<f32>>>,
    /// Gradient at each of the methods' parameters, in the order of [`Methods::param_names`].
    pub method_gradients: Vec<Vec<f32>>,
    /// Norm of the method's gradient at each student tap at which it gave one.
    pub tap_gradients: BTreeMap<String, f64>,
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
        let mut times = std::mem::take(&mut sum.times);
        let (grad_norm, method_grad_norms) = self.apply(&mut sum, &phase, lr)?;
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
            weightless: sum.weightless,
            weights: self.scheduled_weights(at.step),
            metrics: sum.metrics,
            grad_norm,
            method_grad_norms,
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
        let before = self.methods.to_state();
        let sum = self.gradients(vec![batch], &call, &phase)?;
        // Buffers may have moved; the run must start as if the check had not happened.
        self.methods.load_state(&before)?;
        Ok(Probe {
            losses: sum.losses,
            student_gradients: sum
                .student
                .into_iter()
                .map(|gradient| gradient.map(Values::into_vec))
                .collect(),
            method_gradients: (sum.methods.into_iter().flatten())
                .map(Values::into_vec)
                .collect(),
            tap_gradients: sum.tap_gradients,
            times: sum.times,
        })
    }

    fn call(&self, at: StepPosition, check: bool) -> (CallInfo, Phase) {
        let (_, phase) = self.schedule.at(at.step);
        let call = CallInfo {
            training: true,
            check,
            ..at.call(&self.schedule)
        };
        (call, phase.clone())
    }

    fn learns_at(&self, index: usize, phase: &Phase) -> bool {
        phase.learn.part(self.model.specs()[index].part)
    }

    fn gradients(
        &mut self,
        micro_batches: Vec<Batch>,
        call: &CallInfo,
        phase: &Phase,
    ) -> Result<Accumulated, EngineError> {
        let scale = 1.0 / micro_batches.len() as f32;
        self.methods.weigh_at(call.step, phase);
        let none_yet = |bound: &Bound| {
            let params = bound.distiller.param_names().count();
            vec![Values::Host(Vec::new()); params]
        };
        let mut sum = Accumulated {
            student: vec![None; self.model.specs().len()],
            methods: self.methods.iter().map(none_yet).collect(),
            losses: Vec::new(),
            weightless: Vec::new(),
            metrics: Vec::new(),
            batch_stats: Vec::new(),
            times: StepTimes::default(),
            tap_gradients: BTreeMap::new(),
        };
        for (index, batch) in micro_batches.into_iter().enumerate() {
            let call = of_micro_batch(call, index);
            self.micro_batch(batch, &call, phase, scale, &mut sum)?;
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
        let on_host = self.weights.are_on_host();
        let wanted = |name: &str| {
            let taps = self.methods.teacher_taps(name);
            (taps, self.methods.read_predictions(name))
        };
        let (images, taught) = self.teach(&mut batch, wanted, &mut sum.times.teachers);

        let clock = Instant::now();
        let leaves = self
            .weights
            .leaves(&|spec| spec.trainable && phase.learn.part(spec.part));
        let request = ForwardRequest {
            training: true,
            taps: self.methods.student_taps(),
            stop_at_taps: false,
        };
        let student = self.model.as_ref();
        let (forward, truth, losses) = on_pool(on_host, || {
            let forward = student.forward(&leaves, images, &request);
            let output = forward.output.as_ref();
            let truth = Truth::of(student, &batch);
            let losses = truth.losses(student, output.expect("a full pass goes to its end"));
            (forward, truth, losses)
        });
        let task_scale = scale * self.task_weight * phase.task_weight as f32;
        let mut total = task_total(&mut sum.losses, losses, "", task_scale, call.step)?;
        add(&mut sum.times.student_forward, clock.elapsed());

        let taps = model_taps(&forward.taps, &taught);
        let mut sources = sources(&batch, student, &forward, &self.teachers, &taught);
        if let Some(assignment) = truth.assignment() {
            sources = sources.assigned(assignment);
        }
        sum.metrics.clear();
        for index in 0..self.methods.len() {
            let call = self.methods.call(index, call);
            let reaches_student = self.methods.part_of(index, phase).reaches_student;
            let names = Names::new(&self.methods, index);
            let distiller = self.methods.distiller_mut(index);
            let judge = Judge {
                student,
                leaves: &leaves,
                precision: self.precision,
                truth: &truth,
                suffix: &names.maps_suffix,
                scale: scale * distiller.maps_weight() as f32,
                step: call.step,
            };
            let mut answer = distiller
                .step(&call, &taps, &sources, scale, |maps| {
                    judge.gradients(maps, sum)
                })
                .map_err(|error| names.of_entry(error))?;
            let times = sum.times.methods.entry(names.label.clone()).or_default();
            add(&mut times.forward, answer.forward);
            add(&mut times.maps, answer.judging);
            add(&mut times.backward, answer.backward);
            add(&mut times.boundary, answer.boundary);
            take_answer(sum, index, &names, distiller, &mut answer, scale);
            if call.check {
                join_norms(&mut sum.tap_gradients, &answer.tap_gradients);
            }
            // A method with maps has kept its losses off the taps by itself; what is left came through
            // the maps and belongs to a task loss. One without weight leaves the tape alone.
            if (reaches_student || distiller.has_maps()) && distiller.has_weight() {
                for (name, gradient) in answer.tap_gradients {
                    let tap = forward.taps[&name].clone();
                    let gradient = gradient.to_device(&tap.device().without_autodiff());
                    total = total + inject(tap, gradient);
                }
            }
        }

        let clock = Instant::now();
        let mut gradients = on_pool(on_host, || total.backward());
        collect_gradients(&mut sum.student, &leaves, &mut gradients);
        add(&mut sum.times.student_backward, clock.elapsed());
        sum.batch_stats.push(forward.batch_stats);
        Ok(())
    }

    /// Weights that follow a schedule, at a step.
    fn scheduled_weights(&self, step: u64) -> Vec<(String, f64)> {
        let of_method = |(index, bound): (usize, &Bound)| {
            let names = Names::new(&self.methods, index);
            let weights = bound.distiller.scheduled_weights(step);
            let named = weights.map(|(term, weight)| (names.weight(term), weight));
            named.collect::<Vec<_>>()
        };
        self.methods
            .iter()
            .enumerate()
            .flat_map(of_method)
            .collect()
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

/// Runs `f` on a thread of the kernels' pool: from outside, each of a pass's hundreds of parallel
/// loops would wake the pool and be waited for. A device keeps a queue for each thread, so that work
/// for one stays on this thread.
fn on_pool<R: Send>(on_host: bool, f: impl FnOnce() -> R + Send) -> R {
    if on_host { rayon::scope(|_| f()) } else { f() }
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
