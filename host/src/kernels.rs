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

pub mod activation;
pub mod allocator;
pub(crate) mod bilinear;
mod choice;
pub mod conv;
pub(crate) mod cross_entropy;
pub mod enlarge;
mod flex;
pub mod focal;
pub mod gelu;
mod gemm;
pub mod group_norm;
pub mod layer_norm;
pub mod maps;
pub mod norm;
pub mod pool;
pub mod resample;
pub mod residual;
mod scratch;
pub mod simd;
pub mod softmax;
pub(crate) mod standardize;
#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
pub(crate) use choice::with_operations;
pub(crate) use choice::{is_for_kernels, is_on_host};
