//! The command line: arguments and thin handlers. Standard output carries results, standard error
//! everything else.

use std::io::{self, Write as _};

use clap::{Parser, Subcommand};

pub mod ab;
pub mod bench;
mod clock;
pub mod config;
pub mod eval;
pub mod job;
pub mod model;
pub mod plugin;
pub mod predict;
pub mod report;
pub mod runs;
pub mod show;
pub mod source;
pub mod telemetry;
pub mod train;
pub mod visualize;

const EXAMPLES: &str = "\
Examples:
  kdhost                                        plain training on the embedded default
  kdhost --plugin libkd_ssim.so                 with a method, against the plain student
  kdhost --plugin ./libmine.so --config F.toml  the same experiment on your data
  kdhost train --config F.toml --set train.lr=0.005
  kdhost ab --arm libkd_ssim.so --seeds 5       is it better than plain training, and by how much
  kdhost config show --config F.toml --origin   every setting and who set it

Exit codes: 0 success, 1 the run failed, 2 wrong command line or configuration, 3 a plugin could
not be loaded, 4 a plugin failed while running, 5 data or files, 130 interrupted.
Environment: KDHOST_PLUGIN_PATH (folders of plugins), KDHOST_LOG (what is logged: error, warn, info,
debug, trace, or per module).";

/// Trains object detectors; every distillation method is a shared library.
///
/// Without a command: trains the plain student and, if the method wants one, the teacher (both are
/// kept for reuse), then the distilled student, and prints a table that compares them.
#[derive(Debug, Parser)]
#[command(name = "kdhost", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Arguments of the main job.
    #[command(flatten)]
    pub job: job::JobArgs,
    /// Anything else.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of the main job.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train one student.
    Train(train::TrainArgs),
    /// Compare methods: arms × seeds under equal settings, with statistics and a report.
    Ab(ab::AbArgs),
    /// Evaluate a trained student: the 12 COCO numbers.
    Eval(eval::EvalArgs),
    /// Draw detections on images.
    Predict(predict::PredictArgs),
    /// Draw feature maps of a run: the student's, the method's or the teacher's, and their difference.
    Visualize(visualize::VisualizeArgs),
    /// List and inspect plugins; nothing of them is executed.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Print and check configurations.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Look at the models of a configuration.
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Show what a job will do, before anything runs.
    #[command(subcommand)]
    Show(show::ShowCommand),
    /// List, show and compare runs.
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    /// Time the training step and its operations.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

impl Cli {
    /// Whether `--quiet` was given.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match &self.command {
            None => self.job.show.quiet,
            Some(Command::Train(args)) => args.show.quiet,
            Some(Command::Ab(args)) => args.show.quiet,
            Some(_) => false,
        }
    }
}

/// Carries out a command line and returns the exit code.
///
/// # Errors
/// Whatever ends the command; [`exit_code::of`](crate::exit_code::of) says how the process ends.
pub fn run(cli: Cli) -> anyhow::Result<i32> {
    match cli.command {
        None => job::run(&cli.job),
        Some(Command::Train(args)) => train::run(&args),
        Some(Command::Ab(args)) => ab::run(&args),
        Some(Command::Eval(args)) => eval::run(&args),
        Some(Command::Predict(args)) => predict::run(&args),
        Some(Command::Visualize(args)) => visualize::run(&args),
        Some(Command::Plugin(command)) => plugin::run(&command),
        Some(Command::Config(command)) => config::run(&command),
        Some(Command::Model(command)) => model::run(&command),
        Some(Command::Show(command)) => show::run(&command),
        Some(Command::Runs(command)) => runs::run(&command),
        Some(Command::Bench(command)) => bench::run(&command),
    }
}

/// Writes a result to standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests;
