//! A method's program (`kd.graph/1`).

use std::ffi::c_void;

use kd_abi::{
    KD_E_INTERNAL, KD_E_INVALID_ARG, KD_E_OOM, KD_EXT_GRAPH, KD_GRAPH_ONLY, KD_OK,
    KD_TRACE_FORWARD, KD_TRACE_INIT, KdDType, KdDevice, KdDlTensor, KdGraphTable, KdProgramSink,
    KdStatus, KdStr, KdTensor, KdTrace,
};

use super::{CallInfo, Method};
use crate::plugin::error::PluginCallError;

/// Longest program that is taken.
const MAX_PROGRAM_BYTES: u64 = 1 << 30;
const ENTRY: &str = "trace";

/// What a method says of its programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramDoor {
    /// What they are written in.
    pub format: String,
    /// The method cannot compute by itself.
    pub only: bool,
}

/// Which program is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProgramKind {
    /// Forward, then backward.
    Training,
    /// Forward alone.
    Forward,
    /// Initial values of parameters and buffers.
    Init,
}

/// What a program is wanted for: extents, in the order of plan and manifest.
#[derive(Clone, Debug)]
pub struct TraceRequest<'a> {
    /// Which.
    pub kind: ProgramKind,
    /// Of the taps; none for initial values.
    pub taps: &'a [Vec<usize>],
    /// Of the targets, and whether they are integers; none for initial values.
    pub targets: &'a [(Vec<usize>, bool)],
    /// Whether the gradient of a loss can be other than 0; none for initial values.
    pub loss_wanted: &'a [bool],
    /// Whether integers have 64 bits, else 32.
    pub long_ints: bool,
    /// Bytes of a truth value on the device; 0: its native form.
    pub bool_bytes: u32,
}

/// Extents that a tensor's view points to.
struct Bare {
    shape: Vec<i64>,
    dtype: KdDType,
}

impl Bare {
    fn new(shape: &[usize], dtype: KdDType) -> Self {
        Bare {
            shape: shape.iter().map(|&extent| extent as i64).collect(),
            dtype,
        }
    }

    fn view(&self) -> KdTensor {
        KdTensor {
            dl: KdDlTensor {
                data: std::ptr::null_mut(),
                device: KdDevice::CPU,
                ndim: self.shape.len() as i32,
                dtype: self.dtype,
                shape: self.shape.as_ptr(),
                // Without memory no stride is ever used; extents are readable numbers.
                strides: self.shape.as_ptr(),
                byte_offset: 0,
            },
            span_bytes: 0,
            flags: kd_abi::KD_T_READ_ONLY,
            slot: 0,
        }
    }
}

fn views(bare: &[Bare]) -> Vec<KdTensor> {
    bare.iter().map(Bare::view).collect()
}

impl Method {
    /// What the planned method says of its programs; none: it has none.
    #[must_use]
    pub fn program_door(&self) -> Option<ProgramDoor> {
        let table = self.graph_table()?;
        // SAFETY: text of a static table.
        let format = unsafe { table.format.as_bytes() };
        Some(ProgramDoor {
            format: String::from_utf8_lossy(format).into_owned(),
            only: table.flags & KD_GRAPH_ONLY != 0,
        })
    }

    fn graph_table(&self) -> Option<&'static KdGraphTable> {
        let get = self.instance.table.get_extension.expect("checked at load");
        let state = self.instance.lock();
        // SAFETY: an instance that is alive; the lock keeps others out.
        let table = unsafe { get(state.pointer, KdStr::new(KD_EXT_GRAPH)) };
        if table.is_null() || !table.cast::<KdGraphTable>().is_aligned() {
            return None;
        }
        // SAFETY: under this id a method gives null or a static table, whose size comes first.
        unsafe {
            let size = table.cast::<u32>().read();
            (size as usize >= size_of::<KdGraphTable>()).then(|| &*table.cast::<KdGraphTable>())
        }
    }

    /// The bytes of the method's program for these extents; nothing in them was looked at.
    ///
    /// # Errors
    /// The plugin's refusal, or that it has no programs.
    pub fn trace(
        &mut self,
        call: &CallInfo,
        request: &TraceRequest<'_>,
    ) -> Result<Vec<u8>, PluginCallError> {
        let plan = self.require_plan(ENTRY)?;
        let instance = &self.instance;
        let trace = self.graph_table().and_then(|table| table.trace);
        let Some(trace) = trace else {
            return Err(instance.misuse(ENTRY, "the method has no program".to_owned()));
        };
        let f32s = |shape: &Vec<usize>| Bare::new(shape, KdDType::F32);
        let target = |(shape, is_int): &(Vec<usize>, bool)| {
            Bare::new(shape, if *is_int { KdDType::I64 } else { KdDType::F32 })
        };
        let taps: Vec<Bare> = request.taps.iter().map(f32s).collect();
        let params: Vec<Bare> = plan.params.iter().map(|spec| f32s(&spec.shape)).collect();
        let buffers: Vec<Bare> = plan.buffers.iter().map(|spec| f32s(&spec.shape)).collect();
        let targets: Vec<Bare> = request.targets.iter().map(target).collect();
        let wanted: Vec<u8> = request.loss_wanted.iter().map(|&w| u8::from(w)).collect();
        let views = [&taps, &params, &buffers, &targets].map(|list| views(list));
        let [taps, params, buffers, targets] = &views;
        let args = KdTrace {
            struct_size: size_of::<KdTrace>() as u32,
            flags: match request.kind {
                ProgramKind::Training => 0,
                ProgramKind::Forward => KD_TRACE_FORWARD,
                ProgramKind::Init => KD_TRACE_INIT,
            },
            n_taps: taps.len() as u32,
            n_params: params.len() as u32,
            n_buffers: buffers.len() as u32,
            n_targets: targets.len() as u32,
            n_losses: wanted.len() as u32,
            int_dtype: if request.long_ints {
                KdDType::I64
            } else {
                KdDType::I32
            },
            bool_bytes: request.bool_bytes,
            reserved: 0,
            taps: taps.as_ptr(),
            params: params.as_ptr(),
            buffers: buffers.as_ptr(),
            targets: targets.as_ptr(),
            loss_wanted: wanted.as_ptr(),
        };
        let mut bytes: Option<Vec<u8>> = None;
        let sink = KdProgramSink {
            struct_size: size_of::<KdProgramSink>() as u32,
            reserved: 0,
            sink: (&raw mut bytes).cast(),
            program: Some(take_program),
        };
        instance.enter(ENTRY, call, false, |inst, kd_call| {
            // SAFETY: all arguments live until the call returns; a sink takes bytes during it alone.
            unsafe { trace(inst, kd_call, &raw const args, &raw const sink) }
        })?;
        bytes.ok_or_else(|| {
            let problem = "KD_OK without a program".to_owned();
            instance.status_error(ENTRY, KD_E_INTERNAL, problem, String::new())
        })
    }
}

unsafe extern "C" fn take_program(sink: *mut c_void, bytes: *const u8, len: u64) -> KdStatus {
    if sink.is_null() || bytes.is_null() {
        return KD_E_INVALID_ARG;
    }
    if len > MAX_PROGRAM_BYTES {
        return KD_E_OOM;
    }
    // SAFETY: the place of `trace`, which waits for the plugin to return.
    let place = unsafe { &mut *sink.cast::<Option<Vec<u8>>>() };
    // SAFETY: the plugin's promise.
    *place = Some(unsafe { std::slice::from_raw_parts(bytes, len as usize) }.to_vec());
    KD_OK
}
