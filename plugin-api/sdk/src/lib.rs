#![cfg_attr(feature = "burn", doc = include_str!("../../README.md"))]
#![cfg_attr(
    not(feature = "burn"),
    doc = "Methods on slices; see the feature `burn` for the rest."
)]
#![deny(missing_docs)]

mod call;
mod config;
#[doc(hidden)]
pub mod entry;
mod error;
pub mod export;
mod guard;
mod log;
pub mod manifest;
#[cfg(feature = "burn")]
mod method;
mod plan_sink;
pub mod raw;
pub mod schedule;
mod tap;
mod tensor;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use call::{Call, CallInfo, LogLevel};
pub use config::{MethodConfig, NoConfig, schema};
pub use error::MethodError;
pub use schedule::Schedule;
pub use tap::{Role, TapInfo, TapPattern, Taps};
pub use tensor::{TensorView, TensorViewMut};
pub use tracing;

#[cfg(feature = "burn")]
pub use burn;
#[cfg(feature = "cpu")]
pub use method::live_views;
#[cfg(feature = "burn")]
pub use method::{
    BurnLevel, Connector, Connectors, Conv2d, DenseHead, DistillMethod, Divergence, Inputs, Levels,
    MapSize, Noise, Outputs, Packed, Pair, Plan, ResizeGrid, Surprise, resize_bilinear,
    resize_bilinear_on, torch_default,
};

/// What [`export!`] expands to. Not for authors.
#[doc(hidden)]
pub mod __private {
    pub use abi_stable::library::{
        __call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult,
    };
    pub use kd_abi::note::{ManifestNote, padded_len};
    pub use kd_abi::{KdMethod, KdPlugin, KdRootV1_Ref};

    pub use crate::{entry, export};

    /// Version of this crate.
    pub const SDK_VERSION: &str = env!("CARGO_PKG_VERSION");

    /// Leaks the root module; libraries are never unloaded.
    pub fn root_module(plugin: extern "C" fn() -> *const KdPlugin) -> KdRootV1_Ref {
        use abi_stable::prefix_type::PrefixTypeTrait;
        kd_abi::KdRootV1 { plugin }.leak_into_prefix()
    }
}
