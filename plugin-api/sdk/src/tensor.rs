//! Checked views of the host's tensors.
#![expect(unsafe_code, reason = "reads and writes memory lent through the ABI")]

use std::borrow::Cow;
use std::marker::PhantomData;
use std::slice;

use kd_abi::{KD_DEVICE_CPU, KD_T_ACCUMULATE, KdDType, KdTensor};

use crate::MethodError;

/// Geometry of a tensor, checked once when the view is made.
#[derive(Clone, Debug)]
struct Geometry {
    dtype: KdDType,
    shape: Vec<usize>,
    strides: Vec<usize>,
    len: usize,
}

impl Geometry {
    fn is_contiguous(&self) -> bool {
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
    fn for_each_offset(&self, mut visit: impl FnMut(usize)) {
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

/// A tensor of the host that may be read.
#[derive(Clone, Debug)]
pub struct TensorView<'a> {
    first: *const u8,
    geometry: Geometry,
    lent: PhantomData<&'a [u8]>,
}

/// A tensor of the host that may be written, or the place of one that is not wanted.
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    first: *mut u8,
    geometry: Geometry,
    accumulate: bool,
    lent: PhantomData<&'a mut [u8]>,
}

impl<'a> TensorView<'a> {
    /// Checks and wraps a tensor of the host. `what` names it in messages.
    ///
    /// # Errors
    /// If geometry, device or span contradict each other.
    ///
    /// # Safety
    /// The pointers of `tensor` must be as the ABI says, and valid for `'a`.
    pub unsafe fn from_raw(tensor: &KdTensor, what: &str) -> Result<Self, MethodError> {
        // SAFETY: the caller's promise.
        let geometry = unsafe { check(tensor, what)? };
        if tensor.dl.data.is_null() && geometry.len > 0 {
            return Err(MethodError::invalid_argument(format!(
                "{what}: null data for {} elements",
                geometry.len
            )));
        }
        Ok(TensorView {
            // SAFETY: `byte_offset` stays inside the allocation by contract.
            first: unsafe { offset_data(tensor) },
            geometry,
            lent: PhantomData,
        })
    }

    /// Extents.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.geometry.shape
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.geometry.len
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.geometry.len == 0
    }

    /// Element type.
    #[must_use]
    pub fn dtype(&self) -> KdDType {
        self.geometry.dtype
    }

    /// Values in row-major order: borrowed if the host's memory already is, else gathered.
    ///
    /// # Errors
    /// If the elements are not f32.
    pub fn f32s(&self) -> Result<Cow<'a, [f32]>, MethodError> {
        expect_dtype(self.geometry.dtype, KdDType::F32)?;
        if self.geometry.len == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        if self.is_f32_slice() {
            // SAFETY: contiguous, aligned, `len` elements inside the checked span, valid for 'a.
            let values =
                unsafe { slice::from_raw_parts(self.first.cast::<f32>(), self.geometry.len) };
            return Ok(Cow::Borrowed(values));
        }
        let mut values = Vec::with_capacity(self.geometry.len);
        self.gather(|value: f32| values.push(value));
        Ok(Cow::Owned(values))
    }

    /// Integer or bool values in row-major order, widened.
    ///
    /// # Errors
    /// If the elements are of another kind.
    pub fn i64s(&self) -> Result<Vec<i64>, MethodError> {
        let mut values = Vec::with_capacity(self.geometry.len);
        match self.geometry.dtype {
            KdDType::I32 => self.gather(|v: i32| values.push(v.into())),
            KdDType::I64 => self.gather(|v: i64| values.push(v)),
            KdDType::U8 | KdDType::BOOL => self.gather(|v: u8| values.push(v.into())),
            other => {
                return Err(MethodError::dtype(format!(
                    "expected integers, got {}",
                    other.name().unwrap_or("an unknown type")
                )));
            }
        }
        Ok(values)
    }

    /// Reads every element in row-major order. `T` must have the size of the element type.
    fn gather<T: Copy>(&self, mut visit: impl FnMut(T)) {
        debug_assert_eq!(size_of::<T>(), self.geometry.dtype.size_bytes());
        self.geometry.for_each_offset(|offset| {
            // SAFETY: the offset is inside the checked span; reads may be unaligned, and every
            // bit pattern is a value of the number types that this is called with.
            visit(unsafe { self.first.cast::<T>().add(offset).read_unaligned() });
        });
    }

    /// The single value of a rank-0 f32 tensor (or of any tensor with one element).
    ///
    /// # Errors
    /// If there is not exactly one f32.
    pub fn scalar(&self) -> Result<f32, MethodError> {
        match *self.f32s()? {
            [value] => Ok(value),
            _ => Err(MethodError::shape(format!(
                "expected one element, got shape {:?}",
                self.geometry.shape
            ))),
        }
    }

    /// Whether the memory can be lent on as a plain `[f32]`.
    fn is_f32_slice(&self) -> bool {
        self.geometry.dtype == KdDType::F32
            && self.geometry.is_contiguous()
            && self.first.cast::<f32>().is_aligned()
    }

    /// First element of a tensor that [`Self::f32s`] borrows; `None` where it would copy.
    #[cfg(feature = "burn")]
    pub(crate) fn f32_ptr(&self) -> Option<*const f32> {
        (self.is_f32_slice() && self.geometry.len > 0).then(|| self.first.cast())
    }
}

impl<'a> TensorViewMut<'a> {
    /// Checks and wraps an output of the host; `data` may be null: not wanted.
    ///
    /// # Errors
    /// If geometry, device or span contradict each other, or the elements are not f32.
    ///
    /// # Safety
    /// The pointers of `tensor` must be as the ABI says, valid for `'a`, and alias nothing.
    pub unsafe fn from_raw(tensor: &KdTensor, what: &str) -> Result<Self, MethodError> {
        // SAFETY: the caller's promise.
        let geometry = unsafe { check(tensor, what)? };
        expect_dtype(geometry.dtype, KdDType::F32).map_err(|error| error.at(what))?;
        if geometry
            .strides
            .iter()
            .zip(&geometry.shape)
            .any(|(&s, &e)| s == 0 && e > 1)
        {
            return Err(MethodError::invalid_argument(format!(
                "{what}: an output cannot have stride 0"
            )));
        }
        Ok(TensorViewMut {
            // SAFETY: `byte_offset` stays inside the allocation by contract.
            first: unsafe { offset_data(tensor) }.cast_mut(),
            geometry,
            accumulate: tensor.flags & KD_T_ACCUMULATE != 0,
            lent: PhantomData,
        })
    }

    /// False if the host does not want this output; writing to it is then a no-op.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.first.is_null()
    }

    /// Extents.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.geometry.shape
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.geometry.len
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.geometry.len == 0
    }

    /// Current values in row-major order: meaningful for buffers.
    #[must_use]
    pub fn to_vec(&self) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.geometry.len);
        if self.is_wanted() {
            self.geometry.for_each_offset(|offset| {
                // SAFETY: inside the checked span; reads may be unaligned.
                values.push(unsafe { self.first.cast::<f32>().add(offset).read_unaligned() });
            });
        }
        values
    }

    /// Writes every element (adds, if the host asked to accumulate) from row-major `values`.
    ///
    /// # Errors
    /// If the number of values differs from the number of elements.
    pub fn write(&mut self, values: &[f32]) -> Result<(), MethodError> {
        if !self.is_wanted() {
            return Ok(());
        }
        if values.len() != self.geometry.len {
            return Err(MethodError::internal(format!(
                "{} values for an output of shape {:?}",
                values.len(),
                self.geometry.shape
            )));
        }
        if let Some(out) = self.as_slice_mut() {
            write_slice(out, values);
            return Ok(());
        }
        let (first, accumulate) = (self.first.cast::<f32>(), self.accumulate);
        let mut next = values.iter();
        self.geometry.for_each_offset(|offset| {
            let Some(&value) = next.next() else { return };
            // SAFETY: inside the checked span, exclusive for 'a; may be unaligned.
            unsafe {
                let place = first.add(offset);
                let old = if accumulate {
                    place.read_unaligned()
                } else {
                    0.0
                };
                place.write_unaligned(old + value);
            }
        });
        Ok(())
    }

    /// Writes zero (nothing, if the host asked to accumulate).
    ///
    /// # Errors
    /// Never in practice; the signature is [`Self::write`]'s.
    pub fn write_zero(&mut self) -> Result<(), MethodError> {
        if self.accumulate || !self.is_wanted() {
            return Ok(());
        }
        self.write(&vec![0.0; self.geometry.len])
    }

    /// Writes the only element.
    ///
    /// # Errors
    /// If there is not exactly one.
    pub fn write_scalar(&mut self, value: f32) -> Result<(), MethodError> {
        self.write(&[value])
    }

    /// The elements as they lie in memory, for row-major outputs that overwrite.
    ///
    /// `None` for a strided, unaligned, unwanted or accumulating output: use [`Self::write`].
    #[must_use]
    pub fn as_mut_slice(&mut self) -> Option<&mut [f32]> {
        (!self.accumulate).then(|| self.raw_slice()).flatten()
    }

    fn as_slice_mut(&mut self) -> Option<Output<'_>> {
        let accumulate = self.accumulate;
        self.raw_slice().map(|values| Output { values, accumulate })
    }

    fn raw_slice(&mut self) -> Option<&mut [f32]> {
        let first = self.first.cast::<f32>();
        if !self.is_wanted() || !self.geometry.is_contiguous() || !first.is_aligned() {
            return None;
        }
        // SAFETY: contiguous, aligned, inside the checked span, exclusive for the borrow of self.
        Some(unsafe { slice::from_raw_parts_mut(first, self.geometry.len) })
    }
}

struct Output<'a> {
    values: &'a mut [f32],
    accumulate: bool,
}

fn write_slice(out: Output<'_>, values: &[f32]) {
    if out.accumulate {
        for (place, value) in out.values.iter_mut().zip(values) {
            *place += value;
        }
    } else {
        out.values.copy_from_slice(values);
    }
}

fn expect_dtype(got: KdDType, expected: KdDType) -> Result<(), MethodError> {
    if got == expected {
        return Ok(());
    }
    Err(MethodError::dtype(format!(
        "expected {}, got {}",
        expected.name().unwrap_or("?"),
        got.name().unwrap_or("an unknown type")
    )))
}

/// First byte of the tensor, null if it has no data.
///
/// # Safety
/// `byte_offset` must stay inside the allocation.
unsafe fn offset_data(tensor: &KdTensor) -> *const u8 {
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
unsafe fn check(tensor: &KdTensor, what: &str) -> Result<Geometry, MethodError> {
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

#[cfg(test)]
mod tests;
