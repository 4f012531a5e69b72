//! Training: weights and optimizer, schedule, checkpoints, the run directory, progress.

pub mod checkpoint;
pub mod ema;
pub mod environment;
pub mod grad_clip;
pub mod interrupt;
pub mod lr_schedule;
pub mod memory;
pub mod metrics_log;
pub mod optim;
pub mod progress;
pub mod run_dir;
pub mod weights;
