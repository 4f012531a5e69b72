//! `export!`: the two symbols and the note that make a crate a plugin.
#![expect(unsafe_code, reason = "static tables are shared between threads")]

use kd_abi::{KD_ABI_MAJOR, KD_ABI_MINOR, KdMethod, KdPlugin};

use crate::entry;

/// Target triple that the SDK, and so the plugin, was built for.
pub const BUILD_TARGET: &str = env!("KD_BUILD_TARGET");
/// Version of the compiler.
pub const BUILD_RUSTC: &str = env!("KD_BUILD_RUSTC");
/// `unwind` or `abort`. A panic of an `abort` plugin ends the host.
pub const BUILD_PANIC: &str = if cfg!(panic = "unwind") {
    "unwind"
} else {
    "abort"
};

/// Pointers to the tables of a plugin's methods.
#[derive(Debug)]
pub struct MethodList<const N: usize>(pub [*const KdMethod; N]);

// SAFETY: pointers to immutable statics.
unsafe impl<const N: usize> Sync for MethodList<N> {}

/// The table of a plugin.
#[must_use]
pub const fn plugin<const N: usize>(methods: &'static MethodList<N>) -> KdPlugin {
    KdPlugin {
        struct_size: size_of::<KdPlugin>() as u32,
        abi_major: KD_ABI_MAJOR,
        abi_minor: KD_ABI_MINOR,
        n_methods: N as u32,
        methods: methods.0.as_ptr(),
        init: Some(entry::init),
        deinit: Some(entry::deinit),
    }
}

/// Length of the parts put together.
#[must_use]
pub const fn concat_len(parts: &[&str]) -> usize {
    let mut len = 0;
    let mut i = 0;
    while i < parts.len() {
        len += parts[i].len();
        i += 1;
    }
    len
}

/// Puts the parts together at compile time.
///
/// # Panics
/// If `N` is not [`concat_len`] of the parts.
#[must_use]
pub const fn concat<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    let mut i = 0;
    while i < parts.len() {
        let part = parts[i].as_bytes();
        let mut j = 0;
        while j < part.len() {
            bytes[at] = part[j];
            at += 1;
            j += 1;
        }
        i += 1;
    }
    assert!(at == N, "N must be concat_len(parts)");
    bytes
}

/// Makes the crate a plugin whose methods are these [`RawMethod`](crate::raw::RawMethod)s.
///
/// See [`export!`](crate::export!) for what it generates.
#[macro_export]
macro_rules! export_raw {
    ($($method:ty),+ $(,)?) => {
        #[allow(unsafe_code, reason = "symbols that a host looks up by name")]
        const _: () = {
            use $crate::__private as kd;

            static METHODS: kd::export::MethodList<{ [$(stringify!($method)),+].len() }> =
                kd::export::MethodList([$({
                    static TABLE: kd::KdMethod = kd::entry::table::<$method>();
                    &raw const TABLE
                }),+]);
            static PLUGIN: kd::KdPlugin = kd::export::plugin(&METHODS);

            extern "C" fn plugin() -> *const kd::KdPlugin {
                &raw const PLUGIN
            }

            fn root_module() -> kd::KdRootV1_Ref {
                kd::root_module(plugin)
            }

            extern "C" fn load() -> kd::RootModuleResult {
                kd::__call_root_module_loader(root_module)
            }

            // The Rust door: abi_stable's header, checked against the host's types when loading.
            // The name is fixed by abi_stable 0.11.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            pub static KD_RUST_DOOR: kd::LibHeader = {
                // SAFETY: `load` returns the module of the type given here.
                unsafe {
                    kd::LibHeader::from_constructor::<kd::KdRootV1_Ref>(
                        load,
                        kd::CheckTypeLayout::Yes,
                    )
                }
            };

            // A test build needs no note, so the file can be generated before it exists.
            #[cfg(not(test))]
            const _: () = {
                const PARTS: &[&str] = &[
                    "{\"schema\":1,\"plugin\":\"",
                    env!("CARGO_PKG_NAME"),
                    "\",\"version\":\"",
                    env!("CARGO_PKG_VERSION"),
                    "\",\"license\":\"",
                    env!("CARGO_PKG_LICENSE"),
                    "\",\"door\":\"abi_stable\",\"abi\":{\"major\":1,\"minor\":0},\"build\":{\"rustc\":\"",
                    kd::export::BUILD_RUSTC,
                    "\",\"target\":\"",
                    kd::export::BUILD_TARGET,
                    "\",\"cpu\":[],\"panic\":\"",
                    kd::export::BUILD_PANIC,
                    "\",\"abi_stable\":\"0.11\",\"kd_abi\":\"1.0.0\",\"kd_plugin\":\"",
                    kd::SDK_VERSION,
                    "\"},\"devices\":[\"cpu\"],\"methods\":",
                    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/methods.json")),
                    "}",
                ];
                const LEN: usize = kd::export::concat_len(PARTS);
                const BYTES: [u8; LEN] = kd::export::concat(PARTS);
                const JSON: &str = match core::str::from_utf8(&BYTES) {
                    Ok(text) => text,
                    Err(_) => panic!("the manifest is not UTF-8"),
                };

                #[used]
                #[unsafe(link_section = ".note.kdhost")]
                static NOTE: kd::ManifestNote<{ kd::padded_len(LEN) }> =
                    kd::ManifestNote::new(JSON);
            };
        };

        #[cfg(test)]
        mod kd_manifest {
            #[allow(unused_imports, reason = "the methods may be named by path")]
            use super::*;

            #[test]
            fn manifest_agrees_with_the_types() {
                let methods = vec![
                    $($crate::manifest::method::<$method>().expect("a schema that hosts read")),+
                ];
                if let Err(reason) =
                    $crate::manifest::check_file(env!("CARGO_MANIFEST_DIR"), methods)
                {
                    panic!("{reason}");
                }
            }
        }
    };
}

/// Makes the crate a plugin whose methods are these [`DistillMethod`](crate::DistillMethod)s.
///
/// Generates the table, the door that a host looks for, the manifest note (from `methods.json`
/// beside `Cargo.toml`) and a test that compares `methods.json` with the types. To write the file
/// the first time, or after a change: `KD_UPDATE_MANIFEST=1 cargo test --lib manifest`.
///
/// Use it once, in a crate with `crate-type = ["cdylib", "rlib"]`. For methods of both levels use
/// [`export_raw!`](crate::export_raw!) and wrap these in [`BurnLevel`](crate::BurnLevel).
#[cfg(feature = "burn")]
#[macro_export]
macro_rules! export {
    ($($method:ty),+ $(,)?) => {
        $crate::export_raw!($($crate::BurnLevel<$method>),+);
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_has_the_name_that_abi_stable_looks_up() {
        assert_eq!(
            abi_stable::library::ROOT_MODULE_LOADER_NAME,
            "_1as_0lib_1header_0root_bmodule_bloader"
        );
    }

    #[test]
    fn parts_are_put_together_in_order() {
        const PARTS: &[&str] = &["a", "", "bc"];
        assert_eq!(&concat::<{ concat_len(PARTS) }>(PARTS), b"abc");
    }
}
