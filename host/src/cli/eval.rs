//! `kdhost eval`.

use std::path::PathBuf;

use clap::Args;

use super::print;
use super::source::SourceArgs;
use crate::config::DataConfig;
use crate::data::{self, Split};
use crate::device::ComputeDevice;
use crate::distill::taps::names;
use crate::engine::checkpoint::Choice;
use crate::engine::evaluate::{EvaluationSet, evaluate, evaluate_oracle};
use crate::engine::restored::Restored;
use crate::engine::{EngineError, export};
use crate::eval::Metrics;
use crate::exit_code;

/// Arguments of `eval`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Examples:
  kdhost eval --config F.toml --checkpoint runs/DIR/student.safetensors
  kdhost eval --config F.toml --checkpoint C --json > metrics.json
  kdhost eval --run runs/DIR --oracle     what the method's maps hold (a diagnostic)")]
pub struct EvalArgs {
    /// Which configuration: `data` and `eval` matter; the model is in the checkpoint.
    #[command(flatten)]
    pub source: SourceArgs,
    /// `student.safetensors` of a run.
    #[arg(long, value_name = "FILE", required_unless_present = "run")]
    pub checkpoint: Option<PathBuf>,
    /// The directory of a run, with its configuration and newest checkpoint.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["checkpoint", "config", "set"])]
    pub run: Option<PathBuf>,
    /// Score the head on the method's maps instead, with the ground truth of the evaluation images fed
    /// to the method: a diagnostic of the maps, not a result of the student.
    #[arg(long, requires = "run")]
    pub oracle: bool,
    /// The method whose maps are scored, by its label, where several make some.
    #[arg(long, value_name = "LABEL", requires = "oracle")]
    pub method: Option<String>,
    /// Where to compute: `cpu` or `cuda:0`. Without it: as the configuration says.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<ComputeDevice>,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// Evaluates on the validation split and prints the 12 numbers and AP per class.
///
/// # Errors
/// If the configuration is refused, the checkpoint does not fit or an image cannot be read.
pub fn run(args: &EvalArgs) -> anyhow::Result<i32> {
    let metrics = match (&args.run, &args.checkpoint) {
        (Some(run), _) => {
            let run = Restored::open(run, Choice::Latest)?;
            let device = args.device.unwrap_or(run.config.compute_device()).open()?;
            of_run(&mut run.on(&device), args)?
        }
        (None, Some(checkpoint)) => of_file(args, checkpoint)?,
        (None, None) => unreachable!("the command line asks for one of them"),
    };
    if args.json {
        print(&serde_json::to_string_pretty(&metrics)?)?;
        return Ok(exit_code::OK);
    }
    if args.oracle {
        print("diagnostic, not a result: the head on the method's maps, ground truth fed in")?;
    }
    print(&metrics.to_string())?;
    Ok(exit_code::OK)
}

fn of_run(run: &mut Restored, args: &EvalArgs) -> Result<Metrics, EngineError> {
    let set = EvaluationSet {
        dataset: &run.datasets.val,
        data: &run.config.data,
        eval: &run.config.eval,
    };
    let (model, weights) = (run.model.as_ref(), run.weights.tensors());
    if !args.oracle {
        return Ok(evaluate(model, weights, set)?.metrics);
    }
    let label = run.choose_method(args.method.as_deref())?;
    let labels: Vec<&str> = run.methods.iter().map(|b| b.label.as_str()).collect();
    let none = EngineError::NoMaps {
        method: names(labels.into_iter()),
    };
    let Some(distiller) = label.and_then(|label| run.methods.get_mut(&label)) else {
        return Err(none);
    };
    let teachers = &run.teachers;
    Ok(evaluate_oracle(model, weights, distiller, teachers, &run.call, set)?.metrics)
}

fn of_file(args: &EvalArgs, checkpoint: &std::path::Path) -> anyhow::Result<Metrics> {
    let config = args.source.resolve()?.config;
    let model = export::load(checkpoint)?;
    let dataset = data::open(&config.data, model.task, Split::Val)?;
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
    let set = EvaluationSet {
        dataset: &dataset,
        data: &data,
        eval: &config.eval,
    };
    let device = args.device.unwrap_or(config.compute_device()).open()?;
    let weights = model.weights.on(&device);
    Ok(evaluate(model.model.as_ref(), weights.tensors(), set)?.metrics)
}
