//! `kdhost train`.

use std::path::PathBuf;

use clap::Args;

use super::job::{ShowArgs, run_job};
use super::source::RunSourceArgs;
use crate::config::Config;

/// Arguments of `train`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  kdhost train --config F.toml
  kdhost train --config F.toml --plugin libkd_ssim.so --set distill.loss_weights.NAME=2
  kdhost train --resume runs/DIR")]
pub struct TrainArgs {
    /// Which configuration.
    #[command(flatten)]
    pub source: RunSourceArgs,
    /// Continue the run in this directory, with its configuration; `--device` may differ.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "set", "plugin", "output", "seed"])]
    pub resume: Option<PathBuf>,
    /// What is shown.
    #[command(flatten)]
    pub show: ShowArgs,
}

/// Trains one student.
///
/// # Errors
/// If the configuration is refused or the run fails.
pub fn run(args: &TrainArgs) -> anyhow::Result<i32> {
    let (config, folder) = match &args.resume {
        Some(folder) => {
            let mut config = Config::of_run(folder)?;
            if let Some(device) = args.source.device {
                config.device = device.to_string();
            }
            (config, Some(folder.clone()))
        }
        None => (args.source.resolve()?.config, args.source.output.clone()),
    };
    run_job(&config, folder, args.resume.is_some(), false, args.show)
}
