//! `kdhost predict`.

use std::path::PathBuf;

use clap::Args;

use super::source::SourceArgs;

/// Arguments of `predict`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Example:
  kdhost predict a.jpg b.png --config F.toml --checkpoint runs/DIR/student.safetensors --out drawn")]
pub struct PredictArgs {
    /// JPEG or PNG files.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Which configuration: `student` and `data.transform` matter.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Safetensors file with the student's weights.
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// Folder for the drawn images; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Draw detections from this score on.
    #[arg(long, value_name = "SCORE", default_value_t = 0.3, value_parser = score)]
    pub score_threshold: f32,
}

/// Draws detections on copies of the images.
///
/// # Errors
/// If the configuration is refused, the checkpoint does not fit or an image cannot be read or
/// written.
pub fn run(args: &PredictArgs) -> anyhow::Result<i32> {
    let _resolved = args.source.resolve()?;
    unimplemented!("written by the engine: predict::predict(…)")
}

fn score(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(score) if (0.0..=1.0).contains(&score) => Ok(score),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}
