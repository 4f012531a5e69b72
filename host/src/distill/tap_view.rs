//! Read-only slices of live tensors, without a copy where the layout allows it.

use burn::backend::Flex;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

/// Holds a CPU tensor's storage so that its values can be lent for the duration of a call.
#[derive(Debug)]
pub struct TapView {
    storage: FlexTensor,
    shape: Vec<usize>,
}

impl TapView {
    /// Lends `tensor`: a reference count if it is contiguous, else a contiguous copy.
    ///
    /// # Panics
    /// If the tensor does not lie on the CPU backend.
    #[must_use]
    pub fn new<const D: usize>(tensor: &Tensor<D>) -> Self {
        let shape = tensor.dims().to_vec();
        let storage = tensor
            .clone()
            .without_autodiff()
            .try_into_primitive::<Flex>()
            .expect("taps lie on the CPU backend");
        let storage = if storage.as_slice::<f32>().is_some() {
            storage
        } else {
            storage.to_contiguous()
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
        self.storage
            .as_slice::<f32>()
            .expect("taps are contiguous f32")
    }
}
