//! A host that records what it is told.
#![expect(unsafe_code, reason = "implements the host's side of the boundary")]

use std::ffi::c_void;

use kd_abi::{
    KD_ABI_MINOR, KD_CALL_DETERMINISTIC, KD_CALL_TRAINING, KD_E_UNSUPPORTED, KD_EXT_CONV,
    KD_EXT_TASK, KD_OK, KdCall, KdDevice, KdHost, KdPlanSink, KdSpec, KdStatus, KdStr, KdTask,
};

use super::conv;

/// What the plugin told the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostLog {
    /// Level, target, message, fields as JSON.
    pub messages: Vec<(i32, String, String, String)>,
    /// Name and value.
    pub metrics: Vec<(String, f64)>,
    /// Status, message, detail as JSON.
    pub errors: Vec<(KdStatus, String, String)>,
}

/// The host behind `host_ctx`.
#[derive(Debug, Default)]
pub(crate) struct FakeHost {
    pub(crate) log: HostLog,
    /// What `kd.task/1` gives; none: the host does not offer it.
    pub(crate) task: Option<KdTask>,
    /// Answers a question for `kd.conv/1`.
    pub(crate) offers_convolution: bool,
    /// How often its forward and its backward ran.
    pub(crate) convolutions: [usize; 2],
}

/// What the plan declared.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Declared {
    pub(crate) params: Vec<(String, Vec<i64>, String)>,
    pub(crate) buffers: Vec<(String, Vec<i64>)>,
    pub(crate) losses: Vec<(String, f64)>,
    pub(crate) maps: Vec<(String, Vec<i64>, u32)>,
    pub(crate) tap_uses: Vec<(u32, u32)>,
    pub(crate) target_uses: Vec<(u32, u32)>,
    pub(crate) schedule: Option<String>,
}

pub(crate) static HOST: KdHost = KdHost {
    struct_size: size_of::<KdHost>() as u32,
    abi_minor: KD_ABI_MINOR,
    log_enabled: Some(log_enabled),
    log: Some(log),
    set_error: Some(set_error),
    alloc: Some(alloc),
    metric: Some(metric),
    get_extension: Some(get_extension),
};

/// A call of step 0 from `host`.
pub(crate) fn call(host: *mut FakeHost, seed: u64, cancel: *const u32) -> KdCall {
    KdCall {
        struct_size: size_of::<KdCall>() as u32,
        flags: KD_CALL_TRAINING | KD_CALL_DETERMINISTIC,
        host: &raw const HOST,
        host_ctx: host.cast(),
        cancel,
        stage: 0,
        phase: 0,
        step: 0,
        phase_step: 0,
        phase_steps: 100,
        total_steps: 100,
        epoch: 0,
        seed,
        device: KdDevice::CPU,
        stream: 0,
    }
}

/// A sink that writes into `declared`.
pub(crate) fn sink(declared: *mut Declared) -> KdPlanSink {
    KdPlanSink {
        struct_size: size_of::<KdPlanSink>() as u32,
        reserved: 0,
        sink: declared.cast(),
        param: Some(param),
        buffer: Some(buffer),
        loss: Some(loss),
        map: Some(map),
        tap_use: Some(tap_use),
        schedule: Some(schedule),
        target_use: Some(target_use),
    }
}

fn text(raw: KdStr) -> String {
    // SAFETY: borrowed for the call by contract.
    String::from_utf8_lossy(unsafe { raw.as_bytes() }).into_owned()
}

pub(super) fn host<'a>(ctx: *mut c_void) -> &'a mut FakeHost {
    // SAFETY: the context of `call`, used by one thread at a time.
    unsafe { &mut *ctx.cast::<FakeHost>() }
}

fn declared<'a>(sink: *mut c_void) -> &'a mut Declared {
    // SAFETY: the context of `sink`, used by one thread at a time.
    unsafe { &mut *sink.cast::<Declared>() }
}

unsafe extern "C" fn log_enabled(_: *mut c_void, _: i32, _: KdStr) -> i32 {
    1
}

unsafe extern "C" fn log(
    ctx: *mut c_void,
    level: i32,
    target: KdStr,
    message: KdStr,
    fields: KdStr,
) {
    host(ctx)
        .log
        .messages
        .push((level, text(target), text(message), text(fields)));
}

unsafe extern "C" fn set_error(ctx: *mut c_void, status: KdStatus, message: KdStr, detail: KdStr) {
    let error = (status, text(message), text(detail));
    host(ctx).log.errors.push(error);
}

unsafe extern "C" fn alloc(
    _: *mut c_void,
    _: u32,
    _: u64,
    _: u64,
    _: *mut *mut c_void,
) -> KdStatus {
    KD_E_UNSUPPORTED
}

unsafe extern "C" fn metric(ctx: *mut c_void, name: KdStr, value: f64) {
    host(ctx).log.metrics.push((text(name), value));
}

unsafe extern "C" fn get_extension(ctx: *mut c_void, id: KdStr) -> *const c_void {
    let host = host(ctx);
    match (text(id).as_str(), &host.task) {
        (KD_EXT_CONV, _) if host.offers_convolution => (&raw const conv::TABLE).cast(),
        (KD_EXT_TASK, Some(task)) => std::ptr::from_ref(task).cast(),
        _ => std::ptr::null(),
    }
}

/// Name, extents and attributes of a spec.
///
/// # Safety
/// `spec` must be the plugin's, valid for the call.
unsafe fn read(spec: *const KdSpec) -> (String, Vec<i64>, String) {
    // SAFETY: the caller's promise.
    let spec = unsafe { &*spec };
    let shape = if spec.ndim == 0 {
        Vec::new()
    } else {
        // SAFETY: `ndim` extents by contract.
        unsafe { std::slice::from_raw_parts(spec.shape, spec.ndim as usize) }.to_vec()
    };
    (text(spec.name), shape, text(spec.attrs_json))
}

unsafe extern "C" fn param(sink: *mut c_void, spec: *const KdSpec, slot: *mut u32) -> KdStatus {
    let list = &mut declared(sink).params;
    // SAFETY: the plugin's promise on both pointers.
    unsafe {
        slot.write(list.len() as u32);
        list.push(read(spec));
    }
    KD_OK
}

unsafe extern "C" fn buffer(sink: *mut c_void, spec: *const KdSpec, slot: *mut u32) -> KdStatus {
    let list = &mut declared(sink).buffers;
    // SAFETY: the plugin's promise on both pointers.
    unsafe {
        slot.write(list.len() as u32);
        let (name, shape, _) = read(spec);
        list.push((name, shape));
    }
    KD_OK
}

unsafe extern "C" fn loss(sink: *mut c_void, name: KdStr, weight: f64, slot: *mut u32) -> KdStatus {
    let list = &mut declared(sink).losses;
    // SAFETY: the plugin's promise on the pointer.
    unsafe { slot.write(list.len() as u32) };
    list.push((text(name), weight));
    KD_OK
}

unsafe extern "C" fn map(
    sink: *mut c_void,
    spec: *const KdSpec,
    replaces: u32,
    slot: *mut u32,
) -> KdStatus {
    let list = &mut declared(sink).maps;
    // SAFETY: the plugin's promise on both pointers.
    unsafe {
        slot.write(list.len() as u32);
        let (name, shape, _) = read(spec);
        list.push((name, shape, replaces));
    }
    KD_OK
}

unsafe extern "C" fn tap_use(sink: *mut c_void, tap: u32, bits: u32) -> KdStatus {
    declared(sink).tap_uses.push((tap, bits));
    KD_OK
}

unsafe extern "C" fn target_use(sink: *mut c_void, target: u32, bits: u32) -> KdStatus {
    declared(sink).target_uses.push((target, bits));
    KD_OK
}

unsafe extern "C" fn schedule(sink: *mut c_void, json: KdStr) -> KdStatus {
    declared(sink).schedule = Some(text(json));
    KD_OK
}
