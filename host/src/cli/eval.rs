//! `kdhost eval`.

use std::path::PathBuf;

use clap::Args;

use super::print;
use super::source::SourceArgs;
use crate::config::DataConfig;
use crate::data::{self, Split};
use crate::engine::{EngineError, evaluate, export};
use crate::exit_code;

/// Arguments of `eval`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  kdhost eval --config F.toml --checkpoint runs/DIR/student.safetensors
  kdhost eval --config F.toml --checkpoint C --json > metrics.json")]
pub struct EvalArgs {
    /// Which configuration: `data` and `eval` matter; the model is in the checkpoint.
    #[command(flatten)]
    pub source: SourceArgs,
    /// `student.safetensors` of a run.
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
    let config = args.source.resolve()?.config;
    let model = export::load(&args.checkpoint)?;
    let dataset = data::open(&config.data, Split::Val)?;
    if dataset.classes() != model.classes {
        return Err(EngineError::Classes {
            train: model.classes.join(", "),
            val: dataset.classes().join(", "),
        }
        .into());
    }
    // The file says how its images are prepared; the configuration says which images.
    let data = DataConfig {
        transform: model.transform.clone(),
        ..config.data.clone()
    };
    let weights = model.weights.tensors();
    let set = evaluate::EvaluationSet {
        dataset: &dataset,
        data: &data,
        eval: &config.eval,
    };
    let evaluation = evaluate::evaluate(model.detector.as_ref(), weights, set)?;
    if args.json {
        print(&serde_json::to_string_pretty(&evaluation.metrics)?)?;
    } else {
        print(&evaluation.metrics.to_string())?;
    }
    Ok(exit_code::OK)
}
