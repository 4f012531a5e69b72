//! A folder a class: `root/<class>/<image>`, as torchvision's `ImageFolder` reads it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::decode::{decode_annotated, stored_size};
use super::{Dataset, DatasetEntry, DatasetError, LeftOut, Record, RgbPixels, Split};
use crate::config::{DataConfig, OnError, Task};

inventory::submit! { DatasetEntry {
    name: "class_folder",
    tasks: &[Task::Classification],
    open,
} }

/// Of images, whatever their case.
const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

/// A split for classification whose images lie in a folder for each class.
///
/// - Classes are the names of the folders, sorted, or as configured; labels count from 0.
/// - Images are ordered by class and then by path, folders within a class's included; ids count from 1.
///   Names that begin with a dot are not looked at.
/// - Nothing is decoded at opening: sizes are read from the images' headers.
/// - Records have no objects.
#[derive(Debug)]
pub struct ClassFolder {
    classes: Vec<String>,
    records: Vec<Record>,
    images: Vec<PathBuf>,
    labels: Vec<usize>,
    left_out: LeftOut,
}

fn open(config: &DataConfig, _: Task, split: Split) -> Result<Arc<dyn Dataset>, DatasetError> {
    let own = &config.class_folder;
    let (key, root) = match split {
        Split::Train => ("data.class_folder.train", &own.train),
        Split::Val => ("data.class_folder.val", &own.val),
    };
    if root.as_os_str().is_empty() {
        let reason = "is empty; set it to the folder that has a folder for each class".into();
        return Err(DatasetError::Config { key, reason });
    }
    let folder = ClassFolder::open(root, &own.classes, config.on_error)?;
    Ok(Arc::new(folder))
}

impl ClassFolder {
    /// Opens `root`; `classes` are the folders that count, in the order of labels, or where there are
    /// none all of them, sorted.
    ///
    /// # Errors
    /// If `root` has no folder, or a file beside them; if a class that is named has none, or a folder no image.
    /// Under [`OnError::Error`] also if an image cannot be read or a file is no JPEG or PNG by its name;
    /// else it is left out and counted.
    pub fn open(root: &Path, classes: &[String], on_error: OnError) -> Result<Self, DatasetError> {
        let found = class_names(root)?;
        let names = match classes.is_empty() {
            true => found,
            false => {
                named(root, classes, &found)?;
                classes.to_vec()
            }
        };
        let mut dataset = ClassFolder {
            classes: names,
            records: Vec::new(),
            images: Vec::new(),
            labels: Vec::new(),
            left_out: LeftOut::default(),
        };
        for label in 0..dataset.classes.len() {
            let folder = root.join(&dataset.classes[label]);
            let before = dataset.images.len();
            for path in files_below(&folder)? {
                match size_of(&path) {
                    Ok(size) => dataset.push(path, size, label),
                    Err(error) if on_error == OnError::Error => return Err(error),
                    Err(error) => dataset.left_out.images.push(error.to_string()),
                }
            }
            if dataset.images.len() == before {
                let reason = "a class without an image; add some, or remove the folder (or leave its \
                              name out of `data.class_folder.classes`)";
                return Err(fault(&folder, reason));
            }
        }
        dataset.left_out.warn(&root.display().to_string());
        Ok(dataset)
    }

    fn push(&mut self, image: PathBuf, size: [usize; 2], label: usize) {
        self.records.push(Record {
            image_id: self.records.len() as i64 + 1,
            source: image.display().to_string(),
            size,
            objects: Vec::new(),
        });
        self.images.push(image);
        self.labels.push(label);
    }
}

impl Dataset for ClassFolder {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn records(&self) -> &[Record] {
        &self.records
    }

    fn pixels(&self, index: usize) -> Result<RgbPixels, DatasetError> {
        decode_annotated(&self.images[index], self.records[index].size)
    }

    fn has_class_labels(&self) -> bool {
        true
    }

    fn class_label(&self, index: usize) -> Result<usize, DatasetError> {
        Ok(self.labels[index])
    }

    fn left_out(&self) -> &LeftOut {
        &self.left_out
    }
}

/// Names of the folders in `root`, sorted.
fn class_names(root: &Path) -> Result<Vec<String>, DatasetError> {
    let mut names = Vec::new();
    for path in entries(root)? {
        if !path.is_dir() {
            let reason =
                "a file beside the folders of the classes; move it into one of them, or away";
            return Err(fault(&path, reason));
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| fault(&path, "the name of a class must be UTF-8"))?;
        names.push(name.to_owned());
    }
    if names.is_empty() {
        let reason = "no folder of a class; images are expected at `<class>/<image>` below it";
        return Err(fault(root, reason));
    }
    Ok(names)
}

/// Checks that every class of a list has a folder.
fn named(root: &Path, classes: &[String], found: &[String]) -> Result<(), DatasetError> {
    match classes.iter().find(|class| !found.contains(class)) {
        None => Ok(()),
        Some(missing) => Err(DatasetError::Config {
            key: "data.class_folder.classes",
            reason: format!(
                "`{missing}` has no folder in `{}`, which has: {}",
                root.display(),
                found.join(", ")
            ),
        }),
    }
}

/// Every file below `folder`, sorted by path.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let mut files = Vec::new();
    for path in entries(folder)? {
        match path.is_dir() {
            true => files.extend(files_below(&path)?),
            false => files.push(path),
        }
    }
    Ok(files)
}

/// What a folder holds, sorted by name, but what begins with a dot.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let entries = std::fs::read_dir(folder).map_err(|e| fault(folder, e))?;
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| fault(folder, e))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// `[height, width]`, of a file that is called as images are.
fn size_of(path: &Path) -> Result<[usize; 2], DatasetError> {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let is_image = extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()));
    match is_image {
        true => stored_size(path),
        false => {
            let reason = "neither `.jpg`, `.jpeg` nor `.png`; remove it, or set `data.on_error = \
                          \"skip\"` to leave such files out";
            Err(fault(path, reason))
        }
    }
}

fn fault(path: &Path, reason: impl ToString) -> DatasetError {
    DatasetError::File {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests;
