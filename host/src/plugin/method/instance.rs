//! The plugin's object and the one way into it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kd_abi::{
    KD_CALL_CHECK, KD_CALL_DETACH_STUDENT, KD_CALL_DETERMINISTIC, KD_CALL_TRAINING, KD_E_PANIC,
    KD_OK, KdCall, KdDevice, KdInst, KdMethod, KdStatus,
};

use super::tensors::Marker;
use super::{ArrayMut, CallInfo, TensorSpec};
use crate::plugin::error::PluginCallError;
use crate::plugin::host_table::{HOST, HostContext, Outcome};
use crate::plugin::library::Library;
use crate::plugin::manifest::MethodManifest;

/// The plugin's object; destroyed when neither method nor saved state needs it.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) library: Arc<Library>,
    pub(super) table: &'static KdMethod,
    pub(super) manifest: MethodManifest,
    // Boxed, because its address is the `host_ctx` of every call.
    pub(super) context: Box<HostContext>,
    // Locked during every call: an instance is never entered twice at a time, although saved
    // states may be dropped on other threads.
    pub(super) state: Mutex<InstanceState>,
}

#[derive(Debug)]
pub(super) struct InstanceState {
    pub(super) pointer: *mut KdInst,
    pub(super) poisoned: bool,
}

// SAFETY: the ABI lets an instance move between threads between calls; the lock around it keeps
// two threads from entering it together.
unsafe impl Send for InstanceState {}

impl Instance {
    /// Everything but the plugin's object, which `create` has still to make.
    pub(super) fn new(
        library: &Arc<Library>,
        table: &'static KdMethod,
        manifest: &MethodManifest,
    ) -> Self {
        let plugin = &library.manifest().plugin;
        let context = HostContext::new(plugin, &manifest.id, &manifest.metrics);
        Instance {
            library: Arc::clone(library),
            table,
            manifest: manifest.clone(),
            context: Box::new(context),
            state: Mutex::new(InstanceState {
                pointer: std::ptr::null_mut(),
                poisoned: false,
            }),
        }
    }

    /// Runs one entry: lock, host context, status to error, poison on panic.
    pub(super) fn enter(
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

    pub(super) fn lock(&self) -> MutexGuard<'_, InstanceState> {
        // A panic of the host during a call leaves pointer and flag whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status_error(
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

    pub(super) fn misuse(&self, entry: &'static str, problem: String) -> PluginCallError {
        PluginCallError::BadArguments {
            plugin: self.library.manifest().plugin.clone(),
            method: self.manifest.id.clone(),
            entry,
            problem,
        }
    }

    pub(super) fn fit(
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

    pub(super) fn require_written(
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

impl CallInfo {
    fn to_kd_call(&self, context: &HostContext) -> KdCall {
        let mut flags = KD_CALL_DETERMINISTIC;
        if self.training {
            flags |= KD_CALL_TRAINING;
        }
        if self.check {
            flags |= KD_CALL_CHECK;
        }
        if self.detach_student {
            flags |= KD_CALL_DETACH_STUDENT;
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

/// Refuses tensors that are not as planned, in number or shape.
pub(super) fn fit_specs<'a>(
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
