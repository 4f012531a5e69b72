//! Borrowed arrays as the ABI's tensor views.

use kd_abi::{KD_T_READ_ONLY, KD_T_ZEROED, KdDType, KdDevice, KdDlTensor, KdTensor};

use super::CallInfo;

/// Elements of an input.
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// 64-bit signed integers.
    I64(&'a [i64]),
    /// 32-bit signed integers.
    I32(&'a [i32]),
    /// Bytes.
    U8(&'a [u8]),
    /// Truth values, one byte each.
    Bool(&'a [bool]),
}

/// An input: row-major and contiguous.
#[derive(Clone, Copy, Debug)]
pub struct TensorArg<'a> {
    pub(super) shape: &'a [usize],
    data: TensorData<'a>,
}

/// An output, or a buffer read and written: f32, row-major and contiguous.
#[derive(Debug)]
pub struct ArrayMut<'a> {
    pub(super) shape: &'a [usize],
    pub(super) data: &'a mut [f32],
}

impl<'a> TensorArg<'a> {
    /// Borrows `data` as a tensor of `shape`.
    ///
    /// # Panics
    /// If the extents do not multiply to the number of elements.
    #[must_use]
    pub fn new(shape: &'a [usize], data: TensorData<'a>) -> Self {
        assert_eq!(
            elements(shape),
            data.len(),
            "shape {shape:?} and data disagree"
        );
        TensorArg { shape, data }
    }

    /// Borrows floats.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn f32(shape: &'a [usize], data: &'a [f32]) -> Self {
        Self::new(shape, TensorData::F32(data))
    }

    /// Borrows 64-bit integers.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn i64(shape: &'a [usize], data: &'a [i64]) -> Self {
        Self::new(shape, TensorData::I64(data))
    }

    /// The extents.
    #[must_use]
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The elements.
    #[must_use]
    pub fn data(&self) -> TensorData<'a> {
        self.data
    }
}

impl<'a> ArrayMut<'a> {
    /// Borrows `data` as a tensor of `shape`.
    ///
    /// # Panics
    /// If the extents do not multiply to the number of elements.
    #[must_use]
    pub fn new(shape: &'a [usize], data: &'a mut [f32]) -> Self {
        assert_eq!(
            elements(shape),
            data.len(),
            "shape {shape:?} and data disagree"
        );
        ArrayMut { shape, data }
    }

    pub(super) fn fill(&mut self, marker: Marker) {
        self.data.fill(marker.value());
    }
}

impl TensorData<'_> {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            TensorData::F32(d) => d.len(),
            TensorData::I64(d) => d.len(),
            TensorData::I32(d) => d.len(),
            TensorData::U8(d) => d.len(),
            TensorData::Bool(d) => d.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn view(&self) -> (*const u8, KdDType) {
        match self {
            TensorData::F32(d) => (d.as_ptr().cast(), KdDType::F32),
            TensorData::I64(d) => (d.as_ptr().cast(), KdDType::I64),
            TensorData::I32(d) => (d.as_ptr().cast(), KdDType::I32),
            TensorData::U8(d) => (d.as_ptr(), KdDType::U8),
            TensorData::Bool(d) => (d.as_ptr().cast(), KdDType::BOOL),
        }
    }
}

/// What outputs hold before a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// Zero, and flagged so.
    Zero,
    /// A NaN that no computation makes; what still holds it was not written.
    Poison,
}

impl Marker {
    /// A quiet NaN with `KD` in its payload.
    const POISON_BITS: u32 = 0x7fc0_4b44;

    pub(super) fn for_call(call: &CallInfo) -> Marker {
        if call.check {
            Marker::Poison
        } else {
            Marker::Zero
        }
    }

    pub(super) fn is_poison(self) -> bool {
        self == Marker::Poison
    }

    pub(super) fn value(self) -> f32 {
        match self {
            Marker::Zero => 0.0,
            Marker::Poison => f32::from_bits(Self::POISON_BITS),
        }
    }

    pub(super) fn count_unwritten(self, array: &ArrayMut<'_>) -> usize {
        match self {
            Marker::Zero => 0,
            Marker::Poison => array
                .data
                .iter()
                .filter(|value| value.to_bits() == Self::POISON_BITS)
                .count(),
        }
    }

    fn flags(self) -> u32 {
        match self {
            Marker::Zero => KD_T_ZEROED,
            Marker::Poison => 0,
        }
    }
}

/// Views of the tensors of one call, in the order in which they were added. Kept between calls,
/// so that a step allocates nothing here.
#[derive(Debug, Default)]
pub(super) struct Views {
    tensors: Vec<KdTensor>,
    /// Shape and then strides of each tensor.
    extents: Vec<i64>,
}

// SAFETY: the pointers inside are only followed during the call for which they were made, while
// the owner is borrowed mutably.
unsafe impl Send for Views {}
// SAFETY: as above; nothing can be done with a shared reference.
unsafe impl Sync for Views {}

impl Views {
    pub(super) fn clear(&mut self) {
        self.tensors.clear();
        self.extents.clear();
    }

    pub(super) fn inputs(&mut self, inputs: &[TensorArg<'_>]) {
        for (slot, input) in inputs.iter().enumerate() {
            let (pointer, dtype) = input.data.view();
            self.push(slot, input.shape, pointer.cast_mut(), dtype, KD_T_READ_ONLY);
        }
    }

    pub(super) fn scalar_inputs(&mut self, values: &[f32]) {
        for (slot, value) in values.iter().enumerate() {
            let pointer = std::ptr::from_ref(value).cast_mut().cast();
            self.push(slot, &[], pointer, KdDType::F32, KD_T_READ_ONLY);
        }
    }

    pub(super) fn in_out(&mut self, arrays: &mut [ArrayMut<'_>]) {
        for (slot, array) in arrays.iter_mut().enumerate() {
            let pointer = array.data.as_mut_ptr().cast();
            self.push(slot, array.shape, pointer, KdDType::F32, 0);
        }
    }

    pub(super) fn outputs(&mut self, arrays: &mut [ArrayMut<'_>], marker: Marker) {
        for (slot, array) in arrays.iter_mut().enumerate() {
            let pointer = array.data.as_mut_ptr().cast();
            self.push(slot, array.shape, pointer, KdDType::F32, marker.flags());
        }
    }

    pub(super) fn scalar_outputs(&mut self, values: &mut [f32], marker: Marker) {
        for (slot, value) in values.iter_mut().enumerate() {
            let pointer = std::ptr::from_mut(value).cast();
            self.push(slot, &[], pointer, KdDType::F32, marker.flags());
        }
    }

    pub(super) fn optional_outputs<'a>(
        &mut self,
        arrays: &mut [Option<ArrayMut<'_>>],
        shapes: impl Iterator<Item = &'a [usize]>,
        marker: Marker,
    ) {
        for (slot, (array, shape)) in arrays.iter_mut().zip(shapes).enumerate() {
            let pointer = match array {
                Some(array) => array.data.as_mut_ptr().cast(),
                None => std::ptr::null_mut(),
            };
            self.push(slot, shape, pointer, KdDType::F32, marker.flags());
        }
    }

    /// Fills in the pointers to the extents, which no longer move, and gives the first view.
    pub(super) fn finish(&mut self) -> *mut KdTensor {
        let mut at = 0;
        for tensor in &mut self.tensors {
            let rank = tensor.dl.ndim as usize;
            tensor.dl.shape = self.extents[at..].as_ptr();
            tensor.dl.strides = self.extents[at + rank..].as_ptr();
            at += 2 * rank;
        }
        self.tensors.as_mut_ptr()
    }

    fn push(&mut self, slot: usize, shape: &[usize], pointer: *mut u8, dtype: KdDType, flags: u32) {
        let count = elements(shape);
        self.extents
            .extend(shape.iter().map(|extent| *extent as i64));
        let mut stride = count;
        for extent in shape {
            // With a zero extent there is no element and any stride will do.
            stride = stride.checked_div(*extent).unwrap_or(0);
            self.extents.push(stride as i64);
        }
        let empty = count == 0;
        self.tensors.push(KdTensor {
            dl: KdDlTensor {
                data: if empty {
                    std::ptr::null_mut()
                } else {
                    pointer.cast()
                },
                device: KdDevice::CPU,
                ndim: shape.len() as i32,
                dtype,
                shape: std::ptr::null(),
                strides: std::ptr::null(),
                byte_offset: 0,
            },
            span_bytes: (count * dtype.size_bytes()) as u64,
            flags,
            slot: slot as u32,
        });
    }
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_row_major() {
        let data = vec![0.0; 24];
        let shape = [2, 3, 4];
        let mut views = Views::default();
        views.inputs(&[TensorArg::f32(&shape, &data)]);
        views.finish();
        let view = &views.tensors[0];
        assert_eq!(views.extents, [2, 3, 4, 12, 4, 1]);
        assert_eq!(view.span_bytes, 96);
        assert_eq!(view.flags, KD_T_READ_ONLY);
        assert_eq!(view.dl.data, data.as_ptr().cast_mut().cast());
        assert_eq!(view.dl.strides, views.extents[3..].as_ptr());
    }

    #[test]
    fn tensors_without_elements_have_no_storage() {
        let (ids, shape) = ([0i64; 0], [0usize, 4]);
        let mut views = Views::default();
        views.inputs(&[TensorArg::i64(&shape, &ids)]);
        views.finish();
        assert!(views.tensors[0].dl.data.is_null());
        assert!(!views.tensors[0].dl.strides.is_null());
        assert_eq!(views.tensors[0].span_bytes, 0);
    }

    #[test]
    fn poison_survives_a_copy_and_is_counted() {
        let mut data = vec![Marker::Poison.value(); 5];
        data[1] = 0.0;
        data[2] = f32::NAN;
        let array = ArrayMut::new(&[5], &mut data);
        assert_eq!(Marker::Poison.count_unwritten(&array), 3);
        assert_eq!(Marker::Zero.count_unwritten(&array), 0);
    }
}
