//! Kernels of our own under the models, where they were measured to be faster than Burn's.

pub mod conv;
