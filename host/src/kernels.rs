//! Kernels of our own under the models, where they were measured to be faster than Burn's.
//!
//! They run on the CPU backend and on channels-last maps: a tensor `[cells, channels]` whose rows are
//! the cells of one or several map sizes, one after another ([`maps::Segment`]). Channels side by side
//! are what vector registers want: every kernel works across them, and a matrix product reads a map
//! where it lies.
#![expect(
    unsafe_code,
    reason = "vector instructions, and tasks that write disjoint parts of one output"
)]

pub mod allocator;
pub mod conv;
mod flex;
pub mod focal;
mod gemm;
pub mod maps;
pub mod norm;
pub mod pool;
pub mod resample;
pub mod residual;
mod scratch;
pub mod simd;
pub(crate) mod standardize;
#[cfg(test)]
mod testing;

use burn::backend::Flex;
use burn::tensor::Tensor;

/// Whether the tensor lives on the CPU backend, so that these kernels can take it and reading it
/// costs nothing.
pub(crate) fn is_on_host<const D: usize>(tensor: &Tensor<D>) -> bool {
    let plain = tensor.clone().without_autodiff();
    plain.try_into_primitive::<Flex>().is_ok()
}
