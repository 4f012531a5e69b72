//! Read-only slices of live tensors, without a copy where place and layout allow it.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;

use crate::kernels::is_on_host;

/// Holds a tensor's values in the CPU's memory so that they can be lent for the duration of a call.
#[derive(Debug)]
pub struct TapView {
    storage: Storage,
    shape: Vec<usize>,
}

#[derive(Debug)]
enum Storage {
    /// Of the CPU backend.
    Shared(FlexTensor),
    /// Read back from another device.
    Copied(TensorData),
}

impl TapView {
    /// Lends `tensor`: a reference count if it lies contiguous on the CPU, else a copy.
    #[must_use]
    pub fn new<const D: usize>(tensor: &Tensor<D>) -> Self {
        let shape = tensor.dims().to_vec();
        let tensor = tensor.clone().without_autodiff();
        let storage = match tensor.clone().try_into_primitive::<Flex>() {
            Ok(storage) if is_on_host(&tensor) => Storage::Shared(contiguous(storage)),
            _ => Storage::Copied(tensor.into_data()),
        };
        TapView { storage, shape }
    }

    /// Extents.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Values, row-major.
    ///
    /// # Panics
    /// If the tensor is not f32.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        match &self.storage {
            Storage::Shared(storage) => storage
                .as_slice::<f32>()
                .expect("taps are f32, and made contiguous"),
            Storage::Copied(data) => data.as_slice::<f32>().expect("taps are f32"),
        }
    }
}

fn contiguous(storage: FlexTensor) -> FlexTensor {
    if storage.as_slice::<f32>().is_some() {
        storage
    } else {
        storage.to_contiguous()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::kernels::with_operations;

    #[test]
    fn values_are_row_major_from_every_place_and_layout() {
        let tensor = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::flex());
        for on_operations in [false, true] {
            let view = |t: Tensor<2>| with_operations(on_operations, || TapView::new(&t));
            assert_eq!(
                view(tensor.clone()).values(),
                [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
            );
            let strided = view(tensor.clone().autodiff().transpose());
            assert_eq!(strided.shape(), [3, 2]);
            assert_eq!(strided.values(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        }
    }
}
