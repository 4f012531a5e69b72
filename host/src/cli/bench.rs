//! `kdhost bench`: what a training step and a prediction cost, and where the time goes.

pub mod data;
pub mod op;
pub mod predict;
pub mod step;

use std::io::{self, BufRead as _};

use clap::Subcommand;
use serde::Serialize;

use super::print;

/// What to time.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// The training step of a configuration, part by part.
    Step(step::StepArgs),
    /// Trained students on image files, in turns: time, input and parameters of each.
    Predict(predict::PredictArgs),
    /// Single operations, as a partner of `tests/bench/side_by_side.py`.
    Op(op::OpArgs),
    /// Decoding and resizing the JPEG files of a folder, on one thread.
    Data(data::DataArgs),
}

/// Carries out a bench.
///
/// # Errors
/// If the configuration or a case is refused, or a step fails.
pub fn run(command: &BenchCommand) -> anyhow::Result<i32> {
    match command {
        BenchCommand::Step(args) => step::run(args),
        BenchCommand::Predict(args) => predict::run(args),
        BenchCommand::Op(args) => op::run(args),
        BenchCommand::Data(args) => data::run(args),
    }
}

/// Answers each line of standard input with one line of JSON, at once.
fn follow(mut answer: impl FnMut(&str) -> anyhow::Result<String>) -> anyhow::Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        if !line.trim().is_empty() {
            print(&answer(line.trim())?)?;
        }
    }
    Ok(())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a report is plain data")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
