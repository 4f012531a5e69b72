//! What a forward kept for its backward.

use std::marker::PhantomData;
use std::sync::Arc;

use kd_abi::KdSaved;

use super::instance::Instance;
use crate::plugin::error::PluginCallError;
use crate::plugin::host_table::Scratch;

/// State between a forward and its backward, released exactly once: on drop.
///
/// Borrows what forward was given, because the plugin may have kept views of it; keeps the
/// instance alive, because release must come before destroy. Several may be outstanding.
#[derive(Debug)]
pub struct Saved<'a> {
    instance: Arc<Instance>,
    pointer: *mut KdSaved,
    // Memory the host lent for as long as this state lives; freed after the release.
    scratch: Vec<Scratch>,
    used: bool,
    inputs: PhantomData<&'a [f32]>,
}

// SAFETY: the ABI allows release on another thread, and the instance's lock serialises it with
// other calls.
unsafe impl Send for Saved<'_> {}

impl Saved<'_> {
    pub(super) fn new(
        instance: Arc<Instance>,
        pointer: *mut KdSaved,
        scratch: Vec<Scratch>,
    ) -> Self {
        Saved {
            instance,
            pointer,
            // Without a saved state there is nothing that could still use the memory.
            scratch: if pointer.is_null() {
                Vec::new()
            } else {
                scratch
            },
            used: false,
            inputs: PhantomData,
        }
    }

    /// The pointer for the one backward that `instance` may run on it.
    pub(super) fn take_for_backward(
        &mut self,
        instance: &Arc<Instance>,
    ) -> Result<*mut KdSaved, PluginCallError> {
        if !Arc::ptr_eq(&self.instance, instance) {
            let problem = "the saved state belongs to another instance".to_owned();
            return Err(instance.misuse("backward", problem));
        }
        if std::mem::replace(&mut self.used, true) {
            let problem = "the saved state has had its backward".to_owned();
            return Err(instance.misuse("backward", problem));
        }
        Ok(self.pointer)
    }
}

impl Drop for Saved<'_> {
    fn drop(&mut self) {
        if !self.pointer.is_null() {
            let release = self
                .instance
                .table
                .release_saved
                .expect("checked when the library was loaded");
            let state = self.instance.lock();
            self.instance.context.begin("release_saved", false);
            // SAFETY: returned by forward of this instance, which is alive, and released once.
            unsafe { release(state.pointer, self.pointer) };
            self.instance.context.end();
        }
        self.scratch.clear();
    }
}
