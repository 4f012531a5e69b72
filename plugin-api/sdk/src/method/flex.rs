//! Burn's CPU tensors as slices.

use burn::backend::Flex;
use burn::tensor::{Bytes, DType, Shape, Tensor};
use burn_flex::{FlexTensor, Layout};

/// Whether operations on slices can take the tensor: f32 on the CPU backend.
pub(crate) fn is_f32_on_cpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    let plain = tensor.clone().without_autodiff();
    tensor.dtype() == DType::F32 && plain.try_into_primitive::<Flex>().is_ok()
}

/// The tensor, its values next to each other; a view is copied, its memory never written.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// Values of a [`contiguous`] tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice::<f32>().expect("f32, and made contiguous")
}

/// A tensor that owns `values`.
pub(crate) fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    let layout = Layout::contiguous(Shape::from(shape.to_vec()));
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}
