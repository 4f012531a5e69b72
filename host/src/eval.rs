//! Evaluation protocols: [`coco`] scores predictions against ground truth, [`detector`] turns a
//! detector's outputs into predictions; [`Metrics`] is what either task's evaluation gives. Nothing
//! here runs a network or reads a file.

pub mod coco;
pub mod detector;
mod metrics;

pub use metrics::{Metrics, percent};
