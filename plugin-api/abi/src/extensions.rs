//! Extensions: tables beyond version 1. Those of the host are asked for through
//! [`crate::KdHost::get_extension`], those of a method through [`crate::KdMethod::get_extension`].
//!
//! An id stands for one layout and one meaning for good, so that a change gets a new number. Either
//! side may lack any of them and answers null; the other then does without. These structs cannot be
//! reached from the root module: loading does not compare them, the id and `struct_size` do.

use core::ffi::c_void;

use crate::constants::KdStatus;
use crate::types::{KdCall, KdDType, KdInst, KdStr, KdTensor};

/// Id of the host's convolution, a [`KdConvTable`].
pub const KD_EXT_CONV: &str = "kd.conv/1";
/// Flag of [`KdConv`]: negative results become 0; the gradient at 0 is 0.
pub const KD_CONV_RELU: u32 = 1 << 0;

/// Extents of the maps of one level.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdMapSize {
    /// Images.
    pub n: u64,
    /// Rows.
    pub h: u64,
    /// Columns.
    pub w: u64,
}

/// A convolution of stride 1 that keeps the size of its maps ("same" padding with zeros).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KdConv {
    /// Size of this struct.
    pub struct_size: u32,
    /// Length of `sizes`.
    pub n_sizes: u32,
    /// The levels, in the order in which their cells lie.
    pub sizes: *const KdMapSize,
    /// Channels of the input.
    pub c_in: u32,
    /// Channels of the output.
    pub c_out: u32,
    /// Height and width of the kernel; odd.
    pub kernel: u32,
    /// `KD_CONV_*` bits.
    pub flags: u32,
}

/// The host's convolution. Static; its functions may be called only inside a call, on its thread,
/// with the `host_ctx` of that call.
///
/// All memory is f32, row-major and contiguous, and borrowed until the function returns. Maps are
/// `[cells, channels]`, their cells level by level, image by image, row by row; weights are
/// `[c_out, c_in, kernel, kernel]`. Every element of an output is overwritten; outputs overlap
/// neither inputs nor each other. What breaks this is refused with
/// [`KD_E_INVALID_ARG`](crate::KD_E_INVALID_ARG), a call out of place with
/// [`KD_E_STATE`](crate::KD_E_STATE); the host's log says why, and no output was written.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KdConvTable {
    /// Size of this struct.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// `y = x ⋆ weight + bias`, then ReLU if the flags say so.
    pub forward: Option<
        unsafe extern "C" fn(
            host_ctx: *mut c_void,
            conv: *const KdConv,
            x: *const f32,
            weight: *const f32,
            bias: *const f32,
            y: *mut f32,
        ) -> KdStatus,
    >,
    /// The gradients of `sum(dy * y)`; null where none is wanted. `y` is what forward wrote: read
    /// with [`KD_CONV_RELU`] alone, else it may be null.
    pub backward: Option<
        unsafe extern "C" fn(
            host_ctx: *mut c_void,
            conv: *const KdConv,
            x: *const f32,
            weight: *const f32,
            y: *const f32,
            dy: *const f32,
            dx: *mut f32,
            dweight: *mut f32,
            dbias: *mut f32,
        ) -> KdStatus,
    >,
}

const _: () = assert!(core::mem::size_of::<KdMapSize>() == 24);
const _: () = assert!(core::mem::size_of::<KdConv>() == 32);
const _: () = assert!(core::mem::size_of::<KdConvTable>() == 24);

/// Id of what the models are trained for, a [`KdTask`]; valid until the entry returns, from `plan` on.
pub const KD_EXT_TASK: &str = "kd.task/1";

/// Facts of the task that hold for the whole run.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdTask {
    /// Size of this struct.
    pub struct_size: u32,
    /// Classes of the data set, background excluded; labels are below it.
    pub num_classes: u32,
}

const _: () = assert!(core::mem::size_of::<KdTask>() == 8);

/// Id of a method's program, a [`KdGraphTable`]: the method as data, for the host to execute on its own
/// device. Asked of an instance that has planned; static.
pub const KD_EXT_GRAPH: &str = "kd.graph/1";
/// Flag of [`KdGraphTable`]: the plugin cannot compute by itself; `init_state`, `forward` and `backward`
/// return [`KD_E_UNSUPPORTED`](crate::KD_E_UNSUPPORTED).
pub const KD_GRAPH_ONLY: u32 = 1 << 0;
/// Flag of [`KdTrace`]: no second part is wanted.
pub const KD_TRACE_FORWARD: u32 = 1 << 0;
/// Flag of [`KdTrace`]: instead of forward and backward, a program that makes the initial values of
/// parameters and buffers, as `init_state` would. Taps, targets and losses are empty then.
pub const KD_TRACE_INIT: u32 = 1 << 1;

/// A method's way to give its program.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KdGraphTable {
    /// Size of this struct.
    pub struct_size: u32,
    /// `KD_GRAPH_*` bits.
    pub flags: u32,
    /// What the programs are written in, such as `burn-ir 0.22.1`. A host that reads another format
    /// calls nothing here.
    pub format: KdStr,
    /// Hands the program for these shapes to the sink, once.
    pub trace: Option<
        unsafe extern "C" fn(
            inst: *mut KdInst,
            call: *const KdCall,
            trace: *const KdTrace,
            sink: *const KdProgramSink,
        ) -> KdStatus,
    >,
}

/// What a program is wanted for. The tensors have shapes and types and no memory: `data` is null
/// whatever their size.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KdTrace {
    /// Size of this struct.
    pub struct_size: u32,
    /// `KD_TRACE_*` bits.
    pub flags: u32,
    /// Length of `taps`.
    pub n_taps: u32,
    /// Length of `params`.
    pub n_params: u32,
    /// Length of `buffers`.
    pub n_buffers: u32,
    /// Length of `targets`.
    pub n_targets: u32,
    /// Length of `loss_wanted`.
    pub n_losses: u32,
    /// Type of integers that the program makes by itself, as the host's device prefers it.
    pub int_dtype: KdDType,
    /// Bytes in which the host's device keeps a truth value: 0 for its native form, 1 or 4.
    pub bool_bytes: u32,
    /// Zero.
    pub reserved: u32,
    /// Bound taps.
    pub taps: *const KdTensor,
    /// Learned parameters.
    pub params: *const KdTensor,
    /// Buffers.
    pub buffers: *const KdTensor,
    /// Targets.
    pub targets: *const KdTensor,
    /// For each loss, 0 if its gradient will be 0: it is computed and not differentiated.
    pub loss_wanted: *const u8,
}

/// Takes a program.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KdProgramSink {
    /// Size of this struct.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Handed back.
    pub sink: *mut c_void,
    /// Copies the bytes of a program.
    pub program:
        Option<unsafe extern "C" fn(sink: *mut c_void, bytes: *const u8, len: u64) -> KdStatus>,
}

// SAFETY: immutable data with pointers to immutable data and functions.
#[expect(unsafe_code, reason = "static tables are shared between threads")]
unsafe impl Sync for KdGraphTable {}

const _: () = assert!(core::mem::size_of::<KdGraphTable>() == 32);
const _: () = assert!(core::mem::size_of::<KdTrace>() == 80);
const _: () = assert!(core::mem::size_of::<KdProgramSink>() == 24);
