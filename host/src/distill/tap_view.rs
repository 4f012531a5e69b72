//! Read-only slices of live tensors, without a copy where place and layout allow it.

use burn::backend::Flex;
use burn::tensor::{Tensor, TensorData};
use burn_flex::FlexTensor;

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
            Ok(storage) if storage.as_slice::<f32>().is_some() => Storage::Shared(storage),
            Ok(storage) => Storage::Shared(storage.to_contiguous()),
            Err(_) => Storage::Copied(tensor.into_data()),
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
