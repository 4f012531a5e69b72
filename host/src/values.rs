//! The numbers that belong to one parameter, where its weights lie.

use burn::tensor::{Device, Tensor, TensorData};

use crate::kernels::is_on_host;

/// A gradient, a momentum, a moment: on the CPU a vector that loops work on in place, elsewhere a
/// tensor that never leaves its device in a step.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "two or three for each parameter: a box would save nothing that counts"
)]
pub enum Values {
    /// In the memory of the CPU.
    Host(Vec<f32>),
    /// On a device, flat and plain.
    Device(Tensor<1>),
}

impl Values {
    /// The values of a plain tensor; on the CPU without a copy where nobody else holds them.
    #[must_use]
    pub fn of(tensor: Tensor<1>) -> Self {
        if is_on_host(&tensor) {
            Values::Host(into_vec(tensor))
        } else {
            Values::Device(tensor)
        }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Values::Host(values) => values.len(),
            Values::Device(tensor) => tensor.dims()[0],
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// On the CPU.
    #[must_use]
    pub fn into_vec(self) -> Vec<f32> {
        match self {
            Values::Host(values) => values,
            Values::Device(tensor) => into_vec(tensor),
        }
    }

    /// On the CPU, a copy.
    #[must_use]
    pub fn to_vec(&self) -> Vec<f32> {
        self.clone().into_vec()
    }

    /// To be worked on in place; values of a device are brought here for good.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        if let Values::Device(tensor) = self {
            *self = Values::Host(into_vec(tensor.clone()));
        }
        match self {
            Values::Host(values) => values,
            Values::Device(_) => unreachable!("brought to the CPU just now"),
        }
    }

    /// On `device`: a checkpoint's values lie on the CPU until they are used.
    #[must_use]
    pub fn to_tensor(&self, device: &Device) -> Tensor<1> {
        match self {
            Values::Host(values) => flat_tensor_on(values.clone(), device),
            Values::Device(tensor) => tensor.clone(),
        }
    }

    /// Adds `others`, which lie in the same place.
    pub fn add(&mut self, others: Values) {
        match (&mut *self, others) {
            (Values::Host(sum), others) => {
                for (s, other) in sum.iter_mut().zip(others.into_vec()) {
                    *s += other;
                }
            }
            (Values::Device(sum), others) => {
                let others = others.to_tensor(&sum.device());
                *self = Values::Device(sum.clone() + others);
            }
        }
    }
}

/// Equal numbers, wherever they lie.
impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.to_vec() == other.to_vec()
    }
}

/// A tensor `[values.len()]` on the plain CPU device that owns `values`.
#[must_use]
pub fn flat_tensor(values: Vec<f32>) -> Tensor<1> {
    flat_tensor_on(values, &Device::flex())
}

/// A tensor `[values.len()]` on `device`.
#[must_use]
pub fn flat_tensor_on(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let length = values.len();
    Tensor::from_data(TensorData::new(values, [length]), device)
}

/// The values of a plain tensor (a gradient, a statistic), on the CPU without a copy where nobody
/// else holds them.
///
/// # Panics
/// If the tensor is not f32.
#[must_use]
pub fn into_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .try_into_vec::<f32>()
        .expect("kdhost keeps weights and gradients in f32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::with_operations;

    #[test]
    fn values_are_the_same_in_either_place() {
        let tensor = || flat_tensor(vec![1.0, -2.0]);
        let host = Values::of(tensor());
        let device = with_operations(true, || Values::of(tensor()));
        assert!(matches!(host, Values::Host(_)) && matches!(device, Values::Device(_)));
        assert_eq!(host, device);
        for (mut sum, other) in [
            (host.clone(), device.clone()),
            (device.clone(), host.clone()),
            (device.clone(), device.clone()),
        ] {
            sum.add(other);
            assert_eq!(sum.len(), 2);
            assert_eq!(sum.as_mut_slice(), [2.0, -4.0]);
            assert!(matches!(sum, Values::Host(_)));
        }
    }
}
