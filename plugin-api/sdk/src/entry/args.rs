//! C arguments as checked views.
#![expect(unsafe_code, reason = "reads what the ABI's pointers point to")]

use std::slice;

use kd_abi::{KD_TRACE_FORWARD, KD_TRACE_INIT, KdStr, KdTap, KdTensor, KdTrace};

use crate::raw::{Extents, TraceArgs, TraceKind};
use crate::tap::{Role, TapInfo};
use crate::{MethodError, TensorView, TensorViewMut};

pub(super) fn expect_len(what: &str, got: u32, expected: usize) -> Result<(), MethodError> {
    if got as usize == expected {
        return Ok(());
    }
    Err(MethodError::invalid_argument(format!(
        "{got} {what}, planned were {expected}"
    )))
}

/// # Safety
/// `first` must be null or valid for `len` elements for `'a`.
pub(super) unsafe fn array<'a, T>(
    first: *const T,
    len: u32,
    what: &str,
) -> Result<&'a [T], MethodError> {
    if len == 0 {
        return Ok(&[]);
    }
    if first.is_null() {
        return Err(MethodError::invalid_argument(format!("null {what}")));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { slice::from_raw_parts(first, len as usize) })
}

/// # Safety
/// As [`array`] and [`TensorView::from_raw`].
pub(super) unsafe fn views<'a>(
    first: *const KdTensor,
    len: u32,
    what: &str,
) -> Result<Vec<TensorView<'a>>, MethodError> {
    // SAFETY: the caller's promise.
    let tensors = unsafe { array(first, len, what)? };
    let wrap = |(slot, tensor)| {
        // SAFETY: the caller's promise.
        unsafe { TensorView::from_raw(tensor, &format!("{what} {slot}")) }
    };
    tensors.iter().enumerate().map(wrap).collect()
}

/// # Safety
/// As [`array`] and [`TensorViewMut::from_raw`].
pub(super) unsafe fn views_mut<'a>(
    first: *mut KdTensor,
    len: u32,
    what: &str,
) -> Result<Vec<TensorViewMut<'a>>, MethodError> {
    // SAFETY: the caller's promise.
    let tensors = unsafe { array(first.cast_const(), len, what)? };
    let wrap = |(slot, tensor)| {
        // SAFETY: the caller's promise.
        unsafe { TensorViewMut::from_raw(tensor, &format!("{what} {slot}")) }
    };
    tensors.iter().enumerate().map(wrap).collect()
}

/// # Safety
/// `raw` must be borrowed text as the ABI says.
pub(super) unsafe fn text<'a>(raw: KdStr, what: &str) -> Result<&'a str, MethodError> {
    // SAFETY: the caller's promise.
    std::str::from_utf8(unsafe { raw.as_bytes() })
        .map_err(|_| MethodError::invalid_argument(format!("{what} is not UTF-8")))
}

/// # Safety
/// The pointers of `tap` must be as the ABI says.
pub(super) unsafe fn tap_info(index: usize, tap: &KdTap) -> Result<TapInfo, MethodError> {
    let ndim = u32::try_from(tap.ndim)
        .map_err(|_| MethodError::invalid_argument(format!("tap {index}: ndim {}", tap.ndim)))?;
    // SAFETY: the caller's promise.
    unsafe {
        Ok(TapInfo {
            index,
            name: text(tap.name, "tap name")?.to_owned(),
            role: Role::from_name(text(tap.role, "tap role")?),
            dtype: tap.dtype,
            shape: array(tap.shape, ndim, "tap shape")?.to_vec(),
            stride: tap.stride,
            use_bits: tap.use_bits,
        })
    }
}

/// # Safety
/// The pointers of `trace` must be as the ABI says.
pub(super) unsafe fn trace_args(trace: &KdTrace) -> Result<TraceArgs, MethodError> {
    let kind = match trace.flags {
        0 => TraceKind::Training,
        KD_TRACE_FORWARD => TraceKind::Forward,
        KD_TRACE_INIT => TraceKind::Init,
        other => {
            return Err(MethodError::invalid_argument(format!(
                "trace flags {other:#x}"
            )));
        }
    };
    // SAFETY: the caller's promise.
    unsafe {
        Ok(TraceArgs {
            kind,
            taps: all_extents(trace.taps, trace.n_taps, "taps")?,
            params: all_extents(trace.params, trace.n_params, "params")?,
            buffers: all_extents(trace.buffers, trace.n_buffers, "buffers")?,
            targets: all_extents(trace.targets, trace.n_targets, "targets")?,
            loss_wanted: array(trace.loss_wanted, trace.n_losses, "loss_wanted")?
                .iter()
                .map(|&wanted| wanted != 0)
                .collect(),
            int_dtype: trace.int_dtype,
            bool_bytes: trace.bool_bytes,
        })
    }
}

/// # Safety
/// As [`array`], and the tensors' shapes must be readable.
unsafe fn all_extents(
    first: *const KdTensor,
    len: u32,
    what: &str,
) -> Result<Vec<Extents>, MethodError> {
    let one = |tensor: &KdTensor| {
        let bad = || MethodError::invalid_argument(format!("{what}: ndim {}", tensor.dl.ndim));
        let ndim = u32::try_from(tensor.dl.ndim).map_err(|_| bad())?;
        // SAFETY: the caller's promise.
        let shape = unsafe { array(tensor.dl.shape, ndim, what)? };
        let extent = |&v: &i64| {
            usize::try_from(v)
                .map_err(|_| MethodError::invalid_argument(format!("{what}: shape {shape:?}")))
        };
        Ok(Extents {
            shape: shape.iter().map(extent).collect::<Result<_, _>>()?,
            dtype: tensor.dl.dtype,
        })
    };
    // SAFETY: the caller's promise.
    unsafe { array(first, len, what)? }
        .iter()
        .map(one)
        .collect()
}
