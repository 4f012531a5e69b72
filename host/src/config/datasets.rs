//! A table for each data set.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The procedural data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShapesConfig {
    /// Training images.
    #[schemars(range(min = 1))]
    pub num_train: usize,
    /// Evaluation images.
    #[schemars(range(min = 1))]
    pub num_val: usize,
    /// `[height, width]` of the generated images.
    #[schemars(inner(range(min = 32)))]
    pub size: [usize; 2],
    /// Seed of the images; apart from the run's seed, so that seeds of an experiment share data.
    #[schemars(range(max = 9_223_372_036_854_775_807_i64))]
    pub seed: u64,
}

/// COCO JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CocoConfig {
    /// Folder of training images.
    #[schemars(extend("x-path" = "file"))]
    pub train_images: PathBuf,
    /// Training annotations.
    #[schemars(extend("x-path" = "file"))]
    pub train_annotations: PathBuf,
    /// Folder of evaluation images.
    #[schemars(extend("x-path" = "file"))]
    pub val_images: PathBuf,
    /// Evaluation annotations.
    #[schemars(extend("x-path" = "file"))]
    pub val_annotations: PathBuf,
}

/// PASCAL VOC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VocConfig {
    /// Folder with `Annotations`, `ImageSets/Main` and `JPEGImages`.
    #[schemars(extend("x-path" = "file"))]
    pub root: PathBuf,
    /// Name of the list in `ImageSets/Main`.
    pub train_split: String,
    /// Name of the list in `ImageSets/Main`.
    pub val_split: String,
    /// Class names in label order; empty: the sorted names found in the training split.
    pub classes: Vec<String>,
    /// Train on objects marked `difficult` (evaluation treats them as crowd).
    pub keep_difficult: bool,
}

/// Folders of images and label maps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SegFolderConfig {
    /// Folder of training images (JPEG or PNG).
    #[schemars(extend("x-path" = "file"))]
    pub train_images: PathBuf,
    /// Folder of training label maps: for each image a PNG of its name, 8-bit gray or palette.
    #[schemars(extend("x-path" = "file"))]
    pub train_labels: PathBuf,
    /// Folder of evaluation images.
    #[schemars(extend("x-path" = "file"))]
    pub val_images: PathBuf,
    /// Folder of evaluation label maps.
    #[schemars(extend("x-path" = "file"))]
    pub val_labels: PathBuf,
    /// Class names; the value of a pixel is an index into them.
    pub classes: Vec<String>,
    /// Values of pixels without a class, beside 255.
    #[schemars(inner(range(max = 255)))]
    pub ignore: Vec<u8>,
}

/// PASCAL VOC's segmentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VocSegConfig {
    /// Folder with `SegmentationClass`, `ImageSets/Segmentation` and `JPEGImages`.
    #[schemars(extend("x-path" = "file"))]
    pub root: PathBuf,
    /// Name of the list in `ImageSets/Segmentation`.
    pub train_split: String,
    /// Name of the list in `ImageSets/Segmentation`.
    pub val_split: String,
    /// Class names in label order, `background` included; empty: VOC's 21.
    pub classes: Vec<String>,
}

/// Cityscapes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CityscapesConfig {
    /// Folder with `leftImg8bit` and `gtFine`.
    #[schemars(extend("x-path" = "file"))]
    pub root: PathBuf,
    /// Name of the folder in both.
    pub train_split: String,
    /// Name of the folder in both.
    pub val_split: String,
}

/// A folder for each class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClassFolderConfig {
    /// Folder of the training images (JPEG or PNG), each at `<class>/<image>`, as torchvision's
    /// `ImageFolder` has them.
    #[schemars(extend("x-path" = "file"))]
    pub train: PathBuf,
    /// Folder of the evaluation images, with the same classes.
    #[schemars(extend("x-path" = "file"))]
    pub val: PathBuf,
    /// Folders that count, in label order, in both; empty: all, sorted by name.
    pub classes: Vec<String>,
}
