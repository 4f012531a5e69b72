//! Extensions of the host: tables beyond version 1, asked for through [`crate::KdHost::get_extension`].
//!
//! An id stands for one layout and one meaning for good, so that a change gets a new number. A host
//! may lack any of them and answers null; a plugin then does the work itself. These structs cannot be
//! reached from the root module: loading does not compare them, the id and `struct_size` do.

use core::ffi::c_void;

use crate::constants::KdStatus;

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
