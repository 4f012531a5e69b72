//! Why a plugin was refused, and why a call into one failed.

mod call;

use std::fmt;
use std::path::PathBuf;

use kd_abi::KdStatus;

pub use call::PluginCallError;

/// A version of the ABI as `major.minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbiVersion {
    /// Changes when old plugins can no longer be called.
    pub major: u32,
    /// Changes when something is added.
    pub minor: u32,
}

impl AbiVersion {
    /// What this host speaks.
    pub const HOST: AbiVersion = AbiVersion {
        major: kd_abi::KD_ABI_MAJOR,
        minor: kd_abi::KD_ABI_MINOR,
    };
}

impl fmt::Display for AbiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A plugin file that cannot be used. Every refusal is its own variant; [`code`](Self::code) is
/// its stable name.
#[derive(Debug, thiserror::Error)]
pub enum PluginLoadError {
    /// No such file in any folder searched.
    #[error(
        "no plugin `{name}` in {}{}; give a path that contains `/`, or add its folder to KDHOST_PLUGIN_PATH",
        list_folders(.searched),
        match .suggestion { Some(s) => format!(" (did you mean `{s}`?)"), None => String::new() }
    )]
    NotFound {
        /// As given by the user.
        name: String,
        /// Folders searched, in order; the path itself if the name contained `/`.
        searched: Vec<PathBuf>,
        /// A file that does exist in one of them.
        suggestion: Option<String>,
    },
    /// A folder, pipe, socket or device.
    #[error("`{}` is {kind}, not a regular file; name the plugin's .so file", .path.display())]
    NotRegularFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {action} `{}`", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
    /// Larger than any plugin ought to be.
    #[error("`{}` has {bytes} bytes, more than the {limit} a plugin may have; is it a plugin?", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Largest size read.
        limit: u64,
    },
    /// Text, an archive, an empty file.
    #[error("`{}` is not a shared library: it starts with {starts_with} where ELF files have 7f 45 4c 46; name the .so that the build produced", .path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        starts_with: String,
    },
    /// 32-bit file on a 64-bit host.
    #[error("`{}` is a {got} ELF file, this host needs {expected}; rebuild the plugin for this machine", .path.display())]
    ElfClass {
        /// The file.
        path: PathBuf,
        /// Class of the host.
        expected: &'static str,
        /// Class of the file.
        got: String,
    },
    /// Other byte order.
    #[error("`{}` is {got}, this host is {expected}; rebuild the plugin for this machine", .path.display())]
    ElfEndianness {
        /// The file.
        path: PathBuf,
        /// Byte order of the host.
        expected: &'static str,
        /// Byte order of the file.
        got: String,
    },
    /// Other processor.
    #[error("`{}` is a plugin for {got} on a host for {expected}; rebuild it for this machine", .path.display())]
    ElfMachine {
        /// The file.
        path: PathBuf,
        /// Processor of the host.
        expected: &'static str,
        /// Processor of the file.
        got: String,
    },
    /// Executable, object file, core dump.
    #[error("`{}` is {got}, not a shared object; build it as a cdylib or with -shared", .path.display())]
    ElfType {
        /// The file.
        path: PathBuf,
        /// What it is.
        got: String,
    },
    /// Part of the file is missing.
    #[error("`{}` is cut off: {part} ends at byte {end}, the file at {size}; copy or build it again", .path.display())]
    ElfExtent {
        /// The file.
        path: PathBuf,
        /// What lies outside.
        part: String,
        /// Where that part ends.
        end: u64,
        /// Size of the file.
        size: u64,
    },
    /// Headers contradict themselves.
    #[error("`{}` is a damaged ELF file: {what}; build it again", .path.display())]
    ElfMalformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A shared library, but not a kdhost plugin.
    #[error("`{}` has no kdhost manifest note, so it is not a plugin; export it with kd_export! (Rust) or KD_MANIFEST (C); {}", .path.display(), exported_text(.exported))]
    NoNote {
        /// The file.
        path: PathBuf,
        /// Symbols it exports, at most 12.
        exported: Vec<String>,
    },
    /// The manifest cannot be read or contradicts itself.
    #[error("the manifest of `{}` is not valid: {problem}", .path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Built for another major version.
    #[error("`{}` wants ABI {plugin}, this host speaks {host}; rebuild the plugin against kd-abi {}.x or use a host of that generation", .path.display(), .host.major)]
    AbiMajor {
        /// The file.
        path: PathBuf,
        /// Wanted by the plugin.
        plugin: AbiVersion,
        /// Spoken here.
        host: AbiVersion,
    },
    /// Built for a later minor version.
    #[error("`{}` wants ABI {plugin}, this host speaks {host} and no more; update kdhost", .path.display())]
    AbiMinor {
        /// The file.
        path: PathBuf,
        /// Wanted by the plugin.
        plugin: AbiVersion,
        /// Spoken here.
        host: AbiVersion,
    },
    /// The door named by the manifest is not there.
    #[error("`{}` says that its door is `{door}` but does not export `{symbol}`; {}", .path.display(), exported_text(.exported))]
    NoEntry {
        /// The file.
        path: PathBuf,
        /// Door in the manifest.
        door: &'static str,
        /// Symbol missing.
        symbol: &'static str,
        /// Symbols it does export, at most 12.
        exported: Vec<String>,
    },
    /// Another file of this name is already in the process, and a process keeps what it loads.
    #[error("`{}` was loaded earlier in this process as sha256 {loaded} and is now {now}; start kdhost again", .path.display())]
    ChangedSinceLoad {
        /// The file.
        path: PathBuf,
        /// Hash then.
        loaded: String,
        /// Hash now.
        now: String,
    },
    /// The dynamic linker refused: undefined symbol, missing dependency, too new a libc.
    #[error("the dynamic linker refused `{}`: {reason}; link the plugin with all it calls (-Wl,-z,defs names what is missing)", .path.display())]
    DlOpen {
        /// The file.
        path: PathBuf,
        /// Its words.
        reason: String,
    },
    /// Built with another abi_stable.
    #[error("`{}` uses {got}, this host {expected}; rebuild it with the same abi_stable", .path.display())]
    AbiStable {
        /// The file.
        path: PathBuf,
        /// Version of the host.
        expected: String,
        /// Version of the plugin.
        got: String,
    },
    /// A struct or a function signature differs.
    #[error("`{}` was built with another layout of `{type_name}`: {problem}; rebuild it against an unchanged kd-abi", .path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// The first differing type.
        type_name: String,
        /// How it differs.
        problem: String,
        /// The whole comparison.
        report: String,
    },
    /// The plugin carries no layout to compare.
    #[error("`{}` switched its layout check off (#[unsafe_no_layout_constant]); remove that attribute", .path.display())]
    LayoutOptOut {
        /// The file.
        path: PathBuf,
    },
    /// The plugin's root module did not come up.
    #[error("the root module of `{}` failed: {reason}", .path.display())]
    RootModule {
        /// The file.
        path: PathBuf,
        /// Its words.
        reason: String,
    },
    /// A table without one of its functions.
    #[error("`{field}` in {table} of `{}` is null; every entry must be set", .path.display())]
    NullPointer {
        /// The file.
        path: PathBuf,
        /// `KdPlugin`, or `KdMethod` with its id.
        table: String,
        /// The field.
        field: &'static str,
    },
    /// A table of another size.
    #[error("{table} of `{}` has struct_size {got}, expected {expected}; set it to sizeof of the struct", .path.display())]
    StructSize {
        /// The file.
        path: PathBuf,
        /// `KdPlugin` or `KdMethod`.
        table: String,
        /// Size here.
        expected: usize,
        /// Size there.
        got: u32,
    },
    /// The code does not offer what the manifest says.
    #[error("manifest and table of `{}` disagree on {what}: manifest {manifest}, table {table}; make both from one source", .path.display())]
    TableDisagrees {
        /// The file.
        path: PathBuf,
        /// On what.
        what: String,
        /// In the manifest.
        manifest: String,
        /// In the table.
        table: String,
    },
    /// `init` returned an error.
    #[error("init of `{}` returned {}: {message}", .path.display(), status_name(*.status))]
    Init {
        /// The file.
        path: PathBuf,
        /// Its status.
        status: KdStatus,
        /// Its words.
        message: String,
    },
}

impl PluginLoadError {
    /// Stable name of the refusal, for scripts and documentation.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "E_NOT_FOUND",
            Self::NotRegularFile { .. } => "E_NOT_FILE",
            Self::Io { .. } => "E_IO",
            Self::TooLarge { .. } => "E_SIZE",
            Self::NotElf { .. } => "E_NOT_ELF",
            Self::ElfClass { .. } => "E_ELF_CLASS",
            Self::ElfEndianness { .. } => "E_ELF_ENDIAN",
            Self::ElfMachine { .. } => "E_ELF_MACHINE",
            Self::ElfType { .. } => "E_ELF_TYPE",
            Self::ElfExtent { .. } => "E_ELF_EXTENT",
            Self::ElfMalformed { .. } => "E_ELF_MALFORMED",
            Self::NoNote { .. } => "E_NO_NOTE",
            Self::Manifest { .. } => "E_MANIFEST",
            Self::AbiMajor { .. } => "E_ABI_MAJOR",
            Self::AbiMinor { .. } => "E_ABI_MINOR",
            Self::NoEntry { .. } => "E_NO_ENTRY",
            Self::ChangedSinceLoad { .. } => "E_CHANGED",
            Self::DlOpen { .. } => "E_DLOPEN",
            Self::AbiStable { .. } => "E_ABI_STABLE",
            Self::Layout { .. } => "E_LAYOUT",
            Self::LayoutOptOut { .. } => "E_LAYOUT_OPTOUT",
            Self::RootModule { .. } => "E_ROOT_MODULE",
            Self::NullPointer { .. } => "E_NULL_POINTER",
            Self::StructSize { .. } => "E_STRUCT_SIZE",
            Self::TableDisagrees { .. } => "E_TABLE",
            Self::Init { .. } => "E_INIT",
        }
    }
}

/// Name of a status as the header has it; an unknown one counts as `KD_E_INTERNAL`.
#[must_use]
pub fn status_name(status: KdStatus) -> &'static str {
    match status {
        kd_abi::KD_OK => "KD_OK",
        kd_abi::KD_E_INVALID_ARG => "KD_E_INVALID_ARG",
        kd_abi::KD_E_UNSUPPORTED => "KD_E_UNSUPPORTED",
        kd_abi::KD_E_CONFIG => "KD_E_CONFIG",
        kd_abi::KD_E_SHAPE => "KD_E_SHAPE",
        kd_abi::KD_E_DTYPE => "KD_E_DTYPE",
        kd_abi::KD_E_DEVICE => "KD_E_DEVICE",
        kd_abi::KD_E_OOM => "KD_E_OOM",
        kd_abi::KD_E_CANCELLED => "KD_E_CANCELLED",
        kd_abi::KD_E_NUMERIC => "KD_E_NUMERIC",
        kd_abi::KD_E_STATE => "KD_E_STATE",
        kd_abi::KD_E_PANIC => "KD_E_PANIC",
        _ => "KD_E_INTERNAL",
    }
}

fn list_folders(folders: &[PathBuf]) -> String {
    if folders.is_empty() {
        return "any folder (none is searched)".to_owned();
    }
    let quoted: Vec<String> = folders
        .iter()
        .map(|f| format!("`{}`", f.display()))
        .collect();
    quoted.join(", ")
}

fn exported_text(exported: &[String]) -> String {
    if exported.is_empty() {
        "it exports no symbol".to_owned()
    } else {
        format!("it exports {}", exported.join(", "))
    }
}
