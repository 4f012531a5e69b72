//! Segmentation sets that are pairs of files: an image and a PNG of the class of every pixel.

mod cityscapes;
mod label_file;
mod seg_folder;
mod voc_seg;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use self::label_file::read_ids;
use super::decode::{decode_annotated, stored_size};
use super::{Dataset, DatasetError, IGNORE_LABEL, LabelMap, LeftOut, Record, RgbPixels};
use crate::config::OnError;

/// An image and its label map.
struct Pair {
    image: PathBuf,
    labels: PathBuf,
}

/// What the values of label files mean: the classes, in label order, and how to name what is none of
/// them.
#[derive(Clone, Debug)]
struct Meaning {
    classes: Vec<String>,
    /// Label of each value; `None`: the value must not occur.
    labels: [Option<u8>; 256],
    /// For messages: which values may occur, and where that is configured.
    known: String,
}

impl Meaning {
    /// Values are indices into `classes`; 255 and those of `ignore` have no class.
    fn of_indices(classes: Vec<String>, ignore: &[u8], keys: &str) -> Self {
        let mut labels = [None; 256];
        for (value, label) in (0..=u8::MAX).zip(&mut labels) {
            if value == IGNORE_LABEL || ignore.contains(&value) {
                *label = Some(IGNORE_LABEL);
            } else if usize::from(value) < classes.len() {
                *label = Some(value);
            }
        }
        let last = classes.len().saturating_sub(1);
        let known = format!("the classes are 0 to {last}, 255 is none; {keys}");
        Meaning {
            classes,
            labels,
            known,
        }
    }
}

/// A split whose images and label maps are files, each in a fixed order; image ids count from 1.
///
/// - Nothing is decoded at opening: sizes are read from the images' headers, label files must exist.
/// - Label maps are PNG, palette (the indices count, not the colours) or 8-bit gray, of the image's
///   size. A value that is no class ends the run or leaves out the image, as `data.on_error` says.
/// - Records have no objects.
#[derive(Debug)]
pub struct LabelledFiles {
    meaning: Meaning,
    records: Vec<Record>,
    images: Vec<PathBuf>,
    labels: Vec<PathBuf>,
    left_out: LeftOut,
}

impl LabelledFiles {
    /// `source` names the set in messages: a folder or a list.
    fn open(
        source: &Path,
        meaning: Meaning,
        pairs: Vec<Pair>,
        on_error: OnError,
    ) -> Result<Self, DatasetError> {
        let mut dataset = LabelledFiles {
            meaning,
            records: Vec::new(),
            images: Vec::new(),
            labels: Vec::new(),
            left_out: LeftOut::default(),
        };
        for pair in pairs {
            match image_size(&pair) {
                Ok(size) => dataset.push(pair, size),
                Err(error) if on_error == OnError::Error => return Err(error),
                Err(error) => dataset.left_out.images.push(error.to_string()),
            }
        }
        dataset.left_out.warn(&source.display().to_string());
        if dataset.records.is_empty() {
            return Err(file_fault(source, "no image with a label map"));
        }
        Ok(dataset)
    }

    fn push(&mut self, Pair { image, labels }: Pair, size: [usize; 2]) {
        self.records.push(Record {
            image_id: self.records.len() as i64 + 1,
            source: image.display().to_string(),
            size,
            objects: Vec::new(),
        });
        self.images.push(image);
        self.labels.push(labels);
    }
}

/// `[height, width]` of the image, if both files are there.
fn image_size(pair: &Pair) -> Result<[usize; 2], DatasetError> {
    let size = stored_size(&pair.image)?;
    if pair.labels.is_file() {
        return Ok(size);
    }
    let reason = format!("missing: the label map of `{}`", pair.image.display());
    Err(file_fault(&pair.labels, reason))
}

impl Dataset for LabelledFiles {
    fn classes(&self) -> &[String] {
        &self.meaning.classes
    }

    fn records(&self) -> &[Record] {
        &self.records
    }

    fn pixels(&self, index: usize) -> Result<RgbPixels, DatasetError> {
        decode_annotated(&self.images[index], self.records[index].size)
    }

    fn has_label_maps(&self) -> bool {
        true
    }

    fn label_map(&self, index: usize) -> Result<LabelMap, DatasetError> {
        let path = &self.labels[index];
        let mut map = read_ids(path)?;
        let (labels, image) = (map.size, self.records[index].size);
        if labels != image {
            let reason = format!(
                "is {}x{} (width x height) but its image `{}` is {}x{}",
                labels[1],
                labels[0],
                self.images[index].display(),
                image[1],
                image[0]
            );
            return Err(file_fault(path, reason));
        }
        for (position, value) in map.data.iter_mut().enumerate() {
            let Some(label) = self.meaning.labels[usize::from(*value)] else {
                let (row, column) = (position / labels[1], position % labels[1]);
                return Err(DatasetError::Annotation {
                    path: path.display().to_string(),
                    what: format!("pixel in row {row}, column {column}"),
                    reason: format!("value {value} is no class: {}", self.meaning.known),
                });
            };
            *value = label;
        }
        Ok(map)
    }

    fn label_facts(&self) -> Vec<String> {
        let name = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let values = format!("{:?}", self.meaning.labels);
        std::iter::once(values)
            .chain(self.labels.iter().map(name))
            .collect()
    }

    fn left_out(&self) -> &LeftOut {
        &self.left_out
    }
}

fn file_fault(path: &Path, reason: impl ToString) -> DatasetError {
    DatasetError::File {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}

/// An error where the path of `key` is not set.
fn needed(key: &'static str, path: &Path, what: &str) -> Result<(), DatasetError> {
    if path.as_os_str().is_empty() {
        let reason = format!("is empty; set it to {what}");
        return Err(DatasetError::Config { key, reason });
    }
    Ok(())
}

/// The entries of a folder, sorted by name.
fn sorted(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let entries = std::fs::read_dir(folder).map_err(|e| file_fault(folder, e))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<PathBuf>, _>>()
        .map_err(|e| file_fault(folder, e))?;
    paths.sort_unstable();
    Ok(paths)
}
