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

mod plan;
mod saved;
mod tensors;

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kd_abi::{
    KD_CALL_CHECK, KD_CALL_DETERMINISTIC, KD_CALL_TRAINING, KD_E_INTERNAL, KD_E_PANIC, KD_OK,
    KdBackward, KdCall, KdDevice, KdForward, KdInst, KdMethod, KdStatus, KdStr,
};

use super::error::PluginCallError;
use super::host_table::{HOST, HostContext, Outcome};
use super::library::Library;
use super::manifest::MethodManifest;

pub use plan::{LossSpec, MapSpec, Plan, TapBinding, TensorSpec};
pub use saved::Saved;
pub use tensors::{ArrayMut, TensorArg, TensorData};

use tensors::{Marker, Views};

/// Where in the run a call happens.
#[derive(Clone, Debug, Default)]
pub struct CallInfo {
    /// A training step, as opposed to evaluation.
    pub training: bool,
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
    /// The only source of randomness that the plugin may use.
    pub seed: u64,
    /// Non-zero asks the plugin to stop; shared with the signal handler.
    pub cancel: Arc<AtomicU32>,
}

/// An instance of a method.
#[derive(Debug)]
pub struct Method {
    instance: Arc<Instance>,
    plan: Option<Arc<Plan>>,
    tap_shapes: Vec<usize>,
    views: Views,
}

/// The plugin's object; destroyed when neither method nor saved state needs it.
#[derive(Debug)]
struct Instance {
    library: Arc<Library>,
    table: &'static KdMethod,
    manifest: MethodManifest,
    // Boxed, because its address is the `host_ctx` of every call.
    context: Box<HostContext>,
    // Locked during every call: an instance is never entered twice at a time, although saved
    // states may be dropped on other threads.
    state: Mutex<InstanceState>,
}

#[derive(Debug)]
struct InstanceState {
    pointer: *mut KdInst,
    poisoned: bool,
}

// SAFETY: the ABI lets an instance move between threads between calls; the lock around it keeps
// two threads from entering it together.
unsafe impl Send for InstanceState {}

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
        let instance = Instance {
            library: Arc::clone(library),
            table,
            context: Box::new(HostContext::new(
                &library.manifest().plugin,
                &manifest.id,
                &manifest.metrics,
            )),
            manifest: manifest.clone(),
            state: Mutex::new(InstanceState {
                pointer: std::ptr::null_mut(),
                poisoned: false,
            }),
        };
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
            tap_shapes: Vec::new(),
            views: Views::default(),
        })
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
        self.tap_shapes = taps.iter().map(|tap| tap.channels).collect();
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

    /// Computes losses and maps.
    ///
    /// The memory of taps, parameters and targets stays borrowed, and hence unchanged, until the
    /// saved state is dropped: the plugin may have kept views of it.
    ///
    /// # Shapes
    /// - `taps`: as bound, in that order, `[N, C, H, W]`.
    /// - `params`, `buffers`: as planned.
    /// - `targets`: in the manifest's order.
    /// - `losses`: one value for each planned loss.
    /// - `maps`: as planned with the batch's extents put in.
    ///
    /// # Errors
    /// The plugin's error, arguments that do not fit the plan, or, in check calls, an output left
    /// unwritten. Values are not judged; see [`check_finite`](Self::check_finite).
    pub fn forward<'a>(
        &mut self,
        call: &CallInfo,
        taps: &[TensorArg<'a>],
        params: &[TensorArg<'a>],
        buffers: &mut [ArrayMut<'_>],
        targets: &[TensorArg<'a>],
        losses: &mut [f32],
        maps: &mut [ArrayMut<'_>],
    ) -> Result<Saved<'a>, PluginCallError> {
        const ENTRY: &str = "forward";
        let plan = self.require_plan(ENTRY)?;
        let instance = &self.instance;
        self.fit_inputs(ENTRY, &plan, taps, params)?;
        fit_specs(
            instance,
            ENTRY,
            "buffer",
            &plan.buffers,
            buffers.iter().map(|a| a.shape),
        )?;
        let counts = [
            ("targets", instance.manifest.targets.len(), targets.len()),
            ("losses", plan.losses.len(), losses.len()),
            ("maps", plan.maps.len(), maps.len()),
        ];
        for (what, planned, given) in counts {
            instance.fit(ENTRY, planned == given, || {
                format!("{given} {what} given, {planned} planned")
            })?;
        }
        for (spec, map) in plan.maps.iter().zip(maps.iter()) {
            let expected = taps[spec.replaces_tap].shape;
            instance.fit(ENTRY, map.shape == expected, || {
                format!(
                    "map `{}` has shape {:?}, its tap {expected:?}",
                    spec.name, map.shape
                )
            })?;
        }

        let marker = Marker::for_call(call);
        losses.fill(marker.value());
        for map in maps.iter_mut() {
            map.fill(marker);
        }
        let views = &mut self.views;
        views.clear();
        views.inputs(taps);
        views.inputs(params);
        views.in_out(buffers);
        views.inputs(targets);
        views.scalar_outputs(losses, marker);
        views.outputs(maps, marker);
        let mut cursor = views.finish();
        let mut next = |count: usize| {
            let first = cursor;
            // SAFETY: the views were made in this order; the sum of the counts is their number.
            cursor = unsafe { cursor.add(count) };
            first
        };
        let args = KdForward {
            struct_size: size_of::<KdForward>() as u32,
            n_taps: taps.len() as u32,
            n_params: params.len() as u32,
            n_buffers: buffers.len() as u32,
            n_targets: targets.len() as u32,
            n_losses: losses.len() as u32,
            n_maps: maps.len() as u32,
            reserved: 0,
            taps: next(taps.len()),
            params: next(params.len()),
            buffers: next(buffers.len()),
            targets: next(targets.len()),
            losses: next(losses.len()),
            maps: next(maps.len()),
        };
        let mut saved = std::ptr::null_mut();
        let forward = instance.table.forward.expect("checked at load");
        let outcome = instance.enter(ENTRY, call, true, |inst, kd_call| {
            // SAFETY: every view borrows memory that lives until this function returns.
            unsafe { forward(inst, kd_call, &raw const args, &raw mut saved) }
        })?;
        // From here on the saved state is owned, and released also if a check below fails.
        let saved = Saved::new(Arc::clone(instance), saved, outcome.saved);
        if marker.is_poison() {
            for (spec, loss) in plan.losses.iter().zip(losses.iter_mut()) {
                let name = format!("loss `{}`", spec.name);
                let array = ArrayMut::new(&[], std::slice::from_mut(loss));
                instance.require_written(ENTRY, &name, &array, marker)?;
            }
            for (spec, map) in plan.maps.iter().zip(maps.iter()) {
                let name = format!("map `{}`", spec.name);
                instance.require_written(ENTRY, &name, map, marker)?;
            }
        }
        Ok(saved)
    }

    /// Computes the gradients of `sum(d_losses * losses) + sum(d_maps * maps)` with respect to
    /// taps and parameters. At most once for each saved state.
    ///
    /// # Shapes
    /// - `taps`, `params`: the same values as in forward.
    /// - `d_losses`: one for each planned loss, the host's weights folded in.
    /// - `d_maps`: as the maps of forward.
    /// - `d_taps`, `d_params`: as taps and parameters; `None` where not wanted, which for taps
    ///   must include every one that the plan gives no gradient.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward), and a saved state of another instance or used before.
    pub fn backward(
        &mut self,
        call: &CallInfo,
        taps: &[TensorArg<'_>],
        params: &[TensorArg<'_>],
        d_losses: &[f32],
        d_maps: &[TensorArg<'_>],
        d_taps: &mut [Option<ArrayMut<'_>>],
        d_params: &mut [Option<ArrayMut<'_>>],
        saved: &mut Saved<'_>,
    ) -> Result<(), PluginCallError> {
        const ENTRY: &str = "backward";
        let plan = self.require_plan(ENTRY)?;
        let instance = &self.instance;
        self.fit_inputs(ENTRY, &plan, taps, params)?;
        let counts = [
            ("upstream losses", plan.losses.len(), d_losses.len()),
            ("upstream maps", plan.maps.len(), d_maps.len()),
            ("tap gradients", taps.len(), d_taps.len()),
            ("parameter gradients", params.len(), d_params.len()),
        ];
        for (what, planned, given) in counts {
            instance.fit(ENTRY, planned == given, || {
                format!("{given} {what} given, {planned} expected")
            })?;
        }
        for (index, gradient) in d_taps.iter().enumerate() {
            let Some(gradient) = gradient else { continue };
            let (wanted, has) = (taps[index].shape, plan.tap_use[index] & kd_abi::KD_USE_GRAD);
            instance.fit(ENTRY, has != 0, || {
                format!("a gradient is wanted for tap {index}, for which the plan gives none")
            })?;
            instance.fit(ENTRY, gradient.shape == wanted, || {
                format!(
                    "gradient of tap {index} has shape {:?}, the tap {wanted:?}",
                    gradient.shape
                )
            })?;
        }
        for (spec, gradient) in plan.params.iter().zip(d_params.iter()) {
            let fits = gradient.as_ref().is_none_or(|g| *g.shape == *spec.shape);
            instance.fit(ENTRY, fits, || {
                format!(
                    "the gradient of parameter `{}` has another shape than it",
                    spec.name
                )
            })?;
        }
        let saved_pointer = saved.take_for_backward(instance)?;

        let marker = Marker::for_call(call);
        d_taps
            .iter_mut()
            .flatten()
            .for_each(|array| array.fill(marker));
        d_params
            .iter_mut()
            .flatten()
            .for_each(|array| array.fill(marker));
        let views = &mut self.views;
        views.clear();
        views.inputs(taps);
        views.inputs(params);
        views.scalar_inputs(d_losses);
        views.inputs(d_maps);
        views.optional_outputs(d_taps, taps.iter().map(|t| t.shape), marker);
        let param_shapes = plan.params.iter().map(|spec| spec.shape.as_slice());
        views.optional_outputs(d_params, param_shapes, marker);
        let mut cursor = views.finish();
        let mut next = |count: usize| {
            let first = cursor;
            // SAFETY: the views were made in this order; the sum of the counts is their number.
            cursor = unsafe { cursor.add(count) };
            first
        };
        let args = KdBackward {
            struct_size: size_of::<KdBackward>() as u32,
            n_taps: taps.len() as u32,
            n_params: params.len() as u32,
            n_losses: d_losses.len() as u32,
            n_maps: d_maps.len() as u32,
            reserved: 0,
            taps: next(taps.len()),
            params: next(params.len()),
            d_losses: next(d_losses.len()),
            d_maps: next(d_maps.len()),
            d_taps: next(d_taps.len()),
            d_params: next(d_params.len()),
        };
        let backward = instance.table.backward.expect("checked at load");
        instance.enter(ENTRY, call, false, |inst, kd_call| {
            // SAFETY: every view borrows memory that lives until this function returns; the saved
            // state is this instance's and not yet released.
            unsafe { backward(inst, kd_call, &raw const args, saved_pointer) }
        })?;
        for (index, array) in d_taps.iter().enumerate() {
            if let Some(array) = array {
                instance.require_written(
                    ENTRY,
                    &format!("gradient of tap {index}"),
                    array,
                    marker,
                )?;
            }
        }
        for (spec, array) in plan.params.iter().zip(d_params.iter()) {
            if let Some(array) = array {
                let name = format!("gradient of parameter `{}`", spec.name);
                instance.require_written(ENTRY, &name, array, marker)?;
            }
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
        let Some(first) = values.iter().copied().find(|v| !v.is_finite()) else {
            return Ok(());
        };
        Err(PluginCallError::NonFinite {
            plugin: self.library().manifest().plugin.clone(),
            method: self.manifest().id.clone(),
            entry,
            output: output.to_owned(),
            first,
            count: values.iter().filter(|v| !v.is_finite()).count(),
            total: values.len(),
        })
    }

    fn require_plan(&self, entry: &'static str) -> Result<Arc<Plan>, PluginCallError> {
        self.plan.clone().ok_or_else(|| {
            self.instance
                .misuse(entry, "no plan was made or the last one failed".to_owned())
        })
    }

    fn fit_inputs(
        &self,
        entry: &'static str,
        plan: &Plan,
        taps: &[TensorArg<'_>],
        params: &[TensorArg<'_>],
    ) -> Result<(), PluginCallError> {
        let instance = &self.instance;
        let bound = self.tap_shapes.len();
        instance.fit(entry, taps.len() == bound, || {
            format!("{} taps given, {bound} bound", taps.len())
        })?;
        for (index, (tap, channels)) in taps.iter().zip(&self.tap_shapes).enumerate() {
            let fits = tap.shape.len() == 4 && tap.shape[1] == *channels;
            instance.fit(entry, fits, || {
                format!(
                    "tap {index} has shape {:?}, bound with {channels} channels",
                    tap.shape
                )
            })?;
            instance.fit(entry, matches!(tap.data(), TensorData::F32(_)), || {
                format!("tap {index} is not f32")
            })?;
        }
        fit_specs(
            instance,
            entry,
            "parameter",
            &plan.params,
            params.iter().map(|p| p.shape),
        )?;
        for (spec, param) in plan.params.iter().zip(params) {
            instance.fit(entry, matches!(param.data(), TensorData::F32(_)), || {
                format!("parameter `{}` is not f32", spec.name)
            })?;
        }
        Ok(())
    }
}

impl CallInfo {
    fn to_kd_call(&self, context: &HostContext) -> KdCall {
        let mut flags = KD_CALL_DETERMINISTIC;
        if self.training {
            flags |= KD_CALL_TRAINING;
        }
        if self.check {
            flags |= KD_CALL_CHECK;
        }
        KdCall {
            struct_size: size_of::<KdCall>() as u32,
            flags,
            host: &raw const HOST,
            host_ctx: context.as_pointer(),
            cancel: self.cancel.as_ptr(),
            stage: self.stage,
            phase: self.phase,
            step: self.step,
            phase_step: self.phase_step,
            phase_steps: self.phase_steps,
            total_steps: self.total_steps,
            epoch: self.epoch,
            seed: self.seed,
            device: KdDevice::CPU,
            stream: 0,
        }
    }
}

impl Instance {
    /// Runs one entry: lock, host context, status to error, poison on panic.
    fn enter(
        &self,
        entry: &'static str,
        call: &CallInfo,
        may_save: bool,
        run: impl FnOnce(*mut KdInst, *const KdCall) -> KdStatus,
    ) -> Result<Outcome, PluginCallError> {
        let mut state = self.lock();
        let (plugin, method) = (&self.library.manifest().plugin, &self.manifest.id);
        if state.poisoned {
            return Err(PluginCallError::Poisoned {
                plugin: plugin.clone(),
                method: method.clone(),
                entry,
            });
        }
        let _span = tracing::debug_span!(target: "kdhost::plugin", "plugin", plugin, method, entry)
            .entered();
        let kd_call = call.to_kd_call(&self.context);
        self.context.begin(entry, may_save);
        let status = run(state.pointer, &raw const kd_call);
        let outcome = self.context.end();
        match status {
            KD_OK => Ok(outcome),
            KD_E_PANIC => {
                state.poisoned = true;
                Err(PluginCallError::Panicked {
                    plugin: plugin.clone(),
                    method: method.clone(),
                    entry,
                    message: outcome.message(),
                    detail: outcome.detail(),
                })
            }
            _ => Err(self.status_error(entry, status, outcome.message(), outcome.detail())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, InstanceState> {
        // A panic of the host during a call leaves pointer and flag whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status_error(
        &self,
        entry: &'static str,
        status: KdStatus,
        message: String,
        detail: String,
    ) -> PluginCallError {
        PluginCallError::Status {
            plugin: self.library.manifest().plugin.clone(),
            method: self.manifest.id.clone(),
            entry,
            status,
            message,
            detail,
        }
    }

    fn misuse(&self, entry: &'static str, problem: String) -> PluginCallError {
        PluginCallError::BadArguments {
            plugin: self.library.manifest().plugin.clone(),
            method: self.manifest.id.clone(),
            entry,
            problem,
        }
    }

    fn fit(
        &self,
        entry: &'static str,
        fits: bool,
        problem: impl FnOnce() -> String,
    ) -> Result<(), PluginCallError> {
        if fits {
            Ok(())
        } else {
            Err(self.misuse(entry, problem()))
        }
    }

    fn require_written(
        &self,
        entry: &'static str,
        output: &str,
        array: &ArrayMut<'_>,
        marker: Marker,
    ) -> Result<(), PluginCallError> {
        let count = marker.count_unwritten(array);
        if count == 0 {
            return Ok(());
        }
        Err(PluginCallError::Unwritten {
            plugin: self.library.manifest().plugin.clone(),
            method: self.manifest.id.clone(),
            entry,
            output: output.to_owned(),
            count,
            total: array.data.len(),
        })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let pointer = self.lock().pointer;
        if pointer.is_null() {
            return;
        }
        let destroy = self.table.destroy.expect("checked at load");
        self.context.begin("destroy", false);
        // SAFETY: made by `create` of the same table, destroyed once, and every saved state holds
        // this instance, so that all are released.
        unsafe { destroy(pointer) };
        self.context.end();
    }
}

fn fit_specs<'a>(
    instance: &Instance,
    entry: &'static str,
    what: &str,
    specs: &[TensorSpec],
    shapes: impl ExactSizeIterator<Item = &'a [usize]>,
) -> Result<(), PluginCallError> {
    let (planned, given) = (specs.len(), shapes.len());
    instance.fit(entry, planned == given, || {
        format!("{given} {what}s given, {planned} planned")
    })?;
    for (spec, shape) in specs.iter().zip(shapes) {
        instance.fit(entry, *spec.shape == *shape, || {
            format!(
                "{what} `{}` has shape {shape:?}, planned {:?}",
                spec.name, spec.shape
            )
        })?;
    }
    Ok(())
}
