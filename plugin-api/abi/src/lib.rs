//! The frozen boundary between kdhost and a distillation plugin.
//!
//! One ABI, two doors. The structs here are plain `#[repr(C)]`; `include/kd_plugin.h` holds the
//! same definitions for C and C++. A Rust plugin is entered through the abi_stable root module
//! [`KdRootV1`], so that loading compares the layout of every struct and the signature of every
//! function reachable from it. A C plugin exports `kd_plugin_v1` and returns the same table.
//!
//! Reading order: [`constants`], [`types`] (what crosses), [`tables`] (who is called), [`root`]
//! (the Rust door), [`note`] (the manifest inside the file), [`extensions`] (what a host may offer
//! beyond version 1).
//!
//! # Lifetimes
//!
//! * A [`KdCall`] and all it points to, every spec, string and tensor: valid until the called
//!   function returns. Never keep them.
//! * One exception, so that a plugin can keep a graph: the memory of taps, params and targets given
//!   to a forward stays valid and unchanged until the saved state of that forward is released (the
//!   [`KdTensor`]s that describe it do not). Nothing may refer to it afterwards.
//! * Strings handed to the host are copied before the callback returns. The tables are `'static`.
//! * Outputs are allocated by the host from the plan, never alias inputs or each other, and every
//!   element of a wanted output is written by the plugin (added to, if [`KD_T_ACCUMULATE`]).
//! * `plan` is a pure function of the configuration and the taps. A tap that it marks unused
//!   (`tap_use` with 0) crosses without elements: batch, height and width are 0. So does a target
//!   (`target_use` with 0): one extent, which is 0.
//! * `*saved` may be null. It is released exactly once if forward returned [`KD_OK`] with a
//!   non-null value, also when backward failed or never ran; several may be outstanding.
//! * First order only: there is no second backward.
#![deny(missing_docs)]

pub mod constants;
pub mod extensions;
pub mod note;
pub mod root;
pub mod tables;
pub mod types;

pub use constants::*;
pub use extensions::*;
pub use root::{KdRootV1, KdRootV1_Ref};
pub use tables::*;
pub use types::*;
