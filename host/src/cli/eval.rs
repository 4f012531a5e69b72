//! `kdhost eval`.

use std::path::PathBuf;

use clap::Args;

use super::source::SourceArgs;

/// Arguments of `eval`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  kdhost eval --config F.toml --checkpoint runs/DIR/student.safetensors
  kdhost eval --config F.toml --checkpoint C --json > metrics.json")]
pub struct EvalArgs {
    /// Which configuration: `student`, `data` and `eval` matter.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Safetensors file with the student's weights.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// Evaluates on the validation split and prints the 12 numbers and AP per class.
///
/// # Errors
/// If the configuration is refused, the checkpoint does not fit or an image cannot be read.
pub fn run(args: &EvalArgs) -> anyhow::Result<i32> {
    let _resolved = args.source.resolve()?;
    unimplemented!("written by the engine: evaluate::evaluate(…)")
}
