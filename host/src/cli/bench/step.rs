//! `kdhost bench step`.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{follow, json, median};
use crate::cli::print;
use crate::cli::source::RunSourceArgs;
use crate::engine::bench::StepBench;
use crate::engine::memory::{self, MemoryUsage};
use crate::engine::step::StepReport;
use crate::engine::step_times::{MethodTimes, StepTimes};
use crate::exit_code;

/// Arguments of `bench step`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Weights are the initial ones, those of teachers too; nothing is written. With several methods each
has its own rows.

Examples:
  kdhost bench step
  kdhost bench step --plugin libkd_ssim.so
  kdhost bench step --plugin libkd_ssim.so --plugin libkd_hint.so
  kdhost bench step --config F.toml --repeat 20 --json")]
pub struct StepArgs {
    /// Which configuration.
    #[command(flatten)]
    pub source: RunSourceArgs,
    /// Timed steps; the median is printed.
    #[arg(long, value_name = "N", default_value_t = 9,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub repeat: u16,
    /// Steps before the first timed one.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub warmup: u16,
    /// One line of JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// The model, images and targets of a reference case instead of a configuration.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "set", "plugin", "seed"], requires = "follow")]
    pub reference: Option<PathBuf>,
    /// Wait for a line on standard input before each step, and answer it with its times.
    #[arg(long)]
    pub follow: bool,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
}

#[derive(Serialize)]
struct Answer {
    forward_ms: f64,
    backward_ms: f64,
    optimizer_ms: f64,
    #[serde(flatten)]
    losses: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize)]
struct Peak {
    peak_mib: f64,
}

/// Medians over the timed steps.
#[derive(Serialize)]
struct Summary {
    steps: usize,
    images_per_step: usize,
    total_ms: f64,
    parts_ms: serde_json::Map<String, serde_json::Value>,
    peak_mib: f64,
}

/// Times steps.
///
/// # Errors
/// If the configuration or the case is refused, or a step fails.
pub fn run(args: &StepArgs) -> anyhow::Result<i32> {
    let mut bench = match &args.reference {
        Some(folder) => {
            let device = args.source.device.unwrap_or_default();
            StepBench::of_reference(folder, device)?
        }
        None => StepBench::of_config(&args.source.resolve()?.config)?,
    };
    // Loading is over: the peak is that of the steps. Where the kernel refuses, it is the process's.
    let _ = memory::reset_peak();
    if args.follow {
        print(&json(&Ready { ready: true }))?;
        follow(|_| Ok(json(&answer(&bench.run()?))))?;
        print(&json(&Peak {
            peak_mib: peak_mib(),
        }))?;
        return Ok(exit_code::OK);
    }
    for _ in 0..args.warmup {
        bench.run()?;
    }
    let mut times = Vec::with_capacity(args.repeat.into());
    for _ in 0..args.repeat {
        times.push(bench.run()?.times);
    }
    let parts = StepTimes::median(&times);
    let summary = summarize(&times, &parts, bench.batch_size());
    print(&if args.json {
        json(&summary)
    } else {
        render(&summary, &parts)
    })?;
    Ok(exit_code::OK)
}

fn answer(report: &StepReport) -> Answer {
    let times = &report.times;
    let of_methods = |part: fn(&MethodTimes) -> f64| times.methods.values().map(part).sum::<f64>();
    Answer {
        forward_ms: 1e3
            * (times.student_forward + times.all_teachers() + of_methods(|m| m.forward)),
        backward_ms: 1e3 * (times.student_backward + of_methods(|m| m.backward)),
        optimizer_ms: 1e3 * times.optimizer,
        losses: report
            .losses
            .iter()
            .map(|(name, value)| (name.clone(), (*value).into()))
            .collect(),
    }
}

fn peak_mib() -> f64 {
    MemoryUsage::now().map_or(0.0, |memory| memory.peak_bytes as f64 / f64::from(1 << 20))
}

fn summarize(times: &[StepTimes], parts: &StepTimes, images_per_step: usize) -> Summary {
    Summary {
        steps: times.len(),
        images_per_step,
        total_ms: 1e3 * median(times.iter().map(StepTimes::total).collect()),
        parts_ms: parts
            .named()
            .into_iter()
            .map(|(name, seconds)| (name, (1e3 * seconds).into()))
            .collect(),
        peak_mib: peak_mib(),
    }
}

fn render(summary: &Summary, parts: &StepTimes) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(["part", "ms", "share"]);
    // In the order of a step.
    for (name, seconds) in parts.named() {
        let ms = 1e3 * seconds;
        let share = format!("{:.1} %", 100.0 * ms / summary.total_ms);
        table.add_row([name, format!("{ms:.2}"), share]);
    }
    table.add_row([
        "step".into(),
        format!("{:.2}", summary.total_ms),
        String::new(),
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!(
        "{table}\nmedian of {} steps of {} images, peak memory {:.0} MiB",
        summary.steps, summary.images_per_step, summary.peak_mib
    )
}
