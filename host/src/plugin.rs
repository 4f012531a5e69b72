//! Plugins: from a file name to callable methods. The only place in the host with `unsafe`.
//!
//! Reading order: [`resolve`] (which file), [`elf`] (is it safe to hand to the dynamic linker),
//! [`manifest`] (what it says of itself), [`library`] (loading and the two doors),
//! [`host_table`] and `conv_extension` (what a plugin may call), [`method`] (one instance, wrapped), [`catalog`]
//! (looking without executing), [`error`].
//!
//! What loading promises: every refusal up to and including the manifest happens before any
//! instruction of the plugin runs. Once loaded, a plugin is trusted code in this process; a plugin
//! that corrupts memory or exits takes the host with it.

pub mod catalog;
mod conv_extension;
pub mod elf;
pub mod error;
pub mod host_table;
pub mod library;
pub mod manifest;
pub mod method;
pub mod resolve;

pub use error::{PluginCallError, PluginLoadError};
pub use library::Library;
pub use manifest::{Manifest, MethodManifest};
pub use method::{
    ArrayMut, CallInfo, LossSpec, MapSpec, Method, Plan, ProgramDoor, ProgramKind, Saved,
    TapBinding, TensorArg, TensorData, TensorSpec, TraceRequest,
};
pub use resolve::SearchPath;
