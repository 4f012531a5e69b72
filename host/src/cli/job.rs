//! `kdhost` without a command: the comparison of plain and distilled student.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::clock::Utc;
use super::print;
use super::source::RunSourceArgs;
use crate::config::Config;
use crate::engine::interrupt::Interrupt;
use crate::engine::job::{self, JobOptions};
use crate::engine::progress::ProgressMode;
use crate::engine::table;
use crate::exit_code;

/// Arguments of the main job.
#[derive(Clone, Debug, Default, Args)]
pub struct JobArgs {
    /// Which configuration.
    #[command(flatten)]
    pub source: RunSourceArgs,
    /// What is shown.
    #[command(flatten)]
    pub show: ShowArgs,
}

/// What a job shows while it runs and at its end.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ShowArgs {
    /// No progress bar, and no log below warnings.
    #[arg(short, long)]
    pub quiet: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Trains control, teacher and distilled student and prints the table.
///
/// # Errors
/// If the configuration is refused or a run fails.
pub fn run(args: &JobArgs) -> anyhow::Result<i32> {
    let resolved = args.source.resolve()?;
    run_job(
        &resolved.config,
        args.source.output.clone(),
        false,
        true,
        args.show,
    )
}

/// Runs the engine and prints what came out.
pub(super) fn run_job(
    config: &Config,
    folder: Option<PathBuf>,
    resume: bool,
    control: bool,
    show: ShowArgs,
) -> anyhow::Result<i32> {
    let options = JobOptions {
        folder,
        stamp: Utc::of(SystemTime::now()).stamp(),
        resume,
        control,
        progress: ProgressMode::detect(show.quiet),
    };
    let report = job::run(config, &options, &Interrupt::install()?)?;
    if show.json {
        print(&serde_json::to_string_pretty(&report)?)?;
        return Ok(exit_code::OK);
    }
    let mut text = table::render(&report.rows);
    if let Some(row) = report.rows.last() {
        for cost in table::costs(row) {
            text.push_str(&format!("\n{cost}"));
        }
        for method in &report.methods {
            if let Some(oracle) = table::oracle(row, method) {
                text.push_str(&format!("\n{method}: {oracle}"));
            }
        }
    }
    text.push_str(&format!(
        "\n{}, {}",
        report.student.display(),
        table::spoken(Duration::from_secs_f64(report.seconds))
    ));
    print(&text)?;
    Ok(exit_code::OK)
}
