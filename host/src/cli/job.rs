//! `kdhost` without a command: the comparison of plain and distilled student.

use clap::Args;

use super::source::RunSourceArgs;

/// Arguments of the main job.
#[derive(Clone, Debug, Default, Args)]
pub struct JobArgs {
    /// Which configuration.
    #[command(flatten)]
    pub source: RunSourceArgs,
    /// No progress bar, and no log below warnings.
    #[arg(short, long)]
    pub quiet: bool,
}

/// Trains control, teacher and distilled student and prints the table.
///
/// # Errors
/// If the configuration is refused or a run fails.
pub fn run(args: &JobArgs) -> anyhow::Result<i32> {
    let _resolved = args.source.resolve()?;
    unimplemented!("written by the engine: job::run(&resolved.config, …)")
}
