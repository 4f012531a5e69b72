//! A plugin file in this process.
//!
//! Loading runs from the harmless to the trusting: read the file once, check its ELF headers, read
//! its manifest; only then give it to the dynamic linker, enter its door, compare its table with
//! the manifest, and call `init`. A library is never unloaded: thread-locals and tables of a Rust
//! plugin must outlive every thread that ever entered it.

mod door;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kd_abi::{KdMethod, KdPlugin};
use sha2::{Digest as _, Sha256};

use super::elf::{self, ElfFacts, ElfFault};
use super::error::{AbiVersion, PluginLoadError};
use super::manifest::{Manifest, ManifestFault, MethodManifest};

/// Largest file read.
const MAX_BYTES: u64 = 1 << 30;

/// A loaded plugin. Kept for the life of the process.
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    sha256: String,
    manifest: Manifest,
    plugin: &'static KdPlugin,
    methods: Vec<&'static KdMethod>,
    initialised: AtomicBool,
}

/// A file that passed every check that needs no execution.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) facts: ElfFacts,
    pub(super) manifest: Manifest,
}

/// Libraries of this process, in the order of loading. The process holds them whether or not we
/// remember: this list only makes a second load of the same bytes return the same library.
static LOADED: Mutex<Vec<Arc<Library>>> = Mutex::new(Vec::new());

impl Library {
    /// Loads the plugin in `path`, running its constructors and its `init`.
    ///
    /// The same bytes give the same library, whatever path they are loaded from.
    ///
    /// # Errors
    /// One variant of [`PluginLoadError`] a reason. Up to and including the manifest nothing of
    /// the plugin has run.
    pub fn load(path: &Path) -> Result<Arc<Library>, PluginLoadError> {
        let examined = examine(path)?;
        // Held while loading, so that two threads cannot initialise the same plugin twice.
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        for library in loaded.iter() {
            if library.sha256 == examined.sha256 {
                library.initialise()?;
                return Ok(Arc::clone(library));
            }
            if library.path == examined.path {
                return Err(PluginLoadError::ChangedSinceLoad {
                    path: examined.path,
                    loaded: library.sha256.clone(),
                    now: examined.sha256,
                });
            }
        }
        let entered = door::enter(&examined)?;
        let library = Arc::new(Library {
            path: examined.path,
            sha256: examined.sha256,
            manifest: examined.manifest,
            plugin: entered.plugin,
            methods: entered.methods,
            initialised: AtomicBool::new(false),
        });
        library.initialise()?;
        tracing::info!(
            target: "kdhost::plugin",
            path = %library.path.display(),
            sha256 = library.sha256,
            plugin = library.manifest.plugin,
            version = library.manifest.version,
            abi = %library.abi(),
            door = library.manifest.door.name(),
            "plugin loaded"
        );
        loaded.push(Arc::clone(&library));
        Ok(library)
    }

    /// Calls `deinit` of every library that no method and no caller uses any more, last loaded
    /// first. For the end of the process; a library loaded again afterwards is initialised again.
    pub fn deinit_idle() {
        let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        for library in loaded.iter().rev() {
            let idle = Arc::strong_count(library) == 1;
            if idle && library.initialised.swap(false, Ordering::Relaxed) {
                door::deinitialise(library.plugin);
            }
        }
    }

    /// The file, absolute and without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// SHA-256 of the file's bytes in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What it says of itself; its table agrees.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// ABI it was built against.
    #[must_use]
    pub fn abi(&self) -> AbiVersion {
        AbiVersion {
            major: self.plugin.abi_major,
            minor: self.plugin.abi_minor,
        }
    }

    /// Called under the lock on `LOADED`, so that no two threads do it.
    fn initialise(&self) -> Result<(), PluginLoadError> {
        if !self.initialised.load(Ordering::Relaxed) {
            door::initialise(&self.path, &self.manifest.plugin, self.plugin)?;
            self.initialised.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What the manifest says of a method; empty `id`: of the only one.
    #[must_use]
    pub fn method_manifest(&self, id: &str) -> Option<&MethodManifest> {
        self.method(id).map(|(_, manifest)| manifest)
    }

    /// The table and the manifest of a method; the only method if `id` is empty.
    pub(super) fn method(&self, id: &str) -> Option<(&'static KdMethod, &MethodManifest)> {
        let index = if id.is_empty() {
            (self.methods.len() == 1).then_some(0)?
        } else {
            self.manifest.methods.iter().position(|m| m.id == id)?
        };
        Some((self.methods[index], &self.manifest.methods[index]))
    }
}

/// Reads and checks a file; executes nothing.
pub(super) fn examine(path: &Path) -> Result<Examined, PluginLoadError> {
    let io = |action: &'static str| {
        move |source: std::io::Error| PluginLoadError::Io {
            path: path.to_path_buf(),
            action,
            source,
        }
    };
    let absolute = match fs::canonicalize(path) {
        Ok(absolute) => absolute,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(PluginLoadError::NotFound {
                name: path.display().to_string(),
                searched: vec![path.to_path_buf()],
                suggestion: None,
            });
        }
        Err(source) => return Err(io("resolve")(source)),
    };
    // Looked at before opening: opening a pipe would wait for a writer.
    refuse_irregular(&absolute, &fs::metadata(&absolute).map_err(io("examine"))?)?;
    let file = File::open(&absolute).map_err(io("open"))?;
    let metadata = file.metadata().map_err(io("examine"))?;
    refuse_irregular(&absolute, &metadata)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io("read"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(PluginLoadError::TooLarge {
            path: absolute,
            bytes: metadata.len(),
            limit: MAX_BYTES,
        });
    }
    let size = bytes.len() as u64;
    let facts = elf::read(&bytes).map_err(|fault| elf_error(absolute.clone(), size, fault))?;
    let Some(json) = &facts.manifest else {
        return Err(PluginLoadError::NoNote {
            exported: facts.exported_shown(),
            path: absolute,
        });
    };
    let manifest =
        Manifest::parse(json).map_err(|fault| manifest_error(absolute.clone(), fault))?;
    let door = manifest.door;
    if !facts.may_export(door.symbol()) {
        return Err(PluginLoadError::NoEntry {
            path: absolute,
            door: door.name(),
            symbol: door.symbol(),
            exported: facts.exported_shown(),
        });
    }
    Ok(Examined {
        path: absolute,
        bytes: size,
        sha256: hex(&Sha256::digest(&bytes)),
        facts,
        manifest,
    })
}

fn refuse_irregular(path: &Path, metadata: &fs::Metadata) -> Result<(), PluginLoadError> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(PluginLoadError::NotRegularFile {
        path: path.to_path_buf(),
        kind: if metadata.is_dir() {
            "a folder"
        } else {
            "a pipe, socket or device"
        },
    })
}

fn elf_error(path: PathBuf, size: u64, fault: ElfFault) -> PluginLoadError {
    match fault {
        ElfFault::NotElf(starts_with) => PluginLoadError::NotElf { path, starts_with },
        ElfFault::Class(got) => PluginLoadError::ElfClass {
            path,
            expected: "64-bit",
            got,
        },
        ElfFault::Endianness(got) => PluginLoadError::ElfEndianness {
            path,
            expected: if cfg!(target_endian = "little") {
                "little-endian"
            } else {
                "big-endian"
            },
            got,
        },
        ElfFault::Machine(expected, got) => PluginLoadError::ElfMachine {
            path,
            expected,
            got,
        },
        ElfFault::Type(got) => PluginLoadError::ElfType { path, got },
        ElfFault::Extent { part, end } => PluginLoadError::ElfExtent {
            path,
            part,
            end,
            size,
        },
        ElfFault::Malformed(what) => PluginLoadError::ElfMalformed { path, what },
    }
}

fn manifest_error(path: PathBuf, fault: ManifestFault) -> PluginLoadError {
    let host = AbiVersion::HOST;
    match fault {
        ManifestFault::Invalid(problem) => PluginLoadError::Manifest { path, problem },
        ManifestFault::AbiMajor(plugin) => PluginLoadError::AbiMajor { path, plugin, host },
        ManifestFault::AbiMinor(plugin) => PluginLoadError::AbiMinor { path, plugin, host },
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
