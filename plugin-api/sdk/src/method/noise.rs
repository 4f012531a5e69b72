//! Random tensors that depend on the call's seed alone.

use std::f64::consts::TAU;

use burn::tensor::{Device, Tensor, TensorData};

/// A stream of random numbers, a function of seed, name and position: no shared state, so order of
/// calls and number of threads change nothing.
#[derive(Clone, Debug)]
pub struct Noise {
    key: u64,
    device: Device,
}

impl Noise {
    pub(crate) fn new(seed: u64, name: &str, device: Device) -> Self {
        // FNV-1a keeps streams of different names apart.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Noise {
            key: mix(seed ^ mix(hash)),
            device,
        }
    }

    /// Uniform in `[0, 1)`.
    #[must_use]
    pub fn uniform<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        self.tensor(shape, |index| self.unit(index) as f32)
    }

    /// Normal with mean 0 and standard deviation 1.
    #[must_use]
    pub fn normal<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        // Box-Muller; 1 - u is in (0, 1], so the logarithm is finite.
        self.tensor(shape, |index| {
            let radius = (-2.0 * (1.0 - self.unit(2 * index)).ln()).sqrt();
            (radius * (TAU * self.unit(2 * index + 1)).cos()) as f32
        })
    }

    fn unit(&self, index: u64) -> f64 {
        let bits = mix(self
            .key
            .wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }

    fn tensor<const D: usize>(&self, shape: [usize; D], value: impl Fn(u64) -> f32) -> Tensor<D> {
        let len = shape.iter().product::<usize>() as u64;
        let values: Vec<f32> = (0..len).map(value).collect();
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }
}

/// The finalizer of SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().as_slice().unwrap().to_vec()
    }

    #[test]
    fn equal_seed_and_name_give_equal_numbers() {
        let device = Device::flex();
        let draw = |seed, name| values(Noise::new(seed, name, device.clone()).uniform([64]));
        assert_eq!(draw(1, "mask"), draw(1, "mask"));
        assert_ne!(draw(1, "mask"), draw(2, "mask"));
        assert_ne!(draw(1, "mask"), draw(1, "other"));
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        let noise = Noise::new(7, "x", Device::flex());
        let n = 20_000;
        let moments = |values: Vec<f32>| {
            let mean = values.iter().sum::<f32>() / n as f32;
            let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n as f32;
            (mean, var)
        };
        // Five standard errors of the mean, 1/sqrt(n) = 0.007.
        let (mean, var) = moments(values(noise.normal([n])));
        assert!(
            mean.abs() < 0.035 && (var - 1.0).abs() < 0.05,
            "{mean} {var}"
        );
        let (mean, var) = moments(values(noise.uniform([n])));
        assert!(
            (mean - 0.5).abs() < 0.011 && (var - 1.0 / 12.0).abs() < 0.004,
            "{mean} {var}"
        );
    }
}
