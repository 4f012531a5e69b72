//! Numbers of the boundary: version, status codes, flags, symbolic extents.

/// Major version of the ABI. Another major is refused before any code of the plugin runs.
pub const KD_ABI_MAJOR: u32 = 1;
/// Minor version of the ABI. A plugin may be older than the host, never newer.
pub const KD_ABI_MINOR: u32 = 0;

/// What every entry returns: [`KD_OK`] or one of the `KD_E_*` codes.
pub type KdStatus = i32;
/// Success.
pub const KD_OK: KdStatus = 0;
/// An argument broke the contract of this header.
pub const KD_E_INVALID_ARG: KdStatus = 1;
/// Legal, but this plugin cannot do it.
pub const KD_E_UNSUPPORTED: KdStatus = 2;
/// The configuration was refused.
pub const KD_E_CONFIG: KdStatus = 3;
/// A tensor has a shape the method cannot use.
pub const KD_E_SHAPE: KdStatus = 4;
/// A tensor has a dtype the method cannot use.
pub const KD_E_DTYPE: KdStatus = 5;
/// A tensor lies on a device the method cannot use.
pub const KD_E_DEVICE: KdStatus = 6;
/// Out of memory.
pub const KD_E_OOM: KdStatus = 7;
/// The cancel flag was seen.
pub const KD_E_CANCELLED: KdStatus = 8;
/// A value is not finite, or a computation did not converge.
pub const KD_E_NUMERIC: KdStatus = 9;
/// Entry called out of order, or on a poisoned instance.
pub const KD_E_STATE: KdStatus = 10;
/// A fault inside the plugin.
pub const KD_E_INTERNAL: KdStatus = 11;
/// The plugin panicked; the instance is poisoned.
pub const KD_E_PANIC: KdStatus = 12;

/// Tensor flag: memory must not be written (same bit as DLPack).
pub const KD_T_READ_ONLY: u32 = 1 << 0;
/// Tensor flag: a staged copy, not the host's own storage (same bit as DLPack).
pub const KD_T_IS_COPIED: u32 = 1 << 1;
/// Output flag: add into it instead of overwriting.
pub const KD_T_ACCUMULATE: u32 = 1 << 16;
/// Output flag: the host has already zeroed it.
pub const KD_T_ZEROED: u32 = 1 << 17;

/// Call flag: a training step. Unset while the host checks or evaluates.
pub const KD_CALL_TRAINING: u32 = 1 << 0;
/// Call flag: a check (pre-flight, gradient check). Nothing of it reaches the run.
pub const KD_CALL_CHECK: u32 = 1 << 1;
/// Call flag: equal inputs and seed must give equal bits.
pub const KD_CALL_DETERMINISTIC: u32 = 1 << 2;
/// Call flag: in this phase the losses send no gradient into student taps. The host cuts it for a
/// method without maps. A method with maps keeps its losses off the student's taps itself: their
/// gradient through the maps is still wanted, and the host cannot tell the two apart.
pub const KD_CALL_DETACH_STUDENT: u32 = 1 << 3;

/// `tap_use` bit: the values of this tap are read.
pub const KD_USE_VALUE: u32 = 1 << 0;
/// `tap_use` bit: the method gives a gradient for this tap. Student taps alone.
pub const KD_USE_GRAD: u32 = 1 << 1;

/// Symbolic extent: batch.
pub const KD_DIM_N: i64 = -1;
/// Symbolic extent: height in cells, input height divided by the tap's stride and rounded up.
pub const KD_DIM_H: i64 = -2;
/// Symbolic extent: width in cells.
pub const KD_DIM_W: i64 = -3;
/// Symbolic extent: number of ground-truth objects in the batch; may be 0.
pub const KD_DIM_T: i64 = -4;

/// DLPack type code: signed integer.
pub const KD_DTYPE_INT: u8 = 0;
/// DLPack type code: unsigned integer.
pub const KD_DTYPE_UINT: u8 = 1;
/// DLPack type code: IEEE float.
pub const KD_DTYPE_FLOAT: u8 = 2;
/// DLPack type code: bfloat.
pub const KD_DTYPE_BFLOAT: u8 = 4;
/// DLPack type code: bool.
pub const KD_DTYPE_BOOL: u8 = 6;

/// DLPack device type: CPU.
pub const KD_DEVICE_CPU: i32 = 1;
/// DLPack device type: CUDA.
pub const KD_DEVICE_CUDA: i32 = 2;

/// `alloc` lifetime: until the called function returns.
pub const KD_ALLOC_CALL: u32 = 0;
/// `alloc` lifetime: until the saved state of this forward is released.
pub const KD_ALLOC_SAVED: u32 = 1;

/// Log levels of [`crate::KdHost::log`]: 1 error, 2 warn, 3 info, 4 debug, 5 trace.
pub const KD_LOG_ERROR: i32 = 1;
/// See [`KD_LOG_ERROR`].
pub const KD_LOG_WARN: i32 = 2;
/// See [`KD_LOG_ERROR`].
pub const KD_LOG_INFO: i32 = 3;
/// See [`KD_LOG_ERROR`].
pub const KD_LOG_DEBUG: i32 = 4;
/// See [`KD_LOG_ERROR`].
pub const KD_LOG_TRACE: i32 = 5;

/// Symbol of the C door: `const KdPlugin *kd_plugin_v1(void)`.
pub const KD_C_ENTRY: &str = "kd_plugin_v1";
