//! Looking at plugins without running them.

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::PluginLoadError;
use super::library::examine;
use super::manifest::Manifest;
use super::resolve::SearchPath;

/// A plugin file, described from its bytes alone.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Absolute path.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file in hexadecimal.
    pub sha256: String,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Symbols it exports; empty if it has no section table.
    pub exported: Vec<String>,
    /// Functions that loading it would run before anything else.
    pub constructors: u64,
    /// Libraries that loading it would load too.
    pub needed: Vec<String>,
}

/// One file of a listing.
#[derive(Debug)]
pub struct CatalogEntry {
    /// The file.
    pub path: PathBuf,
    /// What it is, or why it cannot be used.
    pub plugin: Result<Inspection, PluginLoadError>,
}

/// Describes the plugin in `path`. Executes nothing of it.
///
/// # Errors
/// Every refusal that [`Library::load`](super::Library::load) can make before it loads.
pub fn inspect(path: &Path) -> Result<Inspection, PluginLoadError> {
    let examined = examine(path)?;
    Ok(Inspection {
        path: examined.path,
        bytes: examined.bytes,
        sha256: examined.sha256,
        manifest: examined.manifest,
        exported: examined.facts.exported.unwrap_or_default(),
        constructors: examined.facts.constructors,
        needed: examined.facts.needed,
    })
}

/// Every plugin in the search path, sound or not. Shared libraries that are no plugins at all are
/// left out.
#[must_use]
pub fn list(search: &SearchPath) -> Vec<CatalogEntry> {
    search
        .shared_libraries()
        .into_iter()
        .map(|path| CatalogEntry {
            plugin: inspect(&path),
            path,
        })
        .filter(|entry| !matches!(entry.plugin, Err(PluginLoadError::NoNote { .. })))
        .collect()
}

impl fmt::Display for CatalogEntry {
    /// One line: ids, version and door, or the refusal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.plugin {
            Ok(plugin) => {
                let methods: Vec<&str> = plugin
                    .manifest
                    .methods
                    .iter()
                    .map(|m| m.id.as_str())
                    .collect();
                write!(
                    f,
                    "{}: {} {} (door {}, methods {})",
                    self.path.display(),
                    plugin.manifest.plugin,
                    plugin.manifest.version,
                    plugin.manifest.door.name(),
                    methods.join(", ")
                )
            }
            Err(error) => write!(f, "{}: {}: {error}", self.path.display(), error.code()),
        }
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest = &self.manifest;
        writeln!(f, "path         {}", self.path.display())?;
        writeln!(f, "size         {} bytes", self.bytes)?;
        writeln!(f, "sha256       {}", self.sha256)?;
        writeln!(f, "plugin       {} {}", manifest.plugin, manifest.version)?;
        writeln!(f, "license      {}", or_dash(&manifest.license))?;
        writeln!(
            f,
            "abi          {}.{}",
            manifest.abi.major, manifest.abi.minor
        )?;
        writeln!(f, "door         {}", manifest.door.name())?;
        writeln!(f, "devices      {}", or_dash(&manifest.devices.join(", ")))?;
        for (key, value) in &manifest.build {
            writeln!(f, "build        {key} = {value}")?;
        }
        writeln!(f, "exports      {}", or_dash(&self.exported.join(", ")))?;
        writeln!(f, "needs        {}", or_dash(&self.needed.join(", ")))?;
        writeln!(f, "constructors {}", self.constructors)?;
        for method in &manifest.methods {
            writeln!(f, "method       {} {}", method.id, method.title)?;
            for tap in &method.taps {
                let gradient = if tap.grad { ", gradient" } else { "" };
                let optional = if tap.optional { ", optional" } else { "" };
                writeln!(
                    f,
                    "  tap        {} {}{gradient}{optional}",
                    tap.role, tap.pattern
                )?;
            }
            for (name, values) in [
                ("targets", &method.targets),
                ("losses", &method.losses),
                ("maps", &method.maps),
                ("metrics", &method.metrics),
            ] {
                if !values.is_empty() {
                    writeln!(f, "  {name:<10} {}", values.join(", "))?;
                }
            }
            writeln!(f, "  config     {}", method.config_schema)?;
        }
        Ok(())
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
