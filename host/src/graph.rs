//! Programs that plugins traced, from bytes to a sound list of operations.
//!
//! A plugin of the extension `kd.graph/1` hands over a [`kd_graph::Program`]; nothing of it is trusted.
//! [`check`] looks at every operation before any of them runs, because burn's interpreter computes from
//! an operation's parameters and never compares the result with what the program declares.

pub mod check;
