//! Folders of images and of label maps with the same names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{LabelledFiles, Meaning, Pair, file_fault, needed, sorted};
use crate::config::{DataConfig, SegFolderConfig, Task};
use crate::data::{Dataset, DatasetEntry, DatasetError, Split};

inventory::submit! { DatasetEntry {
    name: "seg_folder",
    tasks: &[Task::Segmentation],
    open,
} }

/// Of images, whatever their case.
const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

fn open(config: &DataConfig, _: Task, split: Split) -> Result<Arc<dyn Dataset>, DatasetError> {
    let own = &config.seg_folder;
    let (images, labels, keys) = match split {
        Split::Train => (
            &own.train_images,
            &own.train_labels,
            [
                "data.seg_folder.train_images",
                "data.seg_folder.train_labels",
            ],
        ),
        Split::Val => (
            &own.val_images,
            &own.val_labels,
            ["data.seg_folder.val_images", "data.seg_folder.val_labels"],
        ),
    };
    needed(keys[0], images, "the folder of images")?;
    needed(keys[1], labels, "the folder of label maps")?;
    let meaning = meaning(own)?;
    let dataset = LabelledFiles::open(images, meaning, pairs(images, labels)?, config.on_error)?;
    Ok(Arc::new(dataset))
}

fn meaning(config: &SegFolderConfig) -> Result<Meaning, DatasetError> {
    if !(1..=255).contains(&config.classes.len()) {
        return Err(DatasetError::Config {
            key: "data.seg_folder.classes",
            reason: format!(
                "has {} names; a label map tells 1 to 255 classes apart",
                config.classes.len()
            ),
        });
    }
    let keys = "`data.seg_folder.ignore` lists further values without a class";
    let classes = config.classes.clone();
    Ok(Meaning::of_indices(classes, &config.ignore, keys))
}

/// Every image, in the order of names without extension.
fn pairs(images: &Path, labels: &Path) -> Result<Vec<Pair>, DatasetError> {
    let mut by_stem: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for image in sorted(images)?.into_iter().filter(|path| is_image(path)) {
        let stem = image.file_stem().expect("it has an extension").to_owned();
        if let Some(other) = by_stem.insert(stem, image.clone()) {
            let reason = format!(
                "has the label map of `{}`: names without extension must differ",
                other.display()
            );
            return Err(file_fault(&image, reason));
        }
    }
    let pair = |(stem, image): (OsString, PathBuf)| {
        let mut name = stem;
        name.push(".png");
        Pair {
            image,
            labels: labels.join(name),
        }
    };
    Ok(by_stem.into_iter().map(pair).collect())
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}
