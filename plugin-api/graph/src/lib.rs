//! The payload of `kd.graph/1`: a method's forward and backward as a list of operations.
//!
//! A plugin traces its method into a [`Program`] and hands over its bytes; the host executes them on
//! its own device. Operations are those of `burn-ir`, which promises nothing between its versions:
//! both sides must speak the very same [`FORMAT`]. Beside them stand the operations of [`ops`].
//!
//! This crate holds what both sides must agree on, and trusts nothing: [`decode`] refuses what is not
//! a program, and whether a program is sound is for the host to find out.

mod codec;
#[cfg(feature = "execute")]
mod execute;
#[cfg(feature = "execute")]
mod lifetimes;
pub mod ops;
mod program;
pub mod standardize;

pub use burn_ir;
pub use burn_std::{BoolStore, DType};
pub use codec::{DecodeError, decode, encode, format_of};
#[cfg(feature = "execute")]
pub use execute::{Executable, Hook};
pub use program::{Constant, Input, Output, Place, Program, Slot};

/// What the bytes of a program are written in: exact versions, since a field more or less in one of
/// burn-ir's structs shifts the meaning of all that follow.
pub const FORMAT: &str = "burn-ir 0.22.1";
