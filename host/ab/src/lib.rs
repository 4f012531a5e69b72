//! Statistics and report of A/B comparisons: what several training runs of each arm say about the arms.
//!
//! Nothing here trains, evaluates or reads a run: [`report`] is the data of a comparison, [`stats`] is
//! what the seeds say, [`bootstrap`] and [`resampled`] are what the evaluated images say, and [`json`],
//! [`markdown`] and [`html`] are the forms in which it is kept and shown.

pub mod bootstrap;
#[cfg(test)]
mod golden;
pub mod html;
pub mod json;
pub mod markdown;
pub mod report;
pub mod resampled;
pub mod stats;
mod words;
