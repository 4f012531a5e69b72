//! Traced methods: programs that a plugin gives (`kd.graph/1`) and this host executes.
//!
//! Nothing of a [`kd_graph::Program`] is trusted. [`check`] looks at every operation before any of them
//! runs, because burn's interpreter computes from an operation's parameters and never compares the
//! result with what the program declares. [`compiled`] makes a program ready for a device, and runs it.

mod backend;
pub mod check;
pub mod compiled;
mod hot_ops;
mod own_ops;
mod quiet;
