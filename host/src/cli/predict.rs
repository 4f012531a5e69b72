//! `kdhost predict`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::print;
use crate::data::LabelMap;
use crate::device::ComputeDevice;
use crate::engine::predict::{Predicted, Prediction};
use crate::engine::{export, predict};
use crate::exit_code;
use crate::visualize::overlay::with_legend;
use crate::visualize::{draw_detections, overlay, save_png, with_class};

/// How much of an overlay is the class's colour.
const OVERLAY_ALPHA: f32 = 0.5;

/// Classes of an image that are printed.
const SHOWN_CLASSES: usize = 5;

/// Arguments of `predict`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Example:
  kdhost predict a.jpg b.png --checkpoint runs/DIR/student.safetensors --out drawn")]
pub struct PredictArgs {
    /// JPEG or PNG files.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// `student.safetensors` of a run; it holds architecture, classes and input transform.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Folder for the drawn images; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Where to compute: `cpu` or `cuda:0`.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: ComputeDevice,
    /// Draw detections from this score on.
    #[arg(long, value_name = "SCORE", default_value_t = 0.3, value_parser = score)]
    pub score_threshold: f32,
}

/// Draws detections, classes of pixels as colours, or the class of the whole, on copies of the images.
///
/// # Errors
/// If the configuration is refused, the checkpoint does not fit or an image cannot be read or
/// written.
pub fn run(args: &PredictArgs) -> anyhow::Result<i32> {
    let mut model = export::load(&args.checkpoint)?;
    model.weights = model.weights.on(&args.device.open()?);
    fs::create_dir_all(&args.out)
        .with_context(|| format!("`--out {}`: the folder cannot be made", args.out.display()))?;
    for path in &args.images {
        let Prediction {
            pixels, predicted, ..
        } = predict::predict(&model, path)?;
        let name = path
            .file_stem()
            .map_or("image".into(), |n| n.to_string_lossy().into_owned());
        let out = args.out.join(format!("{name}.png"));
        let mut text = format!("{} -> {}", path.display(), out.display());
        let found = match predicted {
            Predicted::Detections(found) => found,
            Predicted::Labels(labels) => {
                let drawn = overlay(&pixels, &labels, OVERLAY_ALPHA);
                save_png(&with_legend(&drawn, &labels, &model.classes), &out)?;
                text.push_str(&shares(&labels, &model.classes));
                print(&text)?;
                continue;
            }
            Predicted::Classes(probabilities) => {
                save_png(&with_class(&pixels, &probabilities, &model.classes), &out)?;
                text.push_str(&ranked(&probabilities, &model.classes));
                print(&text)?;
                continue;
            }
        };
        let kept = found
            .scores
            .iter()
            .take_while(|s| **s >= args.score_threshold)
            .count();
        let drawn = draw_detections(
            &pixels,
            &found.boxes_xyxy[..kept],
            &found.labels[..kept],
            Some(&found.scores[..kept]),
            &model.classes,
        );
        save_png(&drawn, &out)?;
        for ((bbox, score), label) in found
            .boxes_xyxy
            .iter()
            .zip(&found.scores)
            .zip(&found.labels)
            .take(kept)
        {
            let [x1, y1, x2, y2] = bbox;
            let class = &model.classes[*label];
            text.push_str(&format!(
                "\n  {class} {score:.2} [{x1:.0}, {y1:.0}, {x2:.0}, {y2:.0}]"
            ));
        }
        print(&text)?;
    }
    Ok(exit_code::OK)
}

/// How much of the image each class covers, largest first.
fn shares(labels: &LabelMap, classes: &[String]) -> String {
    let mut counts = vec![0usize; classes.len()];
    for &label in &labels.data {
        counts[usize::from(label)] += 1;
    }
    let mut present: Vec<(usize, &String)> = counts.into_iter().zip(classes).collect();
    present.retain(|(count, _)| *count > 0);
    present.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let share = |count: usize| 100.0 * count as f64 / labels.data.len() as f64;
    let lines = present.into_iter();
    lines
        .map(|(count, class)| format!("\n  {class} {:.1} %", share(count)))
        .collect()
}

/// The likeliest classes, largest first.
fn ranked(probabilities: &[f32], classes: &[String]) -> String {
    let mut all: Vec<(f32, &String)> = probabilities.iter().copied().zip(classes).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let lines = all.iter().take(SHOWN_CLASSES);
    lines
        .map(|(probability, class)| format!("\n  {class} {probability:.2}"))
        .collect()
}

fn score(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(score) if (0.0..=1.0).contains(&score) => Ok(score),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}
