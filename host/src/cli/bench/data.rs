//! `kdhost bench data`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde::Serialize;

use super::{json, median};
use crate::cli::print;
use crate::config::{ResizeMode, TransformConfig};
use crate::data::{Record, Transform, decode, resize};
use crate::exit_code;

/// Arguments of `bench data`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
One thread reads every .jpg and .jpeg file of the folder once, in the order of their names. The
line of JSON has the median times of an image in milliseconds, and the images that a core decodes
and resizes in a second, normalisation not counted.

Example:
  kdhost bench data --folder VOCdevkit/VOC2007/JPEGImages --size 512 512")]
pub struct DataArgs {
    /// Folder of the images; folders below it are not searched.
    #[arg(long, value_name = "DIR")]
    pub folder: PathBuf,
    /// Height and width to resize to.
    #[arg(long, num_args = 2, value_names = ["H", "W"], default_values_t = [512, 512],
          value_parser = clap::value_parser!(u16).range(1..))]
    pub size: Vec<u16>,
}

#[derive(Serialize)]
struct Report {
    images: usize,
    decode_ms: f64,
    resize_ms: f64,
    normalise_ms: f64,
    images_per_s_per_core: f64,
}

/// Times decoding, resizing and normalising.
///
/// # Errors
/// If the folder has no JPEG file, or one is broken.
pub fn run(args: &DataArgs) -> anyhow::Result<i32> {
    print(&json(&measure(args)?))?;
    Ok(exit_code::OK)
}

fn measure(args: &DataArgs) -> anyhow::Result<Report> {
    let files = jpegs(&args.folder)?;
    let size = [usize::from(args.size[0]), usize::from(args.size[1])];
    let transform = Transform::new(&TransformConfig {
        resize: ResizeMode::Fixed,
        size,
        short_side: 1,
        long_side: 1,
        own_scale: 1.0,
        scale_range: [1.0; 2],
        crop_size: Vec::new(),
        area_range: [1.0; 2],
        aspect_range: [1.0; 2],
        flip_prob: 0.0,
        mean: [0.5; 3],
        std: [0.5; 3],
    })?;
    // The first pays for page faults and for finding out what the processor can do; not timed on
    // the other side either.
    std::hint::black_box(resize(&decode(&files[0])?, size));
    let mut stages: [Vec<f64>; 3] = Default::default();
    for file in &files {
        let start = Instant::now();
        let pixels = decode(file)?;
        let decoded = Instant::now();
        let pixels = resize(&pixels, size);
        let resized = Instant::now();
        let record = Record {
            image_id: 0,
            source: String::new(),
            size,
            objects: Vec::new(),
        };
        // Of that size already: all that is left is to normalise.
        std::hint::black_box(transform.apply(&record, &pixels, false));
        let ends = [start, decoded, resized, Instant::now()];
        for (stage, span) in stages.iter_mut().zip(ends.windows(2)) {
            stage.push((span[1] - span[0]).as_secs_f64() * 1e3);
        }
    }
    let counted_ms: f64 = stages[..2].iter().flatten().sum();
    let [decode_ms, resize_ms, normalise_ms] = stages.map(median);
    Ok(Report {
        images: files.len(),
        decode_ms,
        resize_ms,
        normalise_ms,
        images_per_s_per_core: files.len() as f64 / counted_ms * 1e3,
    })
}

/// The JPEG files of a folder, sorted.
fn jpegs(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || format!("folder `{}`", folder.display());
    let mut files = Vec::new();
    for entry in folder.read_dir().with_context(context)? {
        let path = entry.with_context(context)?.path();
        let is_jpeg = path.extension().is_some_and(|extension| {
            ["jpg", "jpeg"]
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        });
        if is_jpeg {
            files.push(path);
        }
    }
    ensure!(
        !files.is_empty(),
        "folder `{}` has no .jpg or .jpeg file; give the folder that holds the images themselves",
        folder.display()
    );
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jpeg_of_a_folder_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let args = DataArgs {
            folder: folder.path().to_owned(),
            size: vec![8, 12],
        };
        let message = measure(&args).err().unwrap().to_string();
        assert!(message.contains("no .jpg or .jpeg file"), "{message}");
        for name in ["b.JPG", "a.jpeg", "c.png"] {
            let image = image::RgbImage::new(24, 16);
            image.save(folder.path().join(name)).unwrap();
        }
        let names = jpegs(folder.path()).unwrap();
        assert!(names[0].ends_with("a.jpeg") && names[1].ends_with("b.JPG"));
        let report = measure(&args).unwrap();
        assert_eq!(report.images, 2);
        assert!(report.images_per_s_per_core > 0.0);
    }
}
