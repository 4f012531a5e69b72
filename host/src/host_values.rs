//! Reading a tensor's values on the CPU.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Tensor, TensorData};

use crate::kernels::is_on_host;

/// A tensor's values in memory of the CPU, row-major.
pub(crate) enum HostValues {
    /// The tensor's own memory, shared.
    Shared(FloatTensor<Flex>),
    /// A copy read back from another device.
    Copied(TensorData),
}

impl HostValues {
    /// The values of `tensor`; on the CPU backend only a strided tensor is copied.
    pub(crate) fn of<const D: usize>(tensor: &Tensor<D>) -> Self {
        let plain = tensor.clone().inner();
        match plain.clone().try_into_primitive::<Flex>() {
            Ok(primitive) if is_on_host(tensor) => Self::Shared(primitive.to_contiguous()),
            _ => Self::Copied(plain.into_data()),
        }
    }

    /// Row-major values.
    ///
    /// # Panics
    /// If the tensor is not f32.
    pub(crate) fn as_slice(&self) -> &[f32] {
        match self {
            Self::Shared(primitive) => primitive
                .as_slice::<f32>()
                .expect("outputs of a head are f32, and the tensor was made contiguous"),
            Self::Copied(data) => data.as_slice::<f32>().expect("outputs of a head are f32"),
        }
    }
}
