//! Semantic segmentation: the task's loss and what its logits say of every pixel. No I/O.

mod composed;
mod label_map;
mod loss;

#[cfg(test)]
mod tests;

pub use label_map::{View, label_map};
pub use loss::cross_entropy;
