//! `kdhost bench predict`.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{json, median};
use crate::cli::print;
use crate::device::ComputeDevice;
use crate::engine::export::{self, Trained};
use crate::engine::predict::{PredictTimes, Prediction, predict};
use crate::exit_code;

/// Arguments of `bench predict`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Every student sees one image after the other, all students in turns, so that what else the machine does
meets all of them. Times begin at the decoded image and end at boxes after suppression, labels of
pixels, or probabilities. The ratio to the first student is the median over the same images.

Examples:
  kdhost bench predict IMAGES/*.jpg --checkpoint runs/DIR/student.safetensors
  kdhost bench predict IMAGES/*.jpg --checkpoint LARGE --checkpoint SMALL --repeat 5 --json")]
pub struct PredictArgs {
    /// JPEG or PNG files.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// `student.safetensors` of a run; may be repeated.
    #[arg(long, required = true, value_name = "FILE")]
    pub checkpoint: Vec<PathBuf>,
    /// How often each student sees each image; medians are printed.
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub repeat: u16,
    /// Where to compute: `cpu` or `cuda:0`.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: ComputeDevice,
    /// One line of JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// One student.
#[derive(Serialize)]
struct Summary {
    checkpoint: PathBuf,
    /// Of the first image, padding included.
    input_size: [usize; 2],
    /// Of the first image, three planes of f32.
    input_bytes: usize,
    parameters: usize,
    #[serde(flatten)]
    medians: Medians,
}

/// One that is timed.
struct Student {
    model: Trained,
    /// Of the first image.
    input_size: [usize; 2],
    times: Vec<PredictTimes>,
}

/// Medians over its predictions.
#[derive(Serialize)]
struct Medians {
    prepare_ms: f64,
    network_ms: f64,
    answer_ms: f64,
    total_ms: f64,
    ratio_to_first: f64,
}

/// Times predictions.
///
/// # Errors
/// If a checkpoint or an image cannot be read, or the device fails.
pub fn run(args: &PredictArgs) -> anyhow::Result<i32> {
    let device = args.device.open()?;
    let mut students: Vec<Student> = Vec::new();
    for checkpoint in &args.checkpoint {
        let mut model = export::load(checkpoint)?;
        model.weights = model.weights.on(&device);
        // The first pass pays for page faults, and on a device for compiling kernels.
        let Prediction { input_size, .. } = predict(&model, &args.images[0])?;
        students.push(Student {
            model,
            input_size,
            times: Vec::new(),
        });
    }
    for _ in 0..args.repeat {
        for image in &args.images {
            for student in &mut students {
                student.times.push(predict(&student.model, image)?.times);
            }
        }
    }
    let first = &students[0].times;
    let rows = args.checkpoint.iter().zip(&students);
    let summaries: Vec<Summary> = rows
        .map(|(checkpoint, student)| Summary {
            checkpoint: checkpoint.clone(),
            input_size: student.input_size,
            input_bytes: 3 * student.input_size.iter().product::<usize>() * size_of::<f32>(),
            parameters: parameters(&student.model),
            medians: medians(&student.times, first),
        })
        .collect();
    print(&match args.json {
        true => json(&summaries),
        false => render(&summaries, first.len()),
    })?;
    Ok(exit_code::OK)
}

fn total(times: &PredictTimes) -> f64 {
    times.prepare + times.network + times.answer
}

fn medians(own: &[PredictTimes], first: &[PredictTimes]) -> Medians {
    let of = |part: fn(&PredictTimes) -> f64| 1e3 * median(own.iter().map(part).collect());
    let pairs = own.iter().zip(first);
    Medians {
        prepare_ms: of(|times| times.prepare),
        network_ms: of(|times| times.network),
        answer_ms: of(|times| times.answer),
        total_ms: of(total),
        ratio_to_first: median(
            pairs
                .map(|(own, first)| total(own) / total(first))
                .collect(),
        ),
    }
}

/// Learned numbers, buffers left out.
fn parameters(model: &Trained) -> usize {
    let specs = model
        .model
        .specs()
        .iter()
        .filter(|spec| !spec.kind.is_buffer());
    specs.map(|spec| spec.shape.iter().product::<usize>()).sum()
}

fn render(summaries: &[Summary], count: usize) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "student",
        "input",
        "KiB",
        "parameters",
        "prepare ms",
        "network ms",
        "answer ms",
        "ms/image",
        "of the first",
    ]);
    for summary in summaries {
        let ([height, width], medians) = (summary.input_size, &summary.medians);
        table.add_row([
            summary.checkpoint.display().to_string(),
            format!("{height}x{width}"),
            format!("{:.0}", summary.input_bytes as f64 / 1024.0),
            format!("{:.2} M", summary.parameters as f64 / 1e6),
            format!("{:.2}", medians.prepare_ms),
            format!("{:.2}", medians.network_ms),
            format!("{:.2}", medians.answer_ms),
            format!("{:.2}", medians.total_ms),
            format!("{:.2}", medians.ratio_to_first),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\nmedians of {count} predictions each, from the decoded image on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_image_by_image() {
        let of = |network| PredictTimes {
            prepare: 0.5,
            network,
            answer: 0.5,
        };
        // A slow moment that meets both leaves the ratio alone.
        let first = [of(3.0), of(39.0), of(3.0)];
        let own = [of(1.0), of(19.0), of(1.0)];
        let medians = medians(&own, &first);
        assert_eq!(medians.ratio_to_first, 0.5);
        assert_eq!((medians.network_ms, medians.total_ms), (1e3, 2e3));
    }
}
