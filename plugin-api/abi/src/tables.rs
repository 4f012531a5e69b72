//! The function tables: what the host offers, what a method implements, what a plugin is.
//!
//! Every function pointer is nullable in the type so that the host can refuse a null one by name;
//! none may be null. No function may unwind. An instance is never entered concurrently, but may
//! move between threads between calls.

use abi_stable::StableAbi;
use core::ffi::c_void;

use crate::constants::KdStatus;
use crate::types::{
    KdBackward, KdCall, KdForward, KdInst, KdPlanSink, KdSaved, KdStr, KdTap, KdTensor,
};

/// Functions of the host; callable only from inside a call, on the calling thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct KdHost {
    /// Size of this struct.
    pub struct_size: u32,
    /// Minor ABI version of the host.
    pub abi_minor: u32,
    /// Non-zero if a message of this level and target would be shown.
    pub log_enabled:
        Option<unsafe extern "C" fn(host_ctx: *mut c_void, level: i32, target: KdStr) -> i32>,
    /// Writes a message into the host's log.
    pub log: Option<
        unsafe extern "C" fn(
            host_ctx: *mut c_void,
            level: i32,
            target: KdStr,
            message: KdStr,
            fields_json: KdStr,
        ),
    >,
    /// Says why the entry is about to return a non-zero status.
    pub set_error: Option<
        unsafe extern "C" fn(
            host_ctx: *mut c_void,
            status: KdStatus,
            message: KdStr,
            detail_json: KdStr,
        ),
    >,
    /// Scratch memory owned by the host; `lifetime` is `KD_ALLOC_CALL` or `KD_ALLOC_SAVED`.
    pub alloc: Option<
        unsafe extern "C" fn(
            host_ctx: *mut c_void,
            lifetime: u32,
            bytes: u64,
            align: u64,
            out: *mut *mut c_void,
        ) -> KdStatus,
    >,
    /// Reports a statistic of this step.
    pub metric: Option<unsafe extern "C" fn(host_ctx: *mut c_void, name: KdStr, value: f64)>,
    /// A host extension by id, or null.
    pub get_extension:
        Option<unsafe extern "C" fn(host_ctx: *mut c_void, id: KdStr) -> *const c_void>,
}

/// One distillation method: a differentiable function over borrowed tensors.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct KdMethod {
    /// Size of this struct.
    pub struct_size: u32,
    /// Zero.
    pub flags: u32,
    /// The id given in the manifest.
    pub id: KdStr,
    /// Makes an instance from canonical JSON, already checked against the manifest's schema and
    /// filled with its defaults.
    pub create: Option<
        unsafe extern "C" fn(
            call: *const KdCall,
            config_json: KdStr,
            out: *mut *mut KdInst,
        ) -> KdStatus,
    >,
    /// Frees an instance. Also called on a poisoned one.
    pub destroy: Option<unsafe extern "C" fn(inst: *mut KdInst)>,
    /// Declares parameters, buffers, losses, maps and schedule for the bound taps.
    pub plan: Option<
        unsafe extern "C" fn(
            inst: *mut KdInst,
            call: *const KdCall,
            taps: *const KdTap,
            n_taps: u32,
            sink: *const KdPlanSink,
        ) -> KdStatus,
    >,
    /// Writes initial values into parameters and buffers; a function of configuration, taps and
    /// `call.seed`. Not called on resume.
    pub init_state: Option<
        unsafe extern "C" fn(
            inst: *mut KdInst,
            call: *const KdCall,
            params: *mut KdTensor,
            n_params: u32,
            buffers: *mut KdTensor,
            n_buffers: u32,
        ) -> KdStatus,
    >,
    /// Computes losses and maps.
    pub forward: Option<
        unsafe extern "C" fn(
            inst: *mut KdInst,
            call: *const KdCall,
            args: *const KdForward,
            saved: *mut *mut KdSaved,
        ) -> KdStatus,
    >,
    /// Computes the gradients of `sum(d_losses * losses) + sum(d_maps * maps)`.
    pub backward: Option<
        unsafe extern "C" fn(
            inst: *mut KdInst,
            call: *const KdCall,
            args: *const KdBackward,
            saved: *mut KdSaved,
        ) -> KdStatus,
    >,
    /// Frees what a forward saved. May run on another thread.
    pub release_saved: Option<unsafe extern "C" fn(inst: *mut KdInst, saved: *mut KdSaved)>,
    /// A method extension by id, or null.
    pub get_extension: Option<unsafe extern "C" fn(inst: *mut KdInst, id: KdStr) -> *const c_void>,
}

/// A plugin: its version and its methods.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct KdPlugin {
    /// Size of this struct.
    pub struct_size: u32,
    /// [`crate::KD_ABI_MAJOR`] the plugin was built with.
    pub abi_major: u32,
    /// [`crate::KD_ABI_MINOR`] the plugin was built with.
    pub abi_minor: u32,
    /// Length of `methods`.
    pub n_methods: u32,
    /// The methods, in the manifest's order.
    pub methods: *const *const KdMethod,
    /// Called once after loading.
    pub init: Option<unsafe extern "C" fn(host: *const KdHost, host_ctx: *mut c_void) -> KdStatus>,
    /// Called at process end, best effort.
    pub deinit: Option<unsafe extern "C" fn()>,
}

// SAFETY: the tables are immutable data with pointers to immutable data and functions.
#[expect(unsafe_code, reason = "static tables are shared between threads")]
unsafe impl Sync for KdPlugin {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "static tables are shared between threads")]
unsafe impl Sync for KdMethod {}

const _: () = assert!(core::mem::size_of::<KdHost>() == 56);
const _: () = assert!(core::mem::size_of::<KdMethod>() == 88);
const _: () = assert!(core::mem::size_of::<KdPlugin>() == 40);
