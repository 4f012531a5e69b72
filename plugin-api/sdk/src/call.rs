//! Where in the run a call happens, and what the host offers meanwhile.
#![expect(unsafe_code, reason = "reads the call and enters the host's functions")]

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};

use kd_abi::{
    KD_CALL_CHECK, KD_CALL_DETACH_STUDENT, KD_CALL_DETERMINISTIC, KD_CALL_TRAINING, KD_DEVICE_CPU,
    KD_EXT_TASK, KdCall, KdHost, KdStatus, KdStr, KdTask,
};

use crate::MethodError;

/// Position in the schedule and the seed of this call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallInfo {
    /// Index of the stage in the schedule.
    pub stage: u32,
    /// Index of the phase inside the stage.
    pub phase: u32,
    /// Optimizer steps done in this run; in a phase of the method alone, in the phase.
    pub step: u64,
    /// Steps done in this phase.
    pub phase_step: u64,
    /// Steps this phase will have.
    pub phase_steps: u64,
    /// Steps this run will have; in a phase of the method alone, the phase.
    pub total_steps: u64,
    /// Epochs completed, of the run or of a phase of the method alone.
    pub epoch: u64,
    /// The only permitted source of randomness: in training another one for each micro-batch, the same again
    /// after resume; of initial values and outside training the run's own.
    pub seed: u64,
    /// A training step; false while the host checks or evaluates.
    pub training: bool,
    /// A check: nothing of it reaches the run.
    pub check: bool,
    /// Equal inputs and seed must give equal bits.
    pub deterministic: bool,
    /// In this phase the losses send no gradient into student taps; see [`crate::Inputs::in_loss`].
    pub detach_student: bool,
}

/// Severity of a log message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum LogLevel {
    /// The run stops.
    Error = kd_abi::KD_LOG_ERROR,
    /// The result may differ from what the user asked for.
    Warn = kd_abi::KD_LOG_WARN,
    /// At most a few lines an epoch.
    Info = kd_abi::KD_LOG_INFO,
    /// For authors.
    Debug = kd_abi::KD_LOG_DEBUG,
    /// For authors, in bulk.
    Trace = kd_abi::KD_LOG_TRACE,
}

/// One call from the host: its facts, its services. Lives as long as the entry runs.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    raw: &'a KdCall,
    host: &'a KdHost,
}

impl<'a> Call<'a> {
    /// Wraps the host's call; `None` if it or its host table is null or cut short.
    ///
    /// # Safety
    /// `call` must be null or valid for `'a`, and so must all it points to.
    pub(crate) unsafe fn from_raw(call: *const KdCall) -> Option<Self> {
        // SAFETY: the caller's promise.
        let raw = unsafe { call.as_ref()? };
        // SAFETY: as above.
        let host = unsafe { raw.host.as_ref()? };
        let whole = raw.struct_size as usize >= size_of::<KdCall>()
            && host.struct_size as usize >= size_of::<KdHost>();
        whole.then_some(Call { raw, host })
    }

    /// Position in the schedule and the seed.
    #[must_use]
    pub fn info(&self) -> CallInfo {
        let raw = self.raw;
        CallInfo {
            stage: raw.stage,
            phase: raw.phase,
            step: raw.step,
            phase_step: raw.phase_step,
            phase_steps: raw.phase_steps,
            total_steps: raw.total_steps,
            epoch: raw.epoch,
            seed: raw.seed,
            training: raw.flags & KD_CALL_TRAINING != 0,
            check: raw.flags & KD_CALL_CHECK != 0,
            deterministic: raw.flags & KD_CALL_DETERMINISTIC != 0,
            detach_student: raw.flags & KD_CALL_DETACH_STUDENT != 0,
        }
    }

    /// Returns [`MethodError::cancelled`] if the host asked to stop. Poll it in long loops.
    ///
    /// # Errors
    /// If the cancel flag is set.
    pub fn check_cancelled(&self) -> Result<(), MethodError> {
        if self.raw.cancel.is_null() {
            return Ok(());
        }
        // SAFETY: valid for the call by contract; the host writes it atomically.
        let flag = unsafe { AtomicU32::from_ptr(self.raw.cancel.cast_mut()) };
        if flag.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        Err(MethodError::cancelled("the host asked to stop"))
    }

    /// Number of classes of the data set, if the host says it.
    #[must_use]
    pub fn num_classes(&self) -> Option<usize> {
        let task = self.extension(KD_EXT_TASK).cast::<KdTask>();
        // SAFETY: the id promises a `KdTask` that is valid for the call.
        let task = unsafe { task.as_ref()? };
        (task.struct_size as usize >= size_of::<KdTask>()).then_some(task.num_classes as usize)
    }

    pub(crate) fn check_device(&self) -> Result<(), MethodError> {
        if self.raw.device.kind == KD_DEVICE_CPU {
            return Ok(());
        }
        Err(MethodError::device(format!(
            "the call is for device type {}; this plugin computes on the CPU",
            self.raw.device.kind
        )))
    }

    /// Whether a message of this level and target would be shown.
    #[must_use]
    pub fn log_enabled(&self, level: LogLevel, target: &str) -> bool {
        self.host.log_enabled.is_some_and(|enabled| {
            // SAFETY: inside a call, on its thread, with its context.
            unsafe { enabled(self.raw.host_ctx, level as i32, KdStr::new(target)) != 0 }
        })
    }

    /// Writes into the host's log. `tracing` events do the same; this works without a subscriber.
    pub fn log(&self, level: LogLevel, target: &str, message: &str) {
        self.log_fields(level, target, message, "");
    }

    pub(crate) fn log_fields(&self, level: LogLevel, target: &str, message: &str, fields: &str) {
        if let Some(log) = self.host.log {
            // SAFETY: inside a call, on its thread, with its context; the host copies the strings.
            unsafe {
                log(
                    self.raw.host_ctx,
                    level as i32,
                    KdStr::new(target),
                    KdStr::new(message),
                    KdStr::new(fields),
                );
            }
        }
    }

    /// Reports a statistic of this step. Its name must be among the method's `METRICS`.
    pub fn metric(&self, name: &str, value: f64) {
        if let Some(metric) = self.host.metric {
            // SAFETY: as for `log`.
            unsafe { metric(self.raw.host_ctx, KdStr::new(name), value) }
        }
    }

    pub(crate) fn set_error(&self, status: KdStatus, message: &str, detail_json: &str) {
        if let Some(set_error) = self.host.set_error {
            // SAFETY: as for `log`.
            unsafe {
                set_error(
                    self.raw.host_ctx,
                    status,
                    KdStr::new(message),
                    KdStr::new(detail_json),
                );
            }
        }
    }

    /// A host extension by id, or null.
    pub(crate) fn extension(&self, id: &str) -> *const c_void {
        self.host.get_extension.map_or(std::ptr::null(), |get| {
            // SAFETY: as for `log`.
            unsafe { get(self.raw.host_ctx, KdStr::new(id)) }
        })
    }

    /// For the functions of an extension.
    #[cfg(feature = "cpu")]
    pub(crate) fn host_ctx(&self) -> *mut c_void {
        self.raw.host_ctx
    }

    pub(crate) fn as_raw(&self) -> *const KdCall {
        self.raw
    }
}
