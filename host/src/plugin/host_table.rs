//! What a plugin may call: the table of host functions and the context behind `host_ctx`.
//!
//! A function acts only while its context is inside a call, and only on the thread of that call;
//! otherwise it refuses and warns. None of them unwinds into the plugin.
#![expect(unsafe_code, reason = "functions called by foreign code")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::collections::BTreeSet;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;

use kd_abi::{
    KD_ABI_MINOR, KD_ALLOC_CALL, KD_ALLOC_SAVED, KD_E_INTERNAL, KD_E_INVALID_ARG, KD_E_OOM,
    KD_E_STATE, KD_EXT_CONV, KD_EXT_TASK, KD_LOG_DEBUG, KD_LOG_ERROR, KD_LOG_INFO, KD_LOG_WARN,
    KD_OK, KdHost, KdStatus, KdStr, KdTask,
};
use tracing::Level;

use super::conv_extension;

/// Longest text taken from a plugin; the rest is cut.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// Largest alignment of scratch memory.
const MAX_ALIGN: u64 = 4096;

/// The functions. One table serves every plugin.
pub(super) static HOST: KdHost = KdHost {
    struct_size: size_of::<KdHost>() as u32,
    abi_minor: KD_ABI_MINOR,
    log_enabled: Some(log_enabled),
    log: Some(log),
    set_error: Some(set_error),
    alloc: Some(alloc),
    metric: Some(metric),
    get_extension: Some(get_extension),
};

/// Behind `host_ctx`: one for each instance and one for each `init`.
#[derive(Debug)]
pub(super) struct HostContext {
    plugin: String,
    method: String,
    declared_metrics: Vec<String>,
    task: OnceLock<KdTask>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    call: Option<ActiveCall>,
    metrics: Vec<(String, f64)>,
    warned: BTreeSet<String>,
}

#[derive(Debug)]
struct ActiveCall {
    entry: &'static str,
    thread: ThreadId,
    may_save: bool,
    error: Option<(String, String)>,
    scratch: Vec<Scratch>,
    saved: Vec<Scratch>,
}

/// Memory lent to a plugin, freed on drop.
#[derive(Debug)]
pub(super) struct Scratch {
    pointer: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory, owned by the value.
unsafe impl Send for Scratch {}

/// What a call left behind.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Message and detail of the last `set_error`.
    pub(super) error: Option<(String, String)>,
    /// Memory to free with the saved state.
    pub(super) saved: Vec<Scratch>,
}

impl Outcome {
    /// The plugin's words, or that there were none.
    pub(super) fn message(&self) -> String {
        match &self.error {
            Some((message, _)) if !message.is_empty() => message.clone(),
            _ => "the plugin gave no message".to_owned(),
        }
    }

    /// The plugin's detail JSON; may be empty.
    pub(super) fn detail(&self) -> String {
        self.error
            .as_ref()
            .map(|(_, detail)| detail.clone())
            .unwrap_or_default()
    }
}

impl HostContext {
    pub(super) fn new(plugin: &str, method: &str, declared_metrics: &[String]) -> Self {
        HostContext {
            plugin: plugin.to_owned(),
            method: method.to_owned(),
            declared_metrics: declared_metrics.to_vec(),
            task: OnceLock::new(),
            state: Mutex::default(),
        }
    }

    /// Says what the models are trained for; the first word stands.
    pub(super) fn set_num_classes(&self, num_classes: usize) {
        let _ = self.task.set(KdTask {
            struct_size: size_of::<KdTask>() as u32,
            num_classes: num_classes as u32,
        });
    }

    /// For `host_ctx`. The context must outlive every call that is given it.
    pub(super) fn as_pointer(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// Opens the host functions for a call on this thread.
    pub(super) fn begin(&self, entry: &'static str, may_save: bool) {
        self.lock().call = Some(ActiveCall {
            entry,
            thread: std::thread::current().id(),
            may_save,
            error: None,
            scratch: Vec::new(),
            saved: Vec::new(),
        });
    }

    /// Closes them; frees the scratch memory of the call.
    pub(super) fn end(&self) -> Outcome {
        let call = self.lock().call.take();
        call.map(|call| Outcome {
            error: call.error,
            saved: call.saved,
        })
        .unwrap_or_default()
    }

    /// Metrics reported since the last time, in order of first report.
    pub(super) fn take_metrics(&self) -> Vec<(String, f64)> {
        std::mem::take(&mut self.lock().metrics)
    }

    /// Whether a call is active on this thread; a warning if none is.
    pub(super) fn is_in_call(&self, function: &str) -> bool {
        self.in_call(function, |_| ()).is_some()
    }

    /// Says in the log why a function of an extension refuses.
    pub(super) fn refuse(&self, function: &str, why: &str) -> KdStatus {
        tracing::warn!(
            target: "kdhost::plugin",
            plugin = self.plugin,
            method = self.method,
            "host function `{function}` refused: {why}"
        );
        KD_E_INVALID_ARG
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so that a panic under the lock harms nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `action` on the state if a call is active on this thread.
    fn in_call<R>(&self, function: &str, action: impl FnOnce(&mut State) -> R) -> Option<R> {
        let mut state = self.lock();
        let here = std::thread::current().id();
        match &state.call {
            Some(call) if call.thread == here => Some(action(&mut state)),
            other => {
                let active = other.as_ref().map_or("none", |call| call.entry);
                drop(state);
                tracing::warn!(
                    target: "kdhost::plugin",
                    plugin = self.plugin,
                    method = self.method,
                    active_entry = active,
                    "host function `{function}` refused: called outside a call or from another thread"
                );
                None
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: allocated by `Scratch::new` with this layout and freed once.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) }
    }
}

impl Scratch {
    fn new(bytes: u64, align: u64) -> Result<Scratch, KdStatus> {
        if !align.is_power_of_two() || align > MAX_ALIGN {
            return Err(KD_E_INVALID_ARG);
        }
        // Zero bytes still give an address of its own.
        let size = usize::try_from(bytes.max(1)).map_err(|_| KD_E_OOM)?;
        let layout = Layout::from_size_align(size, align as usize).map_err(|_| KD_E_OOM)?;
        // SAFETY: the size is not zero.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(KD_E_OOM)?;
        Ok(Scratch { pointer, layout })
    }
}

unsafe extern "C" fn log_enabled(host_ctx: *mut c_void, level: i32, _target: KdStr) -> i32 {
    guarded(host_ctx, 0, |_| i32::from(is_enabled(level)))
}

unsafe extern "C" fn log(
    host_ctx: *mut c_void,
    level: i32,
    target: KdStr,
    message: KdStr,
    fields_json: KdStr,
) {
    guarded(host_ctx, (), |context| {
        let (module, message) = (text(target), text(message));
        let fields = text(fields_json);
        // The lock is not held while logging: a subscriber may be slow.
        if context.is_in_call("log") {
            write_log(context, level, &module, &message, &fields);
        }
    });
}

unsafe extern "C" fn set_error(
    host_ctx: *mut c_void,
    _status: KdStatus,
    message: KdStr,
    detail_json: KdStr,
) {
    guarded(host_ctx, (), |context| {
        let error = (text(message), text(detail_json));
        context.in_call("set_error", |state| {
            if let Some(call) = &mut state.call {
                call.error = Some(error);
            }
        });
    });
}

unsafe extern "C" fn alloc(
    host_ctx: *mut c_void,
    lifetime: u32,
    bytes: u64,
    align: u64,
    out: *mut *mut c_void,
) -> KdStatus {
    guarded(host_ctx, KD_E_INTERNAL, |context| {
        if out.is_null() {
            return KD_E_INVALID_ARG;
        }
        let allocated = context.in_call("alloc", |state| {
            let call = state.call.as_mut().ok_or(KD_E_STATE)?;
            let owner = match lifetime {
                KD_ALLOC_CALL => &mut call.scratch,
                KD_ALLOC_SAVED if call.may_save => &mut call.saved,
                KD_ALLOC_SAVED => return Err(KD_E_STATE),
                _ => return Err(KD_E_INVALID_ARG),
            };
            let scratch = Scratch::new(bytes, align)?;
            let pointer = scratch.pointer;
            owner.push(scratch);
            Ok(pointer)
        });
        match allocated.unwrap_or(Err(KD_E_STATE)) {
            Ok(pointer) => {
                // SAFETY: not null, and the plugin promises a place for one pointer.
                unsafe { out.write(pointer.as_ptr().cast()) };
                KD_OK
            }
            Err(status) => status,
        }
    })
}

unsafe extern "C" fn metric(host_ctx: *mut c_void, name: KdStr, value: f64) {
    guarded(host_ctx, (), |context| {
        let name = text(name);
        let declared = context.declared_metrics.contains(&name);
        let warn = context.in_call("metric", |state| {
            if !declared {
                return state.warned.insert(name.clone());
            }
            match state.metrics.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = value,
                None => state.metrics.push((name.clone(), value)),
            }
            false
        });
        if warn == Some(true) {
            tracing::warn!(
                target: "kdhost::plugin",
                plugin = context.plugin,
                method = context.method,
                "metric `{name}` is not in the manifest and is dropped"
            );
        }
    });
}

unsafe extern "C" fn get_extension(host_ctx: *mut c_void, id: KdStr) -> *const c_void {
    guarded(host_ctx, std::ptr::null(), |context| {
        let id = text(id);
        if !context.is_in_call("get_extension") {
            return std::ptr::null();
        }
        match id.as_str() {
            KD_EXT_CONV => (&raw const conv_extension::TABLE).cast(),
            KD_EXT_TASK => context
                .task
                .get()
                .map_or(std::ptr::null(), |task| std::ptr::from_ref(task).cast()),
            // The documented answer to an unknown id.
            _ => std::ptr::null(),
        }
    })
}

/// Finds the context and keeps a panic of the host from crossing into the plugin.
pub(super) fn guarded<R>(
    host_ctx: *mut c_void,
    otherwise: R,
    action: impl FnOnce(&HostContext) -> R,
) -> R {
    if host_ctx.is_null() {
        return otherwise;
    }
    // SAFETY: the host hands out only pointers from `as_pointer`, and contexts outlive the calls
    // they are given to.
    let context = unsafe { &*host_ctx.cast::<HostContext>() };
    match catch_unwind(AssertUnwindSafe(|| action(context))) {
        Ok(result) => result,
        Err(payload) => {
            forget(payload);
            otherwise
        }
    }
}

/// A payload whose drop panics must not escape either.
fn forget(payload: Box<dyn Any + Send>) {
    std::mem::forget(payload);
}

/// Copies a borrowed string; bytes that are not UTF-8 become U+FFFD.
pub(super) fn text(borrowed: KdStr) -> String {
    // SAFETY: a plugin's string is valid until the callback returns.
    let bytes = unsafe { borrowed.as_bytes() };
    let shown = &bytes[..bytes.len().min(MAX_TEXT_BYTES)];
    String::from_utf8_lossy(shown).into_owned()
}

fn is_enabled(level: i32) -> bool {
    match level {
        ..=KD_LOG_ERROR => tracing::enabled!(target: "kdhost::plugin", Level::ERROR),
        KD_LOG_WARN => tracing::enabled!(target: "kdhost::plugin", Level::WARN),
        KD_LOG_INFO => tracing::enabled!(target: "kdhost::plugin", Level::INFO),
        KD_LOG_DEBUG => tracing::enabled!(target: "kdhost::plugin", Level::DEBUG),
        _ => tracing::enabled!(target: "kdhost::plugin", Level::TRACE),
    }
}

fn write_log(context: &HostContext, level: i32, module: &str, message: &str, fields: &str) {
    macro_rules! event {
        ($level:expr) => {
            tracing::event!(
                target: "kdhost::plugin",
                $level,
                plugin = context.plugin,
                method = context.method,
                module,
                fields,
                "{message}"
            )
        };
    }
    match level {
        ..=KD_LOG_ERROR => event!(Level::ERROR),
        KD_LOG_WARN => event!(Level::WARN),
        KD_LOG_INFO => event!(Level::INFO),
        KD_LOG_DEBUG => event!(Level::DEBUG),
        _ => event!(Level::TRACE),
    }
}

#[cfg(test)]
mod tests;
