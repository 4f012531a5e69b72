//! Between the CPU backend's tensors and slices.

use burn::backend::TensorMetadata;
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};

/// The tensor, its values next to each other.
///
/// # Panics
/// If it is not f32.
pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    assert_eq!(tensor.dtype(), DType::F32, "these kernels compute in f32");
    if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// Values of a [`contiguous`] tensor.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice::<f32>()
        .expect("the tensor was made contiguous")
}

/// Values of a [`contiguous`] tensor that nobody else holds, to be written in place.
pub(super) fn own_values(tensor: &mut FlexTensor) -> Option<&mut [f32]> {
    let len = tensor.shape().num_elements();
    if tensor.layout().start_offset() != 0 {
        return None;
    }
    tensor
        .try_storage_mut::<f32>()
        .filter(|values| values.len() == len)
}

/// The [`contiguous`] tensor where nobody else holds its values, else a copy: [`own_values`] has them.
pub(super) fn owned(mut tensor: FlexTensor) -> FlexTensor {
    if own_values(&mut tensor).is_some() {
        return tensor;
    }
    let layout = Layout::contiguous(tensor.shape());
    let values = Bytes::from_elems(values(&tensor).to_vec());
    FlexTensor::new(values, layout, DType::F32)
}

/// A tensor that owns `values`.
pub(super) fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    let layout = Layout::contiguous(Shape::from(shape.to_vec()));
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}
