//! Panics of a backend that runs a program are caught and reported; they must not be printed as well.

use std::any::Any;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Programs that run, on any thread. A backend's worker threads panic too, hence no thread-local.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Runs `body`, which catches its panics.
pub(super) fn run<T>(body: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if RUNNING.load(Ordering::Relaxed) == 0 {
                previous(info);
            } else {
                tracing::debug!(target: "kdhost::graph", "{info}");
            }
        }));
    });
    RUNNING.fetch_add(1, Ordering::Relaxed);
    let result = body();
    RUNNING.fetch_sub(1, Ordering::Relaxed);
    result
}

/// The words of a panic.
pub(super) fn message(payload: Box<dyn Any + Send>) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "the backend gave no reason".to_owned())
}
