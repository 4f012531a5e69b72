//! One method, bound to a student (and teachers), with its weights; asked once a micro-batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::backend::DispatchDevice;
use burn::tensor::{Device, Tensor};

use crate::config::{Execution, MethodEntry, StageConfig, check_plugin_config};
use crate::model::Model;
use crate::plugin::{CallInfo, Library, Method, MethodManifest, Plan, TapBinding, TensorSpec};
use crate::state::{Array, StateDict};
use crate::values::{flat_tensor_on, into_vec};

use super::DistillError;
use super::demand::Demand;
use super::execution::{self, Executor};
use super::programs::Programs;
use super::roles::Roles;
use super::schedule::Schedule;
use super::schedule::declared::{self, Stage};
use super::step::{array_muts, zeros};
use super::taps::{self, STUDENT};
use super::weights::{Only, Terms};
use super::{maps, targets};

/// Name of the task losses on a method's maps among the terms of the total, and in the
/// `loss_weights` and `loss_schedules` of the configuration.
pub const MAPS: &str = "maps";

/// A bound method with its parameters and buffers.
pub struct Distiller {
    pub(super) method: Method,
    pub(super) manifest: MethodManifest,
    /// Who plays which role of a teacher.
    pub(super) cast: Roles,
    pub(super) bindings: Vec<TapBinding>,
    pub(super) plan: Plan,
    /// For each tap that the head reads, the slot of the map in its place.
    pub(super) map_order: Vec<usize>,
    terms: Terms,
    /// At the step for which [`Distiller::weigh_at`] was called last.
    pub(super) loss_weights: Vec<f64>,
    pub(super) maps_weight: f64,
    /// What the phase asks for.
    pub(super) demand: Demand,
    /// Where `params_on_device` is empty, the parameters; else their extents alone.
    pub(super) params: Vec<Array>,
    /// The parameters where a program on another device than the CPU reads them.
    pub(super) params_on_device: Vec<Tensor<1>>,
    pub(super) buffers: Vec<Array>,
    pub(super) executor: Executor,
    /// The plugin may compute where its method cannot be traced.
    pub(super) may_fall_back: bool,
    pub(super) programs: Programs,
}

/// The models a method is bound to.
#[derive(Clone, Copy)]
pub struct Models<'a> {
    /// The model to deploy.
    pub student: &'a dyn Model,
    /// `[height, width]` of its training images with padding, where all have one size.
    pub student_size: Option<[usize; 2]>,
    /// The models to learn from, by the name under which each is configured.
    pub teachers: &'a BTreeMap<String, TeacherModel<'a>>,
}

/// A model to learn from.
#[derive(Clone, Copy)]
pub struct TeacherModel<'a> {
    /// Its architecture.
    pub model: &'a dyn Model,
    /// Whether its images have another size than the student's.
    pub has_own_size: bool,
    /// `[height, width]` of its training images with padding, where all have one size.
    pub size: Option<[usize; 2]>,
}

/// The manifest of the method that `entry` names (empty: the plugin's only one).
///
/// # Errors
/// If the plugin has no such method.
pub fn method_manifest(
    library: &Library,
    entry: MethodEntry<'_>,
) -> Result<MethodManifest, DistillError> {
    let id = entry.config.method.as_str();
    match library.method_manifest(id) {
        Some(manifest) => Ok(manifest.clone()),
        None => Err(DistillError::UnknownMethod {
            key: entry.key("method"),
            plugin: library.manifest().plugin.clone(),
            method: id.into(),
            known: taps::names(library.manifest().methods.iter().map(|m| m.id.as_str())),
        }),
    }
}

impl Distiller {
    /// Creates the method, binds its taps and targets, plans, and initialises its parameters from
    /// `call.seed`. Where it is a program, it runs on `device`.
    ///
    /// # Errors
    /// If the configuration, a tap, a target, a loss weight or the plan is refused, or the plugin
    /// fails.
    pub fn bind(
        library: &Arc<Library>,
        entry: MethodEntry<'_>,
        models: Models<'_>,
        cast: &Roles,
        device: &Device,
        call: &CallInfo,
    ) -> Result<Self, DistillError> {
        let manifest = method_manifest(library, entry)?;
        let config_json = check_plugin_config(
            &manifest.config_schema,
            &entry.config.config,
            &entry.key("config"),
            &manifest.id,
        )?;
        let bindings = taps::bind(&manifest, models, cast, entry)?;
        targets::check_names(&manifest)?;
        let mut method = Method::create(library, &manifest.id, &config_json, call)?;
        method.set_num_classes(models.student.num_classes());
        let plan = method.plan(&bindings, call)?;
        targets::check_models(&manifest, &plan, models, cast)?;
        let head_taps = models.student.head_taps();
        let map_order = maps::in_head_order(&plan, &bindings, &head_taps).map_err(|reason| {
            DistillError::Plan {
                method: manifest.id.clone(),
                reason,
            }
        })?;
        let terms = Terms::new(&manifest.id, &plan, entry)?;
        let (loss_weights, maps_weight) = terms.at(0, plan.losses.len());
        let allocate = |specs: &[TensorSpec]| specs.iter().map(|s| zeros(&s.shape)).collect();
        let executor = execution::choose(&method, entry)?;
        let demand = Demand::all(plan.losses.len(), plan.params.len());
        let only = method.program_door().is_some_and(|door| door.only);
        let mut distiller = Distiller {
            params: allocate(&plan.params),
            params_on_device: Vec::new(),
            buffers: allocate(&plan.buffers),
            executor,
            may_fall_back: entry.config.execution == Execution::Auto && !only,
            programs: Programs::new(device.clone()),
            method,
            manifest,
            cast: cast.clone(),
            bindings,
            plan,
            map_order,
            terms,
            loss_weights,
            maps_weight,
            demand,
        };
        distiller.init_state(call)?;
        distiller.place_params();
        Ok(distiller)
    }

    fn init_state(&mut self, call: &CallInfo) -> Result<(), DistillError> {
        match self.executor {
            Executor::Program => self.init_by_program(call)?,
            Executor::Plugin => self.method.init_state(
                call,
                &mut array_muts(&mut self.params),
                &mut array_muts(&mut self.buffers),
            )?,
        }
        let params = self.plan.params.iter().zip(&self.params);
        for (spec, array) in params.chain(self.plan.buffers.iter().zip(&self.buffers)) {
            let what = format!("`{}`", spec.name);
            self.method.check_finite("init_state", &what, &array.data)?;
        }
        Ok(())
    }

    /// What the manifest says of it.
    #[must_use]
    pub fn manifest(&self) -> &MethodManifest {
        &self.manifest
    }

    /// What it needs and gives.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Id of the method.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.manifest.id
    }

    /// The bound taps.
    #[must_use]
    pub fn bindings(&self) -> &[TapBinding] {
        &self.bindings
    }

    /// Taps of the student that the method reads.
    #[must_use]
    pub fn student_taps(&self) -> Vec<String> {
        self.tap_names(|role| role == STUDENT)
    }

    /// Student taps for which the plan declares a gradient.
    pub fn gradient_taps(&self) -> impl Iterator<Item = &str> {
        let used = self.bindings.iter().zip(&self.plan.tap_use);
        used.filter(|(tap, used)| tap.grad && **used & kd_abi::KD_USE_GRAD != 0)
            .map(|(tap, _)| tap.name.as_str())
    }

    /// Taps that the method reads of the teacher configured as `name`, in whatever roles it plays.
    #[must_use]
    pub fn teacher_taps(&self, name: &str) -> Vec<String> {
        self.tap_names(|role| self.cast.get(role).is_some_and(|player| player == name))
    }

    /// Whether a target is made from what the head of the model called `name` gives: `student`, or a
    /// configured teacher.
    #[must_use]
    pub fn reads_predictions(&self, name: &str) -> bool {
        let all = self.manifest.targets.iter().zip(&self.plan.target_use);
        let mut read = all.filter(|(_, read)| **read);
        read.any(|(target, _)| {
            targets::role_of(target).is_some_and(|role| self.player(role) == name)
        })
    }

    /// What the model in `role` is called: as configured for a teacher.
    pub(super) fn player<'a>(&'a self, role: &'a str) -> &'a str {
        self.cast.get(role).map_or(role, String::as_str)
    }

    fn tap_names(&self, of: impl Fn(&str) -> bool) -> Vec<String> {
        let bindings = self.bindings.iter().zip(&self.plan.tap_use);
        let read = bindings.filter(|(binding, used)| of(&binding.role) && **used != 0);
        read.map(|(binding, _)| binding.name.clone()).collect()
    }

    /// Losses with the weight each has in the total now.
    pub fn losses(&self) -> impl Iterator<Item = (&str, f64)> {
        self.plan
            .losses
            .iter()
            .map(|l| l.name.as_str())
            .zip(self.loss_weights.iter().copied())
    }

    /// Whether the method generates maps for the student's head.
    #[must_use]
    pub fn has_maps(&self) -> bool {
        !self.plan.maps.is_empty()
    }

    /// Weight of the student's task losses on the method's maps, now.
    #[must_use]
    pub fn maps_weight(&self) -> f64 {
        self.maps_weight
    }

    /// Whether anything of the method counts now: without, it must leave no trace in the student.
    #[must_use]
    pub fn has_weight(&self) -> bool {
        let maps = self.has_maps() && self.maps_weight != 0.0;
        maps || self.loss_weights.iter().any(|weight| *weight != 0.0)
    }

    /// Names of the terms and metrics that it reports, losses without their `loss_`.
    pub fn reported(&self) -> impl Iterator<Item = &str> {
        let losses = self.plan.losses.iter().map(|loss| loss.name.as_str());
        let losses = losses.map(|name| name.strip_prefix("loss_").unwrap_or(name));
        let maps = self.has_maps().then_some(MAPS);
        let metrics = self.manifest.metrics.iter().map(String::as_str);
        losses.chain(maps).chain(metrics)
    }

    /// Terms whose weight is scheduled, with the weight of an optimizer step.
    pub fn scheduled_weights(&self, step: u64) -> impl Iterator<Item = (&str, f64)> {
        self.terms.scheduled(step)
    }

    /// Lets some terms count alone.
    pub(super) fn count(&mut self, only: Only) {
        self.terms.count(only);
    }

    /// Lays schedules of weights out over a run.
    pub(super) fn place_weights(&mut self, total: u64, per_epoch: u64) -> Result<(), DistillError> {
        self.terms.place(total, per_epoch)
    }

    /// Gives every term its weight at an optimizer step.
    pub fn weigh_at(&mut self, step: u64) {
        (self.loss_weights, self.maps_weight) = self.terms.at(step, self.plan.losses.len());
    }

    /// Names of the learned parameters, in the order of [`super::DistillStep::param_gradients`].
    pub fn param_names(&self) -> impl Iterator<Item = &str> {
        self.plan.params.iter().map(|p| p.name.as_str())
    }

    /// The learned parameters, in the plan's order; without values where
    /// [`Self::replace_param`] must be used, because they lie on a device.
    pub fn params_mut(&mut self) -> &mut [Array] {
        &mut self.params
    }

    /// Extents of the learned parameters, in the plan's order.
    pub fn param_shapes(&self) -> impl Iterator<Item = &[usize]> {
        self.plan.params.iter().map(|spec| spec.shape.as_slice())
    }

    /// Replaces a parameter that lies on a device, flat and plain.
    ///
    /// # Panics
    /// If the parameters are on the CPU.
    pub fn replace_param(&mut self, index: usize, update: impl FnOnce(Tensor<1>) -> Tensor<1>) {
        let param = &mut self.params_on_device[index];
        *param = update(param.clone());
    }

    /// Moves the parameters to where the method computes.
    fn place_params(&mut self) {
        let device = self.programs.device();
        let is_cpu = matches!(device.as_dispatch(), DispatchDevice::Flex(_));
        if is_cpu || self.executor == Executor::Plugin {
            self.take_params_back();
            return;
        }
        let upload = |array: &mut Array| {
            let values = std::mem::take(&mut array.data);
            flat_tensor_on(values, device)
        };
        self.params_on_device = self.params.iter_mut().map(upload).collect();
    }

    /// Moves the parameters to the CPU.
    pub(super) fn take_params_back(&mut self) {
        for (array, tensor) in self.params.iter_mut().zip(self.params_on_device.drain(..)) {
            array.data = into_vec(tensor);
        }
    }

    /// The stages the method declares, at least one; none if it has no schedule, or one that says
    /// nothing.
    ///
    /// # Errors
    /// If the declared schedule breaks the schema.
    pub fn declared(&self) -> Result<Option<Vec<Stage>>, DistillError> {
        let Some(json) = &self.plan.schedule_json else {
            return Ok(None);
        };
        let stages = declared::parse(json).map_err(|reason| self.schedule_refused(reason))?;
        let says_nothing = match &stages[..] {
            [stage] => stage.is_the_configured_run() && stage.phases.is_empty(),
            _ => false,
        };
        Ok((!says_nothing).then_some(stages))
    }

    /// The phases the method declares, placed in a run, which is `stage` of it if that has a name; none
    /// if it declares none.
    ///
    /// # Errors
    /// If the declared schedule breaks the schema or asks for what this host cannot do, or has stages
    /// and the run is none of them.
    pub fn schedule(
        &self,
        stage: &StageConfig,
        total_steps: u64,
        steps_per_epoch: u64,
    ) -> Result<Option<Schedule>, DistillError> {
        let Some(stages) = self.declared()? else {
            return Ok(None);
        };
        let refused = |reason| self.schedule_refused(reason);
        let schedule = match &stages[..] {
            _ if !stage.name.is_empty() => Schedule::of_stage(stage, total_steps, steps_per_epoch),
            [only] if only.is_the_configured_run() => {
                let at = (only.name.as_str(), 0);
                Schedule::place(at, &only.phases, total_steps, steps_per_epoch)
            }
            several => {
                let names = several.iter().map(|stage| stage.name.as_str());
                return Err(refused(format!(
                    "it has stages of its own ({}), each a run, which `kdhost` and `kdhost train` carry \
                     out one after the other; `kdhost show plan --stage NAME` prints the configuration \
                     of one, for every other command",
                    taps::names(names)
                )));
            }
        };
        let schedule = schedule.map_err(refused)?;
        self.check_schedule(&schedule).map_err(refused)?;
        Ok(Some(schedule))
    }

    fn schedule_refused(&self, reason: String) -> DistillError {
        DistillError::Schedule {
            method: self.manifest.id.clone(),
            reason,
        }
    }

    /// Parameters and buffers by name, for a checkpoint.
    #[must_use]
    pub fn to_state(&self) -> StateDict {
        let mut state = StateDict::default();
        for (index, (spec, array)) in self.plan.params.iter().zip(&self.params).enumerate() {
            let mut array = array.clone();
            if let Some(tensor) = self.params_on_device.get(index) {
                array.data = into_vec(tensor.clone());
            }
            state.entries.insert(format!("param.{}", spec.name), array);
        }
        for (spec, array) in self.plan.buffers.iter().zip(&self.buffers) {
            state
                .entries
                .insert(format!("buffer.{}", spec.name), array.clone());
        }
        state
    }

    /// Takes parameters and buffers from a checkpoint.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub fn load_state(&mut self, state: &StateDict) -> Result<(), DistillError> {
        let id = self.manifest.id.clone();
        let params = self
            .plan
            .params
            .iter()
            .zip(&mut self.params)
            .map(|(s, a)| ("param", s, a));
        let buffers = self
            .plan
            .buffers
            .iter()
            .zip(&mut self.buffers)
            .map(|(s, a)| ("buffer", s, a));
        for (kind, spec, array) in params.chain(buffers) {
            let saved = state.entries.get(&format!("{kind}.{}", spec.name));
            match saved {
                Some(saved) if saved.shape == array.shape => array.data.clone_from(&saved.data),
                _ => {
                    return Err(DistillError::Plan {
                        method: id,
                        reason: format!(
                            "the checkpoint has {} for {kind} `{}`, expected shape {:?}",
                            saved.map_or("nothing".into(), |s| format!("shape {:?}", s.shape)),
                            spec.name,
                            array.shape
                        ),
                    });
                }
            }
        }
        self.params_on_device.clear();
        self.place_params();
        Ok(())
    }
}
