//! Tests across crates and processes, as one binary.

mod abi_layout;
mod plugin_calls;
mod plugin_loading;
