//! Tests across crates and processes, as one binary.
#![expect(
    clippy::unwrap_used,
    reason = "functions shared by tests fail as tests do"
)]

mod ab;
mod abi_layout;
mod bench;
mod classification;
mod cli;
mod detectors;
mod device;
mod maps_and_phases;
mod matrix;
mod methods;
mod plugin_calls;
mod plugin_faults;
mod plugin_loading;
mod pretrain;
mod programs;
mod refusals;
mod runs;
mod segmentation;
mod stages;
mod teachers;
mod tidy;
mod training;
mod visualize;
