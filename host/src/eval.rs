//! Evaluation protocols: [`coco`] scores predictions against ground truth, [`detector`] turns a
//! detector's outputs into predictions. Nothing here runs a network or reads a file.

pub mod coco;
pub mod detector;
