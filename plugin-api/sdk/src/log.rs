//! Sends `tracing` events of the plugin into the host's log.
//!
//! Every shared library has its own copy of `tracing`, so a subscriber set here touches nobody
//! else. It is active on the calling thread while an entry runs; events of other threads are
//! dropped, because the host may only be called from inside a call, on its thread.
#![expect(unsafe_code, reason = "finds the current call again")]

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

use kd_abi::KdCall;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, span};

use crate::call::{Call, LogLevel};

thread_local! {
    static CURRENT: Cell<*const KdCall> = const { Cell::new(std::ptr::null()) };
}

/// Runs `body` with the plugin's events going to the host of `call`.
pub(crate) fn with_host_log<T>(call: &Call<'_>, body: impl FnOnce() -> T) -> T {
    /// Restores the outer call also when `body` panics.
    struct Restore(*const KdCall);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    static DISPATCH: OnceLock<Dispatch> = OnceLock::new();

    let _restore = Restore(CURRENT.replace(call.as_raw()));
    let dispatch = DISPATCH.get_or_init(|| Dispatch::new(HostSubscriber));
    tracing::dispatcher::with_default(dispatch, body)
}

fn with_current(body: impl FnOnce(&Call<'_>)) {
    // SAFETY: set by `with_host_log` for the time of one entry, on this thread.
    if let Some(call) = unsafe { Call::from_raw(CURRENT.get()) } {
        body(&call);
    }
}

struct HostSubscriber;

impl Subscriber for HostSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let mut enabled = false;
        with_current(|call| {
            enabled = call.log_enabled(level(metadata.level()), metadata.target());
        });
        enabled
    }

    // Spans are not bridged: the host opens one around every call of a plugin.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let json = if fields.others.is_empty() {
            String::new()
        } else {
            Value::Object(fields.others).to_string()
        };
        let metadata = event.metadata();
        with_current(|call| {
            call.log_fields(
                level(metadata.level()),
                metadata.target(),
                &fields.message,
                &json,
            );
        });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn level(level: &Level) -> LogLevel {
    match *level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.put(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.put(field, value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}
