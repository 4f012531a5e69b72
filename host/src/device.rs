//! Where a run computes: `cpu`, or `cuda:0` in a build with the feature `cuda`.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// The device of a run, as configurations and command lines name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ComputeDevice {
    /// This machine's processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU with this number.
    Cuda(usize),
}

/// A device cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No such word.
    #[error("`{text}` is no device; write `cpu`, or `cuda:0` for the first NVIDIA GPU")]
    Unknown {
        /// As given.
        text: String,
    },
    /// The program was built without CUDA.
    #[error(
        "`{device}` needs a kdhost built with CUDA: `cargo build --release -p kdhost --features cuda`; \
         this one computes on `cpu`"
    )]
    NotBuilt {
        /// As asked for.
        device: ComputeDevice,
    },
    /// No driver, or fewer GPUs.
    #[error(
        "`{device}` is not there: the CUDA driver shows {found} GPUs; look at `nvidia-smi`, or take `cpu`"
    )]
    Absent {
        /// As asked for.
        device: ComputeDevice,
        /// GPUs that the driver shows; 0 without a driver.
        found: usize,
    },
    /// Work on it did not come to an end.
    #[error("the device failed: {reason}")]
    Failed {
        /// What its driver says.
        reason: String,
    },
}

impl ComputeDevice {
    /// The plain device, without autodiff.
    ///
    /// # Errors
    /// If this build or this machine lacks it.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            ComputeDevice::Cpu => Ok(Device::flex()),
            ComputeDevice::Cuda(index) => cuda(index),
        }
    }

    /// `cpu` or `cuda`: what numbers may depend on. Which of several GPUs it is does not matter.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            ComputeDevice::Cpu => "cpu",
            ComputeDevice::Cuda(_) => "cuda",
        }
    }
}

/// Waits until a device has done all that it was given, so that a clock can be read.
///
/// # Errors
/// If it failed.
pub fn wait_for(device: &Device) -> Result<(), DeviceError> {
    device.sync().map_err(|error| DeviceError::Failed {
        reason: error.to_string(),
    })
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, DeviceError> {
    // Without a driver the list is empty; asking for the device itself would panic.
    let found = Device::enumerate(burn::tensor::DeviceType::Cuda)
        .into_iter()
        .count();
    if index < found {
        return Ok(Device::cuda(index));
    }
    let device = ComputeDevice::Cuda(index);
    Err(DeviceError::Absent { device, found })
}

#[cfg(not(feature = "cuda"))]
fn cuda(index: usize) -> Result<Device, DeviceError> {
    let device = ComputeDevice::Cuda(index);
    Err(DeviceError::NotBuilt { device })
}

impl FromStr for ComputeDevice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let digits = |index: &&str| index.bytes().all(|b| b.is_ascii_digit());
        let index = text.strip_prefix("cuda:").filter(digits).map(str::parse);
        match (text, index) {
            ("cpu", _) => Ok(ComputeDevice::Cpu),
            (_, Some(Ok(index))) => Ok(ComputeDevice::Cuda(index)),
            _ => Err(DeviceError::Unknown { text: text.into() }),
        }
    }
}

impl TryFrom<String> for ComputeDevice {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl From<ComputeDevice> for String {
    fn from(device: ComputeDevice) -> String {
        device.to_string()
    }
}

impl fmt::Display for ComputeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComputeDevice::Cpu => write!(f, "cpu"),
            ComputeDevice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (text, device) in [
            ("cpu", ComputeDevice::Cpu),
            ("cuda:0", ComputeDevice::Cuda(0)),
            ("cuda:11", ComputeDevice::Cuda(11)),
        ] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), text);
        }
        for text in ["", "cuda", "cuda:", "cuda:-1", "cuda:+1", "gpu:0", "cpu:0"] {
            let error = text.parse::<ComputeDevice>().unwrap_err();
            assert!(error.to_string().contains("write `cpu`"), "{error}");
        }
    }

    #[test]
    fn the_processor_is_always_there() {
        assert_eq!(ComputeDevice::Cpu.open(), Ok(Device::flex()));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_how_to_get_it() {
        let error = ComputeDevice::Cuda(0).open().unwrap_err();
        assert!(error.to_string().contains("--features cuda"), "{error}");
    }
}
