//! Evaluation protocols: [`coco`] scores boxes against ground truth, [`detector`] turns a detector's
//! outputs into them; [`segmentation`] scores label maps; [`Metrics`] is what either task's evaluation
//! gives. Nothing here runs a network or reads a file.

pub mod coco;
pub mod detector;
mod metrics;
pub mod segmentation;

pub use metrics::{Metrics, percent};
