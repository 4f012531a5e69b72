//! C arguments as checked views.
#![expect(unsafe_code, reason = "reads what the ABI's pointers point to")]

use std::slice;

use kd_abi::{KdStr, KdTap, KdTensor};

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
