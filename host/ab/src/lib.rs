//! Statistics and report of A/B comparisons: what several training runs of each arm say about the arms.
//!
//! Nothing here trains, evaluates or reads a run: [`report`] is the data of a comparison.

pub mod report;
