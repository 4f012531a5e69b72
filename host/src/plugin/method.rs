//! One instance of a distillation method, wrapped so that the rest of the host calls it safely.
//!
//! Order of use: [`Method::create`], [`Method::plan`], [`Method::init_state`] (not on resume),
//! then steps of [`Method::forward`] and [`Method::backward`]. Dropping a [`Saved`] releases it;
//! dropping the last of instance and saved states destroys the instance, so that release always
//! comes first.
//!
//! Tensors are row-major and contiguous, on the CPU. Outputs are zeroed before the call and
//! flagged so; in check calls they are filled with a marker instead, and an element that still
//! holds it afterwards is an error. After a panic the instance takes no further calls but is still
//! released and destroyed.
#![expect(unsafe_code, reason = "calls the functions of a plugin's table")]

mod instance;
mod plan;
mod program;
mod saved;
mod step;
mod tensors;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use kd_abi::{KD_E_INTERNAL, KdInst, KdStr};

use super::error::PluginCallError;
use super::library::Library;
use super::manifest::MethodManifest;

pub use plan::{LossSpec, MapSpec, Plan, TapBinding, TensorSpec};
pub use program::{ProgramDoor, ProgramKind, TraceRequest};
pub use saved::Saved;
pub use tensors::{ArrayMut, TensorArg, TensorData};

use instance::{Instance, fit_specs};
use tensors::{Marker, Views};

/// Values looked at together when an output is checked.
const FINITE_CHUNK: usize = 1 << 14;

/// Where in the run a call happens.
#[derive(Clone, Debug, Default)]
pub struct CallInfo {
    /// A training step, as opposed to evaluation.
    pub training: bool,
    /// In this phase the losses send no gradient into student taps.
    pub detach_student: bool,
    /// A check: nothing of it reaches the run, and unwritten outputs are errors.
    pub check: bool,
    /// Index of the stage in the schedule.
    pub stage: u32,
    /// Index of the phase in the stage.
    pub phase: u32,
    /// Optimizer steps done in this run.
    pub step: u64,
    /// Steps done in this phase.
    pub phase_step: u64,
    /// Steps this phase will have.
    pub phase_steps: u64,
    /// Steps this run will have.
    pub total_steps: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// The only source of randomness that the plugin may use: of a micro-batch, or of the run.
    pub seed: u64,
    /// Non-zero asks the plugin to stop; shared with the signal handler.
    pub cancel: Arc<AtomicU32>,
}

/// An instance of a method.
#[derive(Debug)]
pub struct Method {
    instance: Arc<Instance>,
    plan: Option<Arc<Plan>>,
    tap_channels: Vec<usize>,
    views: Views,
}

impl Method {
    /// Makes an instance of `method_id`, or of the only method if that is empty.
    ///
    /// `config_json` must already agree with the manifest's schema.
    ///
    /// # Errors
    /// Unknown method, or the plugin's refusal.
    pub fn create(
        library: &Arc<Library>,
        method_id: &str,
        config_json: &str,
        call: &CallInfo,
    ) -> Result<Method, PluginCallError> {
        let Some((table, manifest)) = library.method(method_id) else {
            return Err(PluginCallError::UnknownMethod {
                plugin: library.manifest().plugin.clone(),
                method: method_id.to_owned(),
                available: library
                    .manifest()
                    .methods
                    .iter()
                    .map(|m| m.id.clone())
                    .collect(),
            });
        };
        let instance = Instance::new(library, table, manifest);
        let create = table.create.expect("checked when the library was loaded");
        let mut pointer: *mut KdInst = std::ptr::null_mut();
        instance.enter("create", call, false, |_, kd_call| {
            let config = KdStr::new(config_json);
            // SAFETY: all arguments live until the call returns; `pointer` takes one pointer.
            unsafe { create(kd_call, config, &raw mut pointer) }
        })?;
        if pointer.is_null() {
            let problem = "KD_OK without an instance".to_owned();
            return Err(instance.status_error("create", KD_E_INTERNAL, problem, String::new()));
        }
        instance.lock().pointer = pointer;
        Ok(Method {
            instance: Arc::new(instance),
            plan: None,
            tap_channels: Vec::new(),
            views: Views::default(),
        })
    }

    /// Tells the method, from its plan on, how many classes the models have.
    pub fn set_num_classes(&self, num_classes: usize) {
        self.instance.context.set_num_classes(num_classes);
    }

    /// The library it comes from.
    #[must_use]
    pub fn library(&self) -> &Arc<Library> {
        &self.instance.library
    }

    /// What the manifest says of this method.
    #[must_use]
    pub fn manifest(&self) -> &MethodManifest {
        &self.instance.manifest
    }

    /// What the last [`plan`](Self::plan) declared.
    #[must_use]
    pub fn planned(&self) -> Option<&Plan> {
        self.plan.as_deref()
    }

    /// Asks what the method needs for these taps. May be called again with other taps.
    ///
    /// # Errors
    /// The plugin's refusal, or [`PluginCallError::BadPlan`] if what it declares contradicts
    /// itself, the taps or the manifest.
    pub fn plan(&mut self, taps: &[TapBinding], call: &CallInfo) -> Result<Plan, PluginCallError> {
        self.plan = None;
        let plan = plan::ask(&self.instance, taps, call)?;
        self.tap_channels = taps.iter().map(|tap| tap.channels).collect();
        self.plan = Some(Arc::new(plan.clone()));
        Ok(plan)
    }

    /// Lets the method write the initial values of parameters and buffers, given in the order of
    /// the plan. They are zero on entry.
    ///
    /// # Errors
    /// The plugin's error, or arguments that do not fit the plan.
    pub fn init_state(
        &mut self,
        call: &CallInfo,
        params: &mut [ArrayMut<'_>],
        buffers: &mut [ArrayMut<'_>],
    ) -> Result<(), PluginCallError> {
        const ENTRY: &str = "init_state";
        let plan = self.require_plan(ENTRY)?;
        let instance = &self.instance;
        fit_specs(
            instance,
            ENTRY,
            "parameter",
            &plan.params,
            params.iter().map(|a| a.shape),
        )?;
        fit_specs(
            instance,
            ENTRY,
            "buffer",
            &plan.buffers,
            buffers.iter().map(|a| a.shape),
        )?;
        let marker = Marker::for_call(call);
        let views = &mut self.views;
        views.clear();
        params.iter_mut().for_each(|array| array.fill(marker));
        buffers.iter_mut().for_each(|array| array.fill(marker));
        views.outputs(params, marker);
        views.outputs(buffers, marker);
        let (n_params, n_buffers) = (params.len() as u32, buffers.len() as u32);
        let init_state = instance.table.init_state.expect("checked at load");
        let tensors = views.finish();
        instance.enter(ENTRY, call, false, |inst, kd_call| {
            // SAFETY: `tensors` holds `n_params` and then `n_buffers` views of memory borrowed for
            // this function.
            unsafe {
                let buffers = tensors.add(n_params as usize);
                init_state(inst, kd_call, tensors, n_params, buffers, n_buffers)
            }
        })?;
        for (spec, array) in plan.params.iter().zip(params.iter()) {
            instance.require_written(
                ENTRY,
                &format!("parameter `{}`", spec.name),
                array,
                marker,
            )?;
        }
        for (spec, array) in plan.buffers.iter().zip(buffers.iter()) {
            instance.require_written(ENTRY, &format!("buffer `{}`", spec.name), array, marker)?;
        }
        Ok(())
    }

    /// Metrics reported since the last time, in order of first report.
    #[must_use]
    pub fn take_metrics(&mut self) -> Vec<(String, f64)> {
        self.instance.context.take_metrics()
    }

    /// Refuses NaN and infinity in an output of `entry`.
    ///
    /// # Errors
    /// [`PluginCallError::NonFinite`] with their number and the first.
    pub fn check_finite(
        &self,
        entry: &'static str,
        output: &str,
        values: &[f32],
    ) -> Result<(), PluginCallError> {
        // Without a way out inside a chunk, so that a scan of millions is done in vectors.
        let is_whole = |chunk: &[f32]| chunk.iter().fold(true, |whole, v| whole & v.is_finite());
        if values.chunks(FINITE_CHUNK).all(is_whole) {
            return Ok(());
        }
        let mut broken = values.iter().copied().filter(|v| !v.is_finite());
        let first = broken.next().expect("a chunk was not whole");
        Err(PluginCallError::NonFinite {
            plugin: self.library().manifest().plugin.clone(),
            method: self.manifest().id.clone(),
            entry,
            output: output.to_owned(),
            first,
            count: 1 + broken.count(),
            total: values.len(),
        })
    }

    fn require_plan(&self, entry: &'static str) -> Result<Arc<Plan>, PluginCallError> {
        self.plan.clone().ok_or_else(|| {
            self.instance
                .misuse(entry, "no plan was made or the last one failed".to_owned())
        })
    }
}
