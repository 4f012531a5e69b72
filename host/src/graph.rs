//! Traced methods: programs that a plugin gives (`kd.graph/1`) and this host executes.
//!
//! Reading order: [`check`] (nothing a plugin says is believed), [`compiled`] (a program made ready for
//! a device, and run there).

mod backend;
pub mod check;
pub mod compiled;
mod own_ops;
mod quiet;
