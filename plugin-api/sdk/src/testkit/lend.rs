//! Tensors of the fake host.

use kd_abi::{KdDType, KdDevice, KdDlTensor, KdTensor};

/// Values of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Owned {
    pub(super) name: String,
    pub(super) shape: Vec<i64>,
    pub(super) strides: Vec<i64>,
    pub(super) values: Vec<f32>,
}

/// An integer target.
#[derive(Clone, Debug)]
pub(super) struct Ints {
    shape: Vec<i64>,
    strides: Vec<i64>,
    pub(super) values: Vec<i64>,
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    Floats(Owned),
    Ints(Ints),
}

impl Owned {
    pub(super) fn new(name: &str, shape: &[i64], values: Vec<f32>) -> Self {
        Owned {
            name: name.to_owned(),
            shape: shape.to_vec(),
            strides: strides(shape),
            values,
        }
    }

    pub(super) fn zeros(name: &str, shape: &[i64]) -> Self {
        Owned::new(name, shape, vec![0.0; count(shape)])
    }

    pub(super) fn nan(name: &str, shape: &[i64]) -> Self {
        Owned::new(name, shape, vec![f32::NAN; count(shape)])
    }

    pub(super) fn lend(&self) -> KdTensor {
        let data = self.values.as_ptr().cast_mut().cast();
        lend(
            data,
            KdDType::F32,
            &self.shape,
            &self.strides,
            4 * self.values.len(),
        )
    }

    pub(super) fn lend_mut(&mut self) -> KdTensor {
        let data = self.values.as_mut_ptr().cast();
        lend(
            data,
            KdDType::F32,
            &self.shape,
            &self.strides,
            4 * self.values.len(),
        )
    }
}

impl Ints {
    #[cfg(feature = "cpu")]
    pub(super) fn extents(&self) -> Vec<usize> {
        self.shape.iter().map(|&extent| extent as usize).collect()
    }

    pub(super) fn new(shape: &[i64], values: Vec<i64>) -> Self {
        Ints {
            shape: shape.to_vec(),
            strides: strides(shape),
            values,
        }
    }
}

impl Target {
    pub(super) fn lend(&self) -> KdTensor {
        match self {
            Target::Floats(owned) => owned.lend(),
            Target::Ints(ints) => {
                let data = ints.values.as_ptr().cast_mut().cast();
                lend(
                    data,
                    KdDType::I64,
                    &ints.shape,
                    &ints.strides,
                    8 * ints.values.len(),
                )
            }
        }
    }
}

fn lend(
    data: *mut std::ffi::c_void,
    dtype: KdDType,
    shape: &[i64],
    strides: &[i64],
    span: usize,
) -> KdTensor {
    KdTensor {
        dl: KdDlTensor {
            data,
            device: KdDevice::CPU,
            ndim: shape.len() as i32,
            dtype,
            shape: shape.as_ptr(),
            strides: strides.as_ptr(),
            byte_offset: 0,
        },
        span_bytes: span as u64,
        flags: 0,
        slot: 0,
    }
}

pub(super) fn extents(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&extent| extent as i64).collect()
}

fn count(shape: &[i64]) -> usize {
    shape.iter().product::<i64>() as usize
}

pub(super) fn strides(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}
