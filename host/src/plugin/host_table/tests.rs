use std::io::Write;
use std::sync::Arc;

use super::*;

/// Collects what a subscriber writes.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn context() -> HostContext {
    HostContext::new("p", "m", &["declared".to_owned()])
}

#[test]
fn memory_of_a_call_is_zeroed_aligned_and_bounded() {
    let context = context();
    context.begin("backward", false);
    let mut pointer = std::ptr::null_mut();
    let ask = |lifetime, bytes, align, out: *mut *mut c_void| {
        // SAFETY: the context is alive and `out` is null or a place for a pointer.
        unsafe { alloc(context.as_pointer(), lifetime, bytes, align, out) }
    };
    assert_eq!(ask(KD_ALLOC_CALL, 100, 256, &raw mut pointer), KD_OK);
    assert!(pointer.cast::<u8>().is_aligned());
    assert_eq!(pointer as usize % 256, 0);
    // SAFETY: 100 bytes were just allocated there.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), 100) };
    assert!(bytes.iter().all(|b| *b == 0));
    assert_eq!(ask(KD_ALLOC_CALL, 0, 1, &raw mut pointer), KD_OK);
    assert!(!pointer.is_null());
    assert_eq!(ask(KD_ALLOC_CALL, 8, 3, &raw mut pointer), KD_E_INVALID_ARG);
    assert_eq!(ask(KD_ALLOC_CALL, u64::MAX, 8, &raw mut pointer), KD_E_OOM);
    assert_eq!(ask(7, 8, 8, &raw mut pointer), KD_E_INVALID_ARG);
    assert_eq!(
        ask(KD_ALLOC_CALL, 8, 8, std::ptr::null_mut()),
        KD_E_INVALID_ARG
    );
    // Saved memory belongs to a forward.
    assert_eq!(ask(KD_ALLOC_SAVED, 8, 8, &raw mut pointer), KD_E_STATE);
    assert!(context.end().saved.is_empty());
    assert_eq!(ask(KD_ALLOC_CALL, 8, 8, &raw mut pointer), KD_E_STATE);
}

#[test]
fn saved_memory_leaves_with_the_outcome() {
    let context = context();
    context.begin("forward", true);
    let mut pointer = std::ptr::null_mut();
    // SAFETY: the context is alive and `pointer` takes a pointer.
    let status = unsafe {
        alloc(
            context.as_pointer(),
            KD_ALLOC_SAVED,
            64,
            64,
            &raw mut pointer,
        )
    };
    assert_eq!(status, KD_OK);
    assert_eq!(context.end().saved.len(), 1);
}

#[test]
fn last_error_counts_and_text_is_repaired() {
    let context = context();
    context.begin("plan", false);
    let broken = [b'a', 0xff, b'b'];
    let message = KdStr {
        ptr: broken.as_ptr(),
        len: 3,
    };
    // SAFETY: the context and both strings are alive.
    unsafe {
        set_error(context.as_pointer(), 4, KdStr::new("first"), KdStr::EMPTY);
        set_error(context.as_pointer(), 4, message, KdStr::new("{}"));
    }
    let outcome = context.end();
    assert_eq!(outcome.message(), "a\u{fffd}b");
    assert_eq!(outcome.detail(), "{}");
    context.begin("plan", false);
    assert_eq!(context.end().message(), "the plugin gave no message");
}

#[test]
fn metrics_are_declared_and_the_last_value_stands() {
    let context = context();
    context.begin("forward", true);
    // SAFETY: the context and the strings are alive.
    unsafe {
        metric(context.as_pointer(), KdStr::new("declared"), 1.0);
        metric(context.as_pointer(), KdStr::new("other"), 2.0);
        metric(context.as_pointer(), KdStr::new("declared"), 3.0);
    }
    context.end();
    assert_eq!(context.take_metrics(), [("declared".to_owned(), 3.0)]);
    assert!(context.take_metrics().is_empty());
}

#[test]
fn another_thread_is_refused() {
    let context = context();
    context.begin("forward", true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: the context and the string are alive.
            unsafe { metric(context.as_pointer(), KdStr::new("declared"), 1.0) };
        });
    });
    context.end();
    assert!(context.take_metrics().is_empty());
}

#[test]
fn null_context_and_unknown_extension_are_harmless() {
    // SAFETY: a null context is refused before it is read.
    unsafe {
        log(
            std::ptr::null_mut(),
            3,
            KdStr::EMPTY,
            KdStr::EMPTY,
            KdStr::EMPTY,
        );
        assert!(get_extension(std::ptr::null_mut(), KdStr::new("no.such/1")).is_null());
    }
}

#[test]
fn messages_reach_the_hosts_log_at_their_level() {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::INFO)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let context = context();
    context.begin("forward", true);
    let pointer = context.as_pointer();
    tracing::subscriber::with_default(subscriber, || {
        let target = KdStr::new("m::inner");
        // SAFETY: the context and the strings are alive.
        unsafe {
            assert_eq!(log_enabled(pointer, KD_LOG_INFO, target), 1);
            assert_eq!(log_enabled(pointer, KD_LOG_DEBUG, target), 0);
            let fields = KdStr::new(r#"{"k":1}"#);
            log(
                pointer,
                KD_LOG_WARN,
                target,
                KdStr::new("look here"),
                fields,
            );
            log(
                pointer,
                KD_LOG_DEBUG,
                target,
                KdStr::new("too quiet"),
                KdStr::EMPTY,
            );
        }
        context.end();
        // SAFETY: as above; the call is over, so the message is refused and that is said.
        unsafe {
            log(
                pointer,
                KD_LOG_ERROR,
                target,
                KdStr::new("too late"),
                KdStr::EMPTY,
            )
        };
    });
    let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for part in [
        "WARN",
        "kdhost::plugin",
        "look here",
        "plugin=\"p\"",
        "method=\"m\"",
        "module=\"m::inner\"",
        r#"fields="{\"k\":1}""#,
    ] {
        assert!(lines[0].contains(part), "{text}\nlacks {part}");
    }
    assert!(lines[1].contains("host function `log` refused"), "{text}");
}
