//! The Rust door: an abi_stable root module that never changes.
#![expect(non_camel_case_types, reason = "names made by abi_stable's derive")]

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::package_version_strings;
use abi_stable::sabi_types::VersionStrings;

use crate::tables::KdPlugin;

/// Root module. One function, for ever: abi_stable refuses a plugin whose prefix type has fewer
/// fields than the host's, so growth happens through extensions and new generations only.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = KdRootV1_Ref)))]
#[sabi(missing_field(panic))]
pub struct KdRootV1 {
    /// Returns the plugin's table; no side effects.
    #[sabi(last_prefix_field)]
    pub plugin: extern "C" fn() -> *const KdPlugin,
}

impl RootModule for KdRootV1_Ref {
    abi_stable::declare_root_module_statics! {KdRootV1_Ref}

    const BASE_NAME: &'static str = "kd_plugin";
    const NAME: &'static str = "kd_plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
