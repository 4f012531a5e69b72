//! Checked views of the host's tensors.
#![expect(unsafe_code, reason = "reads and writes memory lent through the ABI")]

mod geometry;

use std::borrow::Cow;
use std::marker::PhantomData;
use std::slice;

use kd_abi::{KD_T_ACCUMULATE, KdDType, KdTensor};

use self::geometry::{Geometry, check, offset_data};
use crate::MethodError;

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
    #[cfg(feature = "cpu")]
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
        // Without elements nothing can be written twice, and any stride will do.
        let mut extents = geometry.strides.iter().zip(&geometry.shape);
        if geometry.len > 0 && extents.any(|(&s, &e)| s == 0 && e > 1) {
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
        let accumulate = self.accumulate;
        if let Some(places) = self.raw_slice() {
            if accumulate {
                for (place, value) in places.iter_mut().zip(values) {
                    *place += value;
                }
            } else {
                places.copy_from_slice(values);
            }
            return Ok(());
        }
        let first = self.first.cast::<f32>();
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

    fn raw_slice(&mut self) -> Option<&mut [f32]> {
        let first = self.first.cast::<f32>();
        if !self.is_wanted() || !self.geometry.is_contiguous() || !first.is_aligned() {
            return None;
        }
        // SAFETY: contiguous, aligned, inside the checked span, exclusive for the borrow of self.
        Some(unsafe { slice::from_raw_parts_mut(first, self.geometry.len) })
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

#[cfg(test)]
mod tests;
