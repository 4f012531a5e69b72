//! `kdhost config`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::source::RunSourceArgs;
use super::{print, report};
use crate::config::{Config, MethodEntry, Sources, check_plugin_config};
use crate::plugin::{PluginCallError, PluginLoadError, SearchPath, catalog};
use crate::{exit_code, model};

/// Commands on configurations.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the whole configuration that the arguments give, as TOML.
    Show(ShowArgs),
    /// Check files without running anything.
    Check(CheckArgs),
}

/// Arguments of `config show`.
#[derive(Clone, Debug, Default, Args)]
pub struct ShowArgs {
    /// TOML files, as if each were given by `--config`.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Which configuration.
    #[command(flatten)]
    pub source: RunSourceArgs,
    /// One key a line, with who set it.
    #[arg(long)]
    pub origin: bool,
}

/// Arguments of `config check`.
#[derive(Clone, Debug, Default, Args)]
pub struct CheckArgs {
    /// TOML files, each checked on its own; none: the embedded default.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Sets one value in each of them.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Carries out a command on configurations.
///
/// # Errors
/// If a configuration is refused.
pub fn run(command: &ConfigCommand) -> anyhow::Result<i32> {
    match command {
        ConfigCommand::Show(args) => show(args),
        ConfigCommand::Check(args) => check(args),
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<i32> {
    let mut source = args.source.clone();
    let positional = args.files.iter().cloned();
    source.source.config = positional.chain(source.source.config).collect();
    let resolved = source.resolve()?;
    print(&match args.origin {
        true => resolved.to_toml_with_origins(),
        false => resolved.config.to_toml(),
    })?;
    Ok(exit_code::OK)
}

/// Reports every file, and ends with the code of the first that is refused.
fn check(args: &CheckArgs) -> anyhow::Result<i32> {
    if args.files.is_empty() {
        check_one(None, &args.set)?;
        print("embedded default: ok")?;
        return Ok(exit_code::OK);
    }
    let mut code = exit_code::OK;
    for file in &args.files {
        match check_one(Some(file), &args.set) {
            Ok(()) => print(&format!("{}: ok", file.display()))?,
            Err(error) => {
                report::error(&error);
                if code == exit_code::OK {
                    code = exit_code::of(&error);
                }
            }
        }
    }
    Ok(code)
}

fn check_one(file: Option<&Path>, set: &[String]) -> anyhow::Result<()> {
    let sources = Sources {
        files: file.map(Path::to_path_buf).into_iter().collect(),
        set: set.to_vec(),
        ..Sources::default()
    };
    let config = sources.resolve()?.config;
    check_models(&config)
        .and_then(|()| {
            config
                .distill
                .entries()
                .into_iter()
                .try_for_each(check_method)
        })
        .with_context(|| match file {
            Some(file) => format!("{} is refused", file.display()),
            None => "the embedded default is refused".to_owned(),
        })
}

/// The number of classes is the data's; any will do to see whether a model can be built.
fn check_models(config: &Config) -> anyhow::Result<()> {
    const ANY_CLASSES: usize = 1;
    model::build(&config.student, config.task, ANY_CLASSES).context("`student` cannot be built")?;
    model::build(&config.teacher.model, config.task, ANY_CLASSES)
        .context("`teacher.model` cannot be built")?;
    Ok(())
}

/// Checks the method's own configuration against the plugin's manifest. A plugin that is not installed
/// here says nothing about the file, so it is a warning.
fn check_method(entry: MethodEntry<'_>) -> anyhow::Result<()> {
    let path = match SearchPath::from_env().find(&entry.config.plugin) {
        Ok(path) => path,
        Err(missing @ PluginLoadError::NotFound { .. }) => {
            tracing::warn!("`{}` is not checked: {missing}", entry.key("config"));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let manifest = catalog::inspect(&path)?.manifest;
    let method = match (&manifest.methods[..], entry.config.method.as_str()) {
        ([only], "") => Some(only),
        (_, id) => manifest.method(id),
    };
    let method = method.ok_or_else(|| PluginCallError::UnknownMethod {
        plugin: manifest.plugin.clone(),
        method: entry.config.method.clone(),
        available: manifest.methods.iter().map(|m| m.id.clone()).collect(),
    })?;
    check_plugin_config(
        &method.config_schema,
        &entry.config.config,
        &entry.key("config"),
        &method.id,
    )?;
    Ok(())
}
