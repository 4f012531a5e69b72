//! The one guard around every entry: no null call, no unwinding, no error without a message.
#![expect(unsafe_code, reason = "reads the host's call")]

use std::any::Any;
#[cfg(feature = "burn")]
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use kd_abi::{KD_E_INVALID_ARG, KD_E_PANIC, KD_OK, KdCall, KdStatus};
use serde_json::json;

use crate::MethodError;
use crate::call::Call;
use crate::log;

/// What the panic hook saw.
#[derive(Debug)]
pub(crate) struct PanicRecord {
    pub(crate) message: String,
    pub(crate) location: String,
    /// Where asked for with [`catch_with_frames`].
    #[cfg(feature = "burn")]
    pub(crate) frames: Option<Backtrace>,
}

thread_local! {
    #[cfg(feature = "burn")]
    static WANTS_FRAMES: Cell<bool> = const { Cell::new(false) };
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static HERE: RefCell<Option<PanicRecord>> = const { RefCell::new(None) };
}
/// Entries running in this library, on any thread.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
/// Last panic on a thread that the method itself started, while an entry ran.
static ELSEWHERE: Mutex<Option<PanicRecord>> = Mutex::new(None);

/// Result of a guarded entry.
pub(crate) struct Outcome {
    pub(crate) status: KdStatus,
    /// The instance must not be entered again.
    pub(crate) panicked: bool,
}

/// Runs `body`, turns errors and panics into a status and tells the host why.
///
/// # Safety
/// `call` must be null or a call as the ABI describes it, valid until this returns.
pub(crate) unsafe fn guard(
    method: &str,
    entry: &str,
    call: *const KdCall,
    body: impl FnOnce(&Call<'_>) -> Result<(), MethodError>,
) -> Outcome {
    // SAFETY: the caller's promise.
    let Some(call) = (unsafe { Call::from_raw(call) }) else {
        // Without a host there is nobody to tell.
        return Outcome {
            status: KD_E_INVALID_ARG,
            panicked: false,
        };
    };
    let ran = catch(|| log::with_host_log(&call, || body(&call)));
    let (status, message, location, panicked) = match ran {
        Ok(Ok(())) => {
            return Outcome {
                status: KD_OK,
                panicked: false,
            };
        }
        Ok(Err(error)) => (error.status(), error.message().to_owned(), None, false),
        Err(panic) => {
            let message = format!("panicked at {}: {}", panic.location, panic.message);
            (KD_E_PANIC, message, Some(panic.location), true)
        }
    };
    let detail = json!({"method": method, "entry": entry, "location": location}).to_string();
    call.set_error(status, &message, &detail);
    Outcome { status, panicked }
}

/// Runs a function that has no call and nobody to report to; a panic ends here.
pub(crate) fn guard_silent(body: impl FnOnce()) {
    // Nothing can be done about a panicking destructor but to leave the rest behind.
    let _ = catch(body);
}

/// Runs `body` inside an entry; a panic of this thread comes back with the frames that led to it.
#[cfg(feature = "burn")]
pub(crate) fn catch_with_frames<T>(body: impl FnOnce() -> T) -> Result<T, PanicRecord> {
    WANTS_FRAMES.set(true);
    let result = catch(body);
    WANTS_FRAMES.set(false);
    result
}

fn catch<T>(body: impl FnOnce() -> T) -> Result<T, PanicRecord> {
    install_hook();
    RUNNING.fetch_add(1, Ordering::SeqCst);
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    result.map_err(|payload| {
        let here = HERE.take();
        let elsewhere = ELSEWHERE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let record = here.or(elsewhere).unwrap_or_else(|| PanicRecord {
            message: payload_text(payload.as_ref()),
            location: "an unknown place".to_owned(),
            #[cfg(feature = "burn")]
            frames: None,
        });
        // Dropping a payload runs foreign code that may panic again.
        std::mem::forget(payload);
        record
    })
}

/// Installs the hook of this library's copy of `std` once; outside entries the old hook works on.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.get() > 0 {
                HERE.set(Some(record(info)));
            } else if RUNNING.load(Ordering::SeqCst) > 0 && is_worker() {
                *ELSEWHERE.lock().unwrap_or_else(PoisonError::into_inner) = Some(record(info));
            } else {
                previous(info);
            }
        }));
    });
}

/// Threads of the test harness and the main thread are named; a pool's workers are not.
fn is_worker() -> bool {
    std::thread::current().name().is_none()
}

fn record(info: &PanicHookInfo<'_>) -> PanicRecord {
    PanicRecord {
        message: payload_text(info.payload()),
        location: info
            .location()
            .map_or_else(|| "an unknown place".to_owned(), ToString::to_string),
        #[cfg(feature = "burn")]
        frames: WANTS_FRAMES.get().then(Backtrace::force_capture),
    }
}

fn payload_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a payload that is not text".to_owned())
}
