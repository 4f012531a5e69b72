//! `kdhost runs`: what was trained, what it was trained with, and how two runs differ.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::clock::Utc;
use super::print;
use crate::engine::EngineError;
use crate::exit_code;
use crate::runs::compare::compare;
use crate::runs::read::Run;

mod diff;
mod list;
mod show;

/// Commands on runs. Nothing is written, and no plugin is loaded.
#[derive(Clone, Debug, Subcommand)]
pub enum RunsCommand {
    /// A line for each run below a folder: settings in a few words, state, result, speed.
    List(ListArgs),
    /// Everything about one run: state, settings, environment, plugins, results, costs, files.
    Show(ShowArgs),
    /// Where two runs differ: settings, environment, plugins, data; and their results side by side.
    Diff(DiffArgs),
}

/// Arguments of `runs list`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Stages of a job stand indented below it. A run whose files are broken is a line that says so.

Examples:
  kdhost runs list                 below `runs`, oldest first
  kdhost runs list runs --sort AP  the best first
  kdhost runs list --all --json    with the controls and teachers that the cache keeps")]
pub struct ListArgs {
    /// Where to look, at any depth. Without it: `output_dir` of the embedded default.
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Also the controls and teachers that are kept for other jobs.
    #[arg(long)]
    pub all: bool,
    /// Show this number of the last evaluation, `AP50` for example, and sort by it, the highest first.
    #[arg(long, value_name = "METRIC")]
    pub sort: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `runs show`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  kdhost runs show runs/DIR
  kdhost runs show runs/DIR/stages/1-NAME --json")]
pub struct ShowArgs {
    /// The directory of a run.
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `runs diff`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Each group says so where there is no difference; the exit code is 0 either way.

Examples:
  kdhost runs diff runs/A runs/B
  kdhost runs diff runs/A runs/B --all     also where files go, and the like
  kdhost runs diff runs/A runs/B --json")]
pub struct DiffArgs {
    /// The directory of a run.
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// The directory of another.
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// Also settings that cannot change a result: `output_dir`, `data.workers` and the like.
    #[arg(long)]
    pub all: bool,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Carries out a command on runs.
///
/// # Errors
/// If a folder cannot be read, or the run that is asked for is none or broken.
pub fn run(command: &RunsCommand) -> anyhow::Result<i32> {
    match command {
        RunsCommand::List(args) => return list::run(args),
        RunsCommand::Show(args) => {
            let run = Run::read(&args.run)?;
            print(&match args.json {
                true => serde_json::to_string_pretty(&show::json(&run)?)?,
                false => show::text(&run)?,
            })?;
        }
        RunsCommand::Diff(args) => {
            let (a, b) = (with_settings(&args.a)?, with_settings(&args.b)?);
            let comparison = compare(&a, &b);
            print(&match args.json {
                true => {
                    let mut json = serde_json::to_value(&comparison)?;
                    json["a"] = summary(&a);
                    json["b"] = summary(&b);
                    if !args.all {
                        json["without_effect"] = Value::Null;
                    }
                    serde_json::to_string_pretty(&json)?
                }
                false => diff::text(&args.a, &args.b, &comparison, args.all),
            })?;
        }
    }
    Ok(exit_code::OK)
}

/// A run whose settings are known.
fn with_settings(folder: &Path) -> Result<Run, EngineError> {
    let run = Run::read(folder)?;
    match run.config {
        Some(_) => Ok(run),
        None => Err(EngineError::Result {
            path: folder.into(),
            reason:
                "holds the result of a stage that was taken from the cache, without its settings; \
                     compare the job that it belongs to"
                    .into(),
        }),
    }
}

/// What `list` says of a run, as JSON.
fn summary(run: &Run) -> Value {
    let task = run.config.as_ref().map(|config| config.task.name());
    let (evaluation, main) = (run.evaluation.as_ref(), run.main());
    let values = evaluation.map(|evaluation| {
        let values = evaluation.values.iter();
        let values = values.map(|(name, value)| (name.clone(), Value::from(*value)));
        values.collect::<serde_json::Map<String, Value>>()
    });
    json!({
        "folder": run.folder.to_string_lossy(),
        "started": run.started.map(|time| Utc::of(time).to_string()),
        "task": task,
        "student": run.student(),
        "methods": run.methods(),
        "seed": run.config.as_ref().map(|config| config.seed),
        "state": run.state.name(),
        "reached": run.state.reached(),
        "main": main.map(|(metric, value)| json!({"metric": metric, "value": value})),
        "evaluated_at": evaluation.and_then(|evaluation| evaluation.iter),
        "metrics": values,
        "ms_per_step": run.costs.total().map(|seconds| 1e3 * seconds),
    })
}

/// Methods in a cell: `-` for none.
fn methods(run: &Run) -> String {
    match run.methods() {
        labels if labels.is_empty() => "-".to_owned(),
        labels => labels.join(" + "),
    }
}

/// A size in MiB, or in bytes or KiB where it is less.
fn sized(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x0010_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

/// The folder that is searched by default, or an explanation.
fn readable(folder: &Path) -> anyhow::Result<()> {
    match fs::read_dir(folder) {
        Ok(_) => Ok(()),
        Err(error) => Err(anyhow::Error::from(error).context(format!(
            "cannot look for runs in `{}`; name the folder that holds them, as in `kdhost runs list DIR`",
            folder.display()
        ))),
    }
}
