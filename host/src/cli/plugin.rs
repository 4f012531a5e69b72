//! `kdhost plugin`: what can be said of plugins without executing them.

use clap::Subcommand;
use serde_json::{Value, json};

use super::print;
use crate::config::check_plugin_schema;
use crate::exit_code;
use crate::plugin::SearchPath;
use crate::plugin::catalog::{self, Inspection};
use crate::plugin::manifest::MethodManifest;

/// Commands on plugins.
#[derive(Clone, Debug, Subcommand)]
pub enum PluginCommand {
    /// List the plugins that are found, sound or not.
    ///
    /// Searched in this order: the folders in KDHOST_PLUGIN_PATH, the folder of the executable, its
    /// `plugins` folder.
    List {
        /// Print JSON instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Show what a plugin says of itself: methods, taps, configuration.
    Inspect {
        /// A file name (searched) or a path with a `/`.
        plugin: String,
        /// Print JSON instead of text.
        #[arg(long)]
        json: bool,
    },
}

/// Carries out a command on plugins.
///
/// # Errors
/// If the plugin to inspect is not found or refused.
pub fn run(command: &PluginCommand) -> anyhow::Result<i32> {
    match command {
        PluginCommand::List { json } => list(*json),
        PluginCommand::Inspect { plugin, json } => inspect(plugin, *json),
    }
}

fn list(as_json: bool) -> anyhow::Result<i32> {
    let search = SearchPath::from_env();
    let entries = catalog::list(&search);
    if as_json {
        let entries: Vec<Value> = entries
            .iter()
            .map(|entry| match &entry.plugin {
                Ok(inspection) => inspection_json(inspection),
                Err(error) => json!({
                    "path": entry.path.to_string_lossy(),
                    "error": {"code": error.code(), "message": error.to_string()},
                }),
            })
            .collect();
        print(&format!("{:#}", Value::Array(entries)))?;
        return Ok(exit_code::OK);
    }
    if entries.is_empty() {
        let folders: Vec<String> = search
            .folders()
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        tracing::warn!("no plugins in {}", folders.join(", "));
    }
    for entry in entries {
        print(&entry.to_string())?;
    }
    Ok(exit_code::OK)
}

fn inspect(plugin: &str, as_json: bool) -> anyhow::Result<i32> {
    let path = SearchPath::from_env().find(plugin)?;
    let inspection = catalog::inspect(&path)?;
    print(&match as_json {
        true => format!("{:#}", inspection_json(&inspection)),
        false => inspection.to_string(),
    })?;
    for method in &inspection.manifest.methods {
        check_plugin_schema(&method.config_schema, &method.id)?;
    }
    Ok(exit_code::OK)
}

fn inspection_json(inspection: &Inspection) -> Value {
    let manifest = &inspection.manifest;
    let methods: Vec<Value> = manifest.methods.iter().map(method_json).collect();
    json!({
        "path": inspection.path.to_string_lossy(),
        "bytes": inspection.bytes,
        "sha256": inspection.sha256,
        "plugin": manifest.plugin,
        "version": manifest.version,
        "license": manifest.license,
        "abi": {"major": manifest.abi.major, "minor": manifest.abi.minor},
        "door": manifest.door.name(),
        "devices": manifest.devices,
        "build": manifest.build,
        "exported": inspection.exported,
        "needed": inspection.needed,
        "constructors": inspection.constructors,
        "methods": methods,
    })
}

fn method_json(method: &MethodManifest) -> Value {
    let taps: Vec<Value> = method
        .taps
        .iter()
        .map(|tap| {
            json!({
                "role": tap.role,
                "pattern": tap.pattern,
                "grad": tap.grad,
                "optional": tap.optional,
            })
        })
        .collect();
    json!({
        "id": method.id,
        "title": method.title,
        "doc": method.doc,
        "config_schema": method.config_schema,
        "taps": taps,
        "targets": method.targets,
        "losses": method.losses,
        "maps": method.maps,
        "metrics": method.metrics,
    })
}
