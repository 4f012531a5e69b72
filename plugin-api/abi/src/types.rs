//! What crosses the boundary: strings, tensors, specs, the two argument blocks.
//!
//! All pointers are borrowed for one call. Sizes and offsets are asserted at the end of the file
//! and compared with the C header by a test.

use abi_stable::StableAbi;
use core::ffi::c_void;

use crate::constants::KdStatus;
use crate::tables::KdHost;

/// Borrowed UTF-8, not NUL-terminated. `ptr` may be null when `len` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct KdStr {
    /// First byte.
    pub ptr: *const u8,
    /// Length in bytes.
    pub len: u64,
}

/// Element type; same layout as DLPack's `DLDataType`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, StableAbi)]
pub struct KdDType {
    /// One of the `KD_DTYPE_*` codes.
    pub code: u8,
    /// Bits of one element.
    pub bits: u8,
    /// Always 1.
    pub lanes: u16,
}

/// Where memory lies; same layout as DLPack's `DLDevice`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, StableAbi)]
pub struct KdDevice {
    /// One of the `KD_DEVICE_*` types.
    pub kind: i32,
    /// Index of the device.
    pub id: i32,
}

/// Byte for byte a `DLTensor` of DLPack 1.x; `strides` is never null when `ndim > 0`.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct KdDlTensor {
    /// Storage; null for an output that is not wanted and for tensors without elements.
    pub data: *mut c_void,
    /// Where `data` lies.
    pub device: KdDevice,
    /// Number of extents.
    pub ndim: i32,
    /// Element type.
    pub dtype: KdDType,
    /// `ndim` extents, in elements.
    pub shape: *const i64,
    /// `ndim` strides, in elements.
    pub strides: *const i64,
    /// Bytes from `data` to the first element.
    pub byte_offset: u64,
}

/// A tensor borrowed for one call.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct KdTensor {
    /// The DLPack view.
    pub dl: KdDlTensor,
    /// Bytes reachable from `data + byte_offset`.
    pub span_bytes: u64,
    /// `KD_T_*` bits.
    pub flags: u32,
    /// Index in the plan, for messages.
    pub slot: u32,
}

/// Plugin-owned instance, opaque to the host.
#[repr(C)]
#[derive(StableAbi)]
pub struct KdInst {
    opaque: [u8; 1],
}

/// Plugin-owned state between a forward and its backward, opaque to the host.
#[repr(C)]
#[derive(StableAbi)]
pub struct KdSaved {
    opaque: [u8; 1],
}

/// Where in the run a call happens. Host-owned; valid until the callee returns.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct KdCall {
    /// Size of this struct.
    pub struct_size: u32,
    /// `KD_CALL_*` bits.
    pub flags: u32,
    /// Functions of the host.
    pub host: *const KdHost,
    /// Handed back to every function of `host`.
    pub host_ctx: *mut c_void,
    /// Read with a relaxed atomic load; non-zero asks the callee to return `KD_E_CANCELLED`.
    pub cancel: *const u32,
    /// Index of the stage in the schedule.
    pub stage: u32,
    /// Index of the phase inside the stage.
    pub phase: u32,
    /// Optimizer steps done in this run; in a phase of the method alone, in the phase.
    pub step: u64,
    /// Steps done in this phase.
    pub phase_step: u64,
    /// Steps this phase will have.
    pub phase_steps: u64,
    /// Steps this run will have; in a phase of the method alone, the phase.
    pub total_steps: u64,
    /// Epochs completed, of the run or of a phase of the method alone.
    pub epoch: u64,
    /// The only permitted source of randomness: in training another one for each micro-batch, the same again
    /// after resume; of initial values and outside training the run's own.
    pub seed: u64,
    /// Device of every tensor of this call.
    pub device: KdDevice,
    /// `CUstream`; 0 on CPU.
    pub stream: u64,
}

/// A named tensor that the plan declares.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct KdSpec {
    /// Unique in its list.
    pub name: KdStr,
    /// Element type.
    pub dtype: KdDType,
    /// Number of extents.
    pub ndim: i32,
    /// `ndim` extents; negative ones are the symbolic `KD_DIM_*`.
    pub shape: *const i64,
    /// Further facts as a JSON object; empty for none.
    pub attrs_json: KdStr,
}

/// A tap the host has bound: one named tensor of one model.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct KdTap {
    /// `neck.p3`, `backbone.c4`, `head.cls_logits.p3`, …
    pub name: KdStr,
    /// `student`, `teacher`, or the name of a further teacher.
    pub role: KdStr,
    /// Element type.
    pub dtype: KdDType,
    /// Number of extents.
    pub ndim: i32,
    /// `ndim` extents; that of the batch is symbolic. Height and width, in cells, are numbers where
    /// every training image of the run has one size (padding included), and all values of the tap
    /// in training then have them; elsewhere they are symbolic.
    pub shape: *const i64,
    /// Input pixels per cell; 0 where the tap has no grid.
    pub stride: u32,
    /// `KD_USE_*` bits that the manifest's pattern asked for.
    pub use_bits: u32,
}

/// Arguments of `forward`. Slots are in the order of the plan; targets in the manifest's order.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct KdForward {
    /// Size of this struct.
    pub struct_size: u32,
    /// Length of `taps`.
    pub n_taps: u32,
    /// Length of `params`.
    pub n_params: u32,
    /// Length of `buffers`.
    pub n_buffers: u32,
    /// Length of `targets`.
    pub n_targets: u32,
    /// Length of `losses`.
    pub n_losses: u32,
    /// Length of `maps`.
    pub n_maps: u32,
    /// Zero.
    pub reserved: u32,
    /// Bound taps, read only.
    pub taps: *const KdTensor,
    /// Learned parameters, read only.
    pub params: *const KdTensor,
    /// Buffers, read and written.
    pub buffers: *mut KdTensor,
    /// Targets, read only.
    pub targets: *const KdTensor,
    /// Out: f32, rank 0.
    pub losses: *mut KdTensor,
    /// Out: generated maps.
    pub maps: *mut KdTensor,
}

/// Arguments of `backward`: the values forward saw, upstream gradients, wanted gradients.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct KdBackward {
    /// Size of this struct.
    pub struct_size: u32,
    /// Length of `taps` and `d_taps`.
    pub n_taps: u32,
    /// Length of `params` and `d_params`.
    pub n_params: u32,
    /// Length of `d_losses`.
    pub n_losses: u32,
    /// Length of `d_maps`.
    pub n_maps: u32,
    /// Zero.
    pub reserved: u32,
    /// The same values forward saw.
    pub taps: *const KdTensor,
    /// The same values forward saw.
    pub params: *const KdTensor,
    /// Gradient of the total with respect to each loss: the host's weights are folded in.
    pub d_losses: *const KdTensor,
    /// Gradient of the total with respect to each map.
    pub d_maps: *const KdTensor,
    /// Out; `data` null: not wanted.
    pub d_taps: *mut KdTensor,
    /// Out; `data` null: not wanted.
    pub d_params: *mut KdTensor,
}

/// Host functions through which `plan` declares what the method needs.
#[repr(C)]
#[derive(Clone, Copy, Debug, StableAbi)]
pub struct KdPlanSink {
    /// Size of this struct.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Handed back to every function below.
    pub sink: *mut c_void,
    /// Declares a learned parameter; all extents fixed.
    pub param: Option<
        unsafe extern "C" fn(sink: *mut c_void, spec: *const KdSpec, slot: *mut u32) -> KdStatus,
    >,
    /// Declares a buffer; all extents fixed.
    pub buffer: Option<
        unsafe extern "C" fn(sink: *mut c_void, spec: *const KdSpec, slot: *mut u32) -> KdStatus,
    >,
    /// Declares a loss and the weight it has unless the user sets another.
    pub loss: Option<
        unsafe extern "C" fn(
            sink: *mut c_void,
            name: KdStr,
            default_weight: f64,
            slot: *mut u32,
        ) -> KdStatus,
    >,
    /// Declares a generated map and the student tap (its index) that it replaces.
    pub map: Option<
        unsafe extern "C" fn(
            sink: *mut c_void,
            spec: *const KdSpec,
            replaces_tap: u32,
            slot: *mut u32,
        ) -> KdStatus,
    >,
    /// Narrows what the method does with a bound tap: `KD_USE_*` bits, 0 for unused.
    pub tap_use:
        Option<unsafe extern "C" fn(sink: *mut c_void, tap: u32, use_bits: u32) -> KdStatus>,
    /// Declares phases and stages as JSON; at most once. The schema is documented in
    /// `plugin-api/README.md`.
    pub schedule: Option<unsafe extern "C" fn(sink: *mut c_void, schedule_json: KdStr) -> KdStatus>,
    /// Narrows what the method does with a target of its manifest (its index): `KD_USE_VALUE`, or 0 for
    /// unread, which crosses without elements and is not computed.
    pub target_use:
        Option<unsafe extern "C" fn(sink: *mut c_void, target: u32, use_bits: u32) -> KdStatus>,
}

impl KdStr {
    /// No text.
    pub const EMPTY: KdStr = KdStr {
        ptr: core::ptr::null(),
        len: 0,
    };

    /// Borrows `text`. The result must not outlive it.
    #[must_use]
    pub const fn new(text: &str) -> KdStr {
        KdStr {
            ptr: text.as_ptr(),
            len: text.len() as u64,
        }
    }

    /// The borrowed bytes.
    ///
    /// # Safety
    /// `ptr` must be valid for `len` bytes for `'a`, or `len` be 0.
    #[must_use]
    #[expect(unsafe_code, reason = "reads a borrowed view")]
    pub unsafe fn as_bytes<'a>(self) -> &'a [u8] {
        if self.len == 0 || self.ptr.is_null() {
            return &[];
        }
        // SAFETY: the caller promises `len` readable bytes.
        unsafe { core::slice::from_raw_parts(self.ptr, self.len as usize) }
    }
}

impl KdDType {
    /// 32-bit float.
    pub const F32: KdDType = KdDType {
        code: crate::KD_DTYPE_FLOAT,
        bits: 32,
        lanes: 1,
    };
    /// 16-bit float.
    pub const F16: KdDType = KdDType {
        code: crate::KD_DTYPE_FLOAT,
        bits: 16,
        lanes: 1,
    };
    /// Brain float.
    pub const BF16: KdDType = KdDType {
        code: crate::KD_DTYPE_BFLOAT,
        bits: 16,
        lanes: 1,
    };
    /// 32-bit signed integer.
    pub const I32: KdDType = KdDType {
        code: crate::KD_DTYPE_INT,
        bits: 32,
        lanes: 1,
    };
    /// 64-bit signed integer.
    pub const I64: KdDType = KdDType {
        code: crate::KD_DTYPE_INT,
        bits: 64,
        lanes: 1,
    };
    /// 8-bit unsigned integer.
    pub const U8: KdDType = KdDType {
        code: crate::KD_DTYPE_UINT,
        bits: 8,
        lanes: 1,
    };
    /// One byte, 0 or 1.
    pub const BOOL: KdDType = KdDType {
        code: crate::KD_DTYPE_BOOL,
        bits: 8,
        lanes: 1,
    };

    /// Bytes of one element.
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        (self.bits as usize * self.lanes as usize).div_ceil(8)
    }

    /// `f32`, `bf16`, `i64`, …; `None` for a type that v1 does not carry.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::BOOL => "bool",
            _ => return None,
        })
    }
}

impl KdDevice {
    /// Host memory.
    pub const CPU: KdDevice = KdDevice {
        kind: crate::KD_DEVICE_CPU,
        id: 0,
    };
}

macro_rules! assert_layout {
    ($($ty:ty: $size:literal),* $(,)?) => {$(
        const _: () = assert!(core::mem::size_of::<$ty>() == $size, stringify!($ty));
    )*};
}
assert_layout!(
    KdStr: 16, KdDType: 4, KdDevice: 8, KdDlTensor: 48, KdTensor: 64, KdCall: 104, KdSpec: 48,
    KdTap: 56, KdForward: 80, KdBackward: 72, KdPlanSink: 72,
);
