//! Shape and strides of a tensor of the host, checked before anything is read.
#![expect(unsafe_code, reason = "reads what the ABI's pointers point to")]

use std::slice;

use kd_abi::{KD_DEVICE_CPU, KdDType, KdTensor};

use crate::MethodError;

/// Geometry of a tensor, checked once when the view is made.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub(super) dtype: KdDType,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) len: usize,
}

impl Geometry {
    pub(super) fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (&extent, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if extent != 1 && stride != expected {
                return false;
            }
            expected *= extent;
        }
        true
    }

    /// Calls `visit` with the offset of each element, in row-major order.
    pub(super) fn for_each_offset(&self, mut visit: impl FnMut(usize)) {
        if self.len == 0 {
            return;
        }
        let mut index = vec![0; self.shape.len()];
        let mut offset = 0;
        loop {
            visit(offset);
            let mut axis = self.shape.len();
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                index[axis] += 1;
                offset += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                offset -= self.strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
    }
}

/// First byte of the tensor, null if it has no data.
///
/// # Safety
/// `byte_offset` must stay inside the allocation.
pub(super) unsafe fn offset_data(tensor: &KdTensor) -> *const u8 {
    let data = tensor.dl.data.cast::<u8>().cast_const();
    if data.is_null() {
        return data;
    }
    // SAFETY: the caller's promise.
    unsafe { data.add(tensor.dl.byte_offset as usize) }
}

/// Reads and checks shape, strides, device and span.
///
/// # Safety
/// `shape` and `strides` must be readable for `ndim` elements.
pub(super) unsafe fn check(tensor: &KdTensor, what: &str) -> Result<Geometry, MethodError> {
    let bad = |reason: String| MethodError::invalid_argument(format!("{what}: {reason}"));
    let dl = &tensor.dl;
    if dl.device.kind != KD_DEVICE_CPU {
        return Err(MethodError::device(format!(
            "{what}: device type {}; this plugin reads CPU memory",
            dl.device.kind
        )));
    }
    let ndim = usize::try_from(dl.ndim).map_err(|_| bad(format!("ndim {}", dl.ndim)))?;
    if ndim > 0 && (dl.shape.is_null() || dl.strides.is_null()) {
        return Err(bad("null shape or strides".to_owned()));
    }
    let (shape, strides): (&[i64], &[i64]) = if ndim == 0 {
        (&[], &[])
    } else {
        // SAFETY: not null, and `ndim` long by contract.
        unsafe {
            (
                slice::from_raw_parts(dl.shape, ndim),
                slice::from_raw_parts(dl.strides, ndim),
            )
        }
    };
    let to_usize = |values: &[i64], of: &str| {
        values
            .iter()
            .map(|&v| usize::try_from(v).map_err(|_| bad(format!("negative {of} {values:?}"))))
            .collect::<Result<Vec<usize>, _>>()
    };
    let (shape, strides) = (to_usize(shape, "extent")?, to_usize(strides, "stride")?);
    let overflow = || bad(format!("extents {shape:?} overflow"));
    let mut len = 1usize;
    let mut last = 0usize;
    for (&extent, &stride) in shape.iter().zip(&strides) {
        len = len.checked_mul(extent).ok_or_else(overflow)?;
        let reach = extent
            .saturating_sub(1)
            .checked_mul(stride)
            .ok_or_else(overflow)?;
        last = last.checked_add(reach).ok_or_else(overflow)?;
    }
    let size = dl.dtype.size_bytes();
    if dl.dtype.name().is_none() || size == 0 {
        return Err(MethodError::dtype(format!(
            "{what}: element type {:?}",
            dl.dtype
        )));
    }
    if len > 0 && !dl.data.is_null() {
        let bytes = last
            .checked_add(1)
            .and_then(|n| n.checked_mul(size))
            .ok_or_else(overflow)?;
        if (bytes as u64) > tensor.span_bytes {
            return Err(bad(format!(
                "shape {shape:?} needs {bytes} bytes, the span has {}",
                tensor.span_bytes
            )));
        }
    }
    Ok(Geometry {
        dtype: dl.dtype,
        shape,
        strides,
        len,
    })
}
