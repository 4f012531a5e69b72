//! Data sets by the name that configurations use.

use std::sync::Arc;

use super::{Dataset, DatasetError};
use crate::config::{DataConfig, Task};

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
pub type OpenDataset = fn(&DataConfig, Task, Split) -> Result<Arc<dyn Dataset>, DatasetError>;

/// A data set that configurations can name; registered with `inventory::submit!`.
pub struct DatasetEntry {
    /// The name in `data.dataset`.
    pub name: &'static str,
    /// What can be learned from it.
    pub tasks: &'static [Task],
    /// Opens one split for one of these tasks.
    pub open: OpenDataset,
}
inventory::collect!(DatasetEntry);

/// Opens the data set that `config` names for `task`. Relative paths are relative to the working directory.
///
/// # Errors
/// If the name is unknown, the data set has not what the task learns from, a key that it needs is
/// empty, a file is missing or malformed, or the split holds no image.
pub fn open(
    config: &DataConfig,
    task: Task,
    split: Split,
) -> Result<Arc<dyn Dataset>, DatasetError> {
    for entry in inventory::iter::<DatasetEntry> {
        if entry.name == config.dataset {
            if !entry.tasks.contains(&task) {
                let tasks: Vec<&str> = entry.tasks.iter().map(|task| task.name()).collect();
                return Err(DatasetError::Config {
                    key: "data.dataset",
                    reason: format!(
                        "`{}` is a data set of {}, and `task` is {}",
                        entry.name,
                        tasks.join(" and "),
                        task.name()
                    ),
                });
            }
            return (entry.open)(config, task, split);
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
    use crate::config::Sources;

    #[test]
    fn the_default_opens() {
        let mut config = default_config();
        config.shapes.num_train = 3;
        config.shapes.num_val = 2;
        assert_eq!(
            open(&config, Task::Detection, Split::Train)
                .unwrap()
                .records()
                .len(),
            3
        );
        assert_eq!(
            open(&config, Task::Detection, Split::Val)
                .unwrap()
                .records()
                .len(),
            2
        );
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let mut config = default_config();
        config.dataset = "imagenet".into();
        let message = open(&config, Task::Detection, Split::Train)
            .err()
            .unwrap()
            .to_string();
        assert_eq!(
            message,
            "unknown data set `imagenet` (`data.dataset`); known: cityscapes, class_folder, coco, seg_folder, shapes, voc, voc_seg"
        );
    }

    #[test]
    fn a_data_set_is_refused_for_a_task_that_it_cannot_serve() {
        for entry in inventory::iter::<DatasetEntry> {
            for task in [Task::Detection, Task::Segmentation, Task::Classification] {
                let sources = Sources {
                    set: vec![
                        format!("task={}", task.name()),
                        format!("data.dataset={}", entry.name),
                    ],
                    ..Sources::default()
                };
                let words = format!("and `task` is \"{}\"", task.name());
                let refused = |message: String| message.contains(&words);
                let serves = entry.tasks.contains(&task);
                let by_rule = sources
                    .resolve()
                    .err()
                    .is_some_and(|e| refused(e.to_string()));
                assert_eq!(by_rule, !serves, "{}: {task:?}", entry.name);
                let mut config = default_config();
                config.dataset = entry.name.into();
                let by_open = open(&config, task, Split::Val).err();
                let message = by_open.map(|e| e.to_string()).unwrap_or_default();
                assert_eq!(message.contains("is a data set of"), !serves, "{message}");
            }
        }
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
            let message = open(&config, Task::Detection, split)
                .err()
                .unwrap()
                .to_string();
            assert!(message.contains(key), "{message}");
        }
    }
}
