//! Data sets by the name that configurations use.

use std::sync::Arc;

use super::{Dataset, DatasetError};
use crate::config::DataConfig;

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// For training.
    Train,
    /// For evaluation.
    Val,
}

impl Split {
    /// `train` or `val`, as in configuration keys.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
        }
    }
}

/// Opens one split.
pub type OpenDataset = fn(&DataConfig, Split) -> Result<Arc<dyn Dataset>, DatasetError>;

/// A data set that configurations can name; registered with `inventory::submit!`.
pub struct DatasetEntry {
    /// The name in `data.dataset`.
    pub name: &'static str,
    /// Opens one split.
    pub open: OpenDataset,
}
inventory::collect!(DatasetEntry);

/// Opens the data set that `config` names. Relative paths are relative to the working directory.
///
/// # Errors
/// If the name is unknown, a key that the data set needs is empty, a file is missing or malformed,
/// or the split holds no image.
pub fn open(config: &DataConfig, split: Split) -> Result<Arc<dyn Dataset>, DatasetError> {
    for entry in inventory::iter::<DatasetEntry> {
        if entry.name == config.dataset {
            return (entry.open)(config, split);
        }
    }
    let mut known: Vec<&str> = inventory::iter::<DatasetEntry>
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    known.sort_unstable();
    Err(DatasetError::Unknown {
        name: config.dataset.clone(),
        known: known.join(", "),
    })
}

/// The `[data]` table of the embedded default.
#[cfg(test)]
pub(super) fn default_config() -> DataConfig {
    let base: toml::Table = toml::from_str(include_str!("../../configs/base.toml")).unwrap();
    base["data"].clone().try_into().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_opens() {
        let mut config = default_config();
        config.shapes.num_train = 3;
        config.shapes.num_val = 2;
        assert_eq!(open(&config, Split::Train).unwrap().records().len(), 3);
        assert_eq!(open(&config, Split::Val).unwrap().records().len(), 2);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let mut config = default_config();
        config.dataset = "imagenet".into();
        let message = open(&config, Split::Train).err().unwrap().to_string();
        assert_eq!(
            message,
            "unknown data set `imagenet` (`data.dataset`); known: coco, shapes, voc"
        );
    }

    #[test]
    fn an_empty_path_names_its_key() {
        for (name, split, key) in [
            ("voc", Split::Train, "data.voc.root"),
            ("coco", Split::Train, "data.coco.train_annotations"),
            ("coco", Split::Val, "data.coco.val_annotations"),
        ] {
            let mut config = default_config();
            config.dataset = name.into();
            let message = open(&config, split).err().unwrap().to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
