//! Into the library: the dynamic linker, one of the two doors, the tables behind it.
#![expect(unsafe_code, reason = "loads foreign code and reads its tables")]

use std::path::Path;

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{AbiInstability, check_layout_compatibility};
use abi_stable::library::{
    AbiHeaderRef, LibHeader, LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL,
};
use abi_stable::type_layout::{TLFieldOrFunction, TypeLayout};
use kd_abi::{KD_OK, KdMethod, KdPlugin, KdRootV1_Ref};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};

use super::Examined;
use crate::plugin::error::PluginLoadError;
use crate::plugin::host_table::{HOST, HostContext};
use crate::plugin::manifest::Door;

/// The checked tables of a plugin.
pub(super) struct Entered {
    pub(super) plugin: &'static KdPlugin,
    pub(super) methods: Vec<&'static KdMethod>,
}

/// Loads, enters and checks.
pub(super) fn enter(examined: &Examined) -> Result<Entered, PluginLoadError> {
    // SAFETY: constructors of the plugin run here. Its headers were checked; beyond that, loading
    // a plugin means trusting it.
    let handle = unsafe { Handle::open(Some(&examined.path), RTLD_NOW | RTLD_LOCAL) };
    let handle = handle.map_err(|e| PluginLoadError::DlOpen {
        path: examined.path.clone(),
        reason: error_chain(&e),
    })?;
    let root = match examined.manifest.door {
        Door::C => c_door(examined, &handle),
        Door::AbiStable => rust_door(examined, &handle),
    };
    // Dropping the handle would unload, and a library stays whether or not it is welcome: its
    // constructors may have left threads and thread-locals behind.
    let _resident = handle.into_raw();
    check_tables(examined, root?)
}

fn c_door(examined: &Examined, handle: &Handle) -> Result<*const KdPlugin, PluginLoadError> {
    type Entry = unsafe extern "C" fn() -> *const KdPlugin;
    // SAFETY: the header gives `kd_plugin_v1` this signature.
    let entry = unsafe { handle.get::<Entry>(kd_abi::KD_C_ENTRY.as_bytes()) };
    let entry = entry.map_err(|_| no_entry(examined))?;
    // SAFETY: the header demands that the entry be free of side effects and not unwind.
    Ok(unsafe { entry() })
}

fn rust_door(examined: &Examined, handle: &Handle) -> Result<*const KdPlugin, PluginLoadError> {
    // Never `RootModule::load_from*`: it caches by type, so that the second plugin of a process
    // would silently be the first.
    // SAFETY: the symbol is the static header that abi_stable's `export_root_module` defines;
    // `AbiHeaderRef` is a transparent pointer to it and `upgrade` checks its magic.
    let header = unsafe { handle.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
    let header: AbiHeaderRef = *header.map_err(|_| no_entry(examined))?;
    let header = header
        .upgrade()
        .map_err(|e| root_error(examined, None, e))?;
    if header.layout().is_none() {
        return Err(PluginLoadError::LayoutOptOut {
            path: examined.path.clone(),
        });
    }
    let root = header
        .init_root_module::<KdRootV1_Ref>()
        .map_err(|e| root_error(examined, Some(header), e))?;
    Ok(root.plugin()())
}

fn check_tables(examined: &Examined, plugin: *const KdPlugin) -> Result<Entered, PluginLoadError> {
    let table = "KdPlugin";
    check_size::<KdPlugin>(examined, table, plugin)?;
    // SAFETY: non-null, aligned, and of the full size by its own word; tables are 'static and the
    // library stays.
    let plugin: &'static KdPlugin = unsafe { &*plugin };
    let null = |table: &str, field: &'static str| PluginLoadError::NullPointer {
        path: examined.path.clone(),
        table: table.to_owned(),
        field,
    };
    let disagree = |what: &str, manifest: String, table: String| {
        Err(PluginLoadError::TableDisagrees {
            path: examined.path.clone(),
            what: what.to_owned(),
            manifest,
            table,
        })
    };
    let manifest = &examined.manifest;
    let (said, is) = (
        (manifest.abi.major, manifest.abi.minor),
        (plugin.abi_major, plugin.abi_minor),
    );
    if said != is {
        let text = |(major, minor): (u32, u32)| format!("{major}.{minor}");
        return disagree("the ABI version", text(said), text(is));
    }
    if plugin.init.is_none() {
        return Err(null(table, "init"));
    }
    if plugin.deinit.is_none() {
        return Err(null(table, "deinit"));
    }
    let count = plugin.n_methods as usize;
    if count != manifest.methods.len() {
        let said = manifest.methods.len().to_string();
        return disagree("the number of methods", said, count.to_string());
    }
    if plugin.methods.is_null() {
        return Err(null(table, "methods"));
    }
    let mut methods = Vec::with_capacity(count);
    for (index, said) in manifest.methods.iter().enumerate() {
        // SAFETY: `methods` has `n_methods` entries by the contract of the table.
        let method = unsafe { plugin.methods.add(index).read() };
        let table = format!("KdMethod of `{}`", said.id);
        check_size::<KdMethod>(examined, &table, method)?;
        // SAFETY: as for the plugin's table.
        let method: &'static KdMethod = unsafe { &*method };
        if let Some(field) = first_null(method) {
            return Err(null(&table, field));
        }
        // SAFETY: the id is a string in the plugin's constant data.
        let id = String::from_utf8_lossy(unsafe { method.id.as_bytes() });
        if id != said.id {
            let what = format!("the id of method {index}");
            return disagree(&what, format!("`{}`", said.id), format!("`{id}`"));
        }
        methods.push(method);
    }
    Ok(Entered { plugin, methods })
}

fn first_null(method: &KdMethod) -> Option<&'static str> {
    let entries = [
        ("create", method.create.is_none()),
        ("destroy", method.destroy.is_none()),
        ("plan", method.plan.is_none()),
        ("init_state", method.init_state.is_none()),
        ("forward", method.forward.is_none()),
        ("backward", method.backward.is_none()),
        ("release_saved", method.release_saved.is_none()),
        ("get_extension", method.get_extension.is_none()),
        ("id", method.id.ptr.is_null()),
    ];
    entries
        .into_iter()
        .find_map(|(name, null)| null.then_some(name))
}

/// Every table begins with its size as a `u32`, which is read before anything else of it.
fn check_size<T>(
    examined: &Examined,
    table: &str,
    pointer: *const T,
) -> Result<(), PluginLoadError> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(PluginLoadError::NullPointer {
            path: examined.path.clone(),
            table: table.to_owned(),
            field: "the table itself",
        });
    }
    // SAFETY: non-null and aligned; the first field of every table is a `u32`.
    let got = unsafe { pointer.cast::<u32>().read() };
    if got as usize != size_of::<T>() {
        return Err(PluginLoadError::StructSize {
            path: examined.path.clone(),
            table: table.to_owned(),
            expected: size_of::<T>(),
            got,
        });
    }
    Ok(())
}

/// Calls `init`.
pub(super) fn initialise(
    path: &Path,
    plugin_id: &str,
    plugin: &'static KdPlugin,
) -> Result<(), PluginLoadError> {
    let init = plugin.init.expect("checked with the table");
    // The context is leaked with the library: a plugin that keeps the pointer against the rules
    // then reaches an inactive context instead of freed memory.
    let context: &'static HostContext = Box::leak(Box::new(HostContext::new(plugin_id, "", &[])));
    context.begin("init", false);
    // SAFETY: host table and context live for ever; `init` may not unwind.
    let status = unsafe { init(&raw const HOST, context.as_pointer()) };
    let outcome = context.end();
    if status == KD_OK {
        return Ok(());
    }
    Err(PluginLoadError::Init {
        path: path.to_path_buf(),
        status,
        message: outcome.message(),
    })
}

/// Calls `deinit`.
pub(super) fn deinitialise(plugin: &'static KdPlugin) {
    let deinit = plugin.deinit.expect("checked with the table");
    // SAFETY: no instance of the plugin is left, and `deinit` may not unwind.
    unsafe { deinit() }
}

fn no_entry(examined: &Examined) -> PluginLoadError {
    PluginLoadError::NoEntry {
        path: examined.path.clone(),
        door: examined.manifest.door.name(),
        symbol: examined.manifest.door.symbol(),
        exported: examined.facts.exported_shown(),
    }
}

fn root_error(
    examined: &Examined,
    header: Option<&'static LibHeader>,
    error: LibraryError,
) -> PluginLoadError {
    let path = examined.path.clone();
    match error {
        LibraryError::AbiInstability(report) => {
            let report = report.to_string();
            let (type_name, problem) = header
                .and_then(LibHeader::layout)
                .and_then(first_difference)
                .unwrap_or_else(|| ("KdRootV1".to_owned(), "its layout differs".to_owned()));
            tracing::debug!(target: "kdhost::plugin", path = %path.display(), "{report}");
            PluginLoadError::Layout {
                path,
                type_name,
                problem,
                report,
            }
        }
        LibraryError::InvalidAbiHeader(got) => {
            let expected = abi_stable::library::AbiHeader::VALUE;
            PluginLoadError::AbiStable {
                path,
                expected: format!("abi_stable {}.{}", expected.abi_major, expected.abi_minor),
                got: format!("abi_stable {}.{}", got.abi_major, got.abi_minor),
            }
        }
        LibraryError::IncompatibleVersionNumber {
            expected_version,
            actual_version,
            ..
        } => PluginLoadError::AbiStable {
            path,
            expected: format!("kd-abi {expected_version}"),
            got: format!("kd-abi {actual_version}"),
        },
        LibraryError::RootModule { err, .. } => PluginLoadError::RootModule {
            path,
            reason: err.to_string().trim().to_owned(),
        },
        other => PluginLoadError::RootModule {
            path,
            reason: other.to_string().trim().to_owned(),
        },
    }
}

/// The differing type reached first on the walk from the root, and how it differs.
fn first_difference(layout: &'static TypeLayout) -> Option<(String, String)> {
    let errors = check_layout_compatibility(KdRootV1_Ref::LAYOUT, layout).err()?;
    // Types that merely contain a differing one are listed too, without a difference of their own.
    let first = errors
        .errors
        .iter()
        .filter(|error| !error.errs.is_empty())
        .min_by_key(|error| error.index)?;
    let type_name = match &first.stack_trace.last()?.expected {
        TLFieldOrFunction::Field(field) => field.layout().full_type().to_string(),
        TLFieldOrFunction::Function(function) => one_line(&function.to_string()),
    };
    Some((type_name, difference(first.errs.first()?)))
}

fn difference(found: &AbiInstability) -> String {
    match found {
        AbiInstability::UnexpectedField(d) => format!(
            "field `{}` where `{}` is expected",
            d.found.name(),
            d.expected.name()
        ),
        AbiInstability::FieldCountMismatch(d) => {
            format!("{} fields where {} are expected", d.found, d.expected)
        }
        AbiInstability::Size(d) => {
            format!("{} bytes where {} are expected", d.found, d.expected)
        }
        AbiInstability::Name(d) => {
            format!("`{}` where `{}` is expected", d.found, d.expected)
        }
        other => one_line(&format!("{other:?}")),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
