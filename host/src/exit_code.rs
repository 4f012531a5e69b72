//! Exit codes of the binary. 101 is Rust's own: a panic, our bug.

/// Success.
pub const OK: i32 = 0;
/// The run failed: diverged, non-finite loss.
pub const RUN_FAILED: i32 = 1;
/// Wrong command line or configuration.
pub const USAGE: i32 = 2;
/// A plugin could not be loaded: file, manifest, ABI, layout, table.
pub const PLUGIN_LOAD: i32 = 3;
/// A plugin failed while running: error status, panic, non-finite output.
pub const PLUGIN_RUN: i32 = 4;
/// Data set, checkpoint or another file could not be read or written.
pub const DATA: i32 = 5;
/// Interrupted by Ctrl-C; a checkpoint was written. 128 + SIGINT, as shells have it.
pub const INTERRUPTED: i32 = 130;
