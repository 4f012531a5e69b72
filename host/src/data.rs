//! Data sets, transforms and the prefetching loader.
//!
//! A [`Dataset`] lists [`Record`]s and decodes pixels and label maps on demand; [`open`] finds it by the name in
//! the configuration. A [`Loader`] turns it into [`Batch`]es: order and augmentation draws depend
//! on the seed, the epoch and the image alone, so workers and resume cannot change them.

mod augmentation;
mod class_folder;
mod coco;
mod decode;
mod fingerprint;
mod geometry;
mod label_map;
mod loader;
mod mask_crop;
mod random_crop;
mod registry;
mod resize;
mod segmentation;
mod selection;
mod shapes;
mod transforms;
mod view;
mod voc;

pub use augmentation::{Augmentation, Crop, flip_drawn};
pub use class_folder::ClassFolder;
pub use coco::CocoDataset;
pub use decode::decode;
pub use fingerprint::{fingerprint, input_fingerprint};
pub use geometry::{Geometry, Part};
pub use label_map::{IGNORE_LABEL, LabelMap};
pub use loader::{Epoch, Loader, LoaderOptions, Skipped};
pub use mask_crop::MaskCrop;
pub use registry::{DatasetEntry, OpenDataset, Split, open};
pub use resize::{RESIZE_FILTER, resize};
pub use segmentation::LabelledFiles;
pub use selection::Selection;
pub use shapes::ShapesDataset;
pub use transforms::{Sample, Transform};
pub use view::{View, ViewSpec};
pub use voc::VocDataset;

/// Ground truth of one image as the network sees it: after resize and flip, crowd regions left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageTargets {
    /// Pixels of the network input.
    pub boxes_xyxy: Vec<[f32; 4]>,
    /// 0-based class indices.
    pub labels: Vec<usize>,
    /// Mask of each object inside its box, `None` where it has none; empty: no object has one.
    pub mask_crops: Vec<Option<MaskCrop>>,
}

/// Where an image of a batch came from.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageMeta {
    /// Id within the data set.
    pub image_id: i64,
    /// `[height, width]` of the original.
    pub original_size: [usize; 2],
    /// `[height, width]` after resize and crop, before padding to the batch's.
    pub size: [usize; 2],
    /// Mirrored left to right.
    pub flipped: bool,
}

impl ImageMeta {
    /// A box of the network input, which must not be a crop, in pixels of the original image: resize
    /// and flip undone, then clipped to the image.
    #[must_use]
    pub fn to_original(&self, box_xyxy: [f32; 4]) -> [f32; 4] {
        let [height, width] = self.size.map(|s| s as f64);
        let [original_height, original_width] = self.original_size.map(|s| s as f64);
        let [mut x1, y1, mut x2, y2] = box_xyxy.map(f64::from);
        if self.flipped {
            (x1, x2) = (width - x2, width - x1);
        }
        let x = |v: f64| (v * original_width / width).clamp(0.0, original_width) as f32;
        let y = |v: f64| (v * original_height / height).clamp(0.0, original_height) as f32;
        [x(x1), y(y1), x(x2), y(y2)]
    }
}

/// Images and their ground truth, padded to one size.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// `[N, 3, H, W]` normalised, zero where padded.
    pub images: Vec<f32>,
    /// `[N, 3, H, W]`.
    pub shape: [usize; 4],
    /// One an image; with objects in detection alone.
    pub targets: Vec<ImageTargets>,
    /// `[N, H, W]`: class of every pixel of `images`, [`IGNORE_LABEL`] where padded; empty but in
    /// segmentation.
    pub label_maps: Vec<u8>,
    /// One an image, as annotated: what an evaluation of segmentation compares with; else empty.
    pub original_label_maps: Vec<LabelMap>,
    /// Classification: 0-based class of each image; empty in other tasks.
    pub labels: Vec<usize>,
    /// One an image.
    pub metas: Vec<ImageMeta>,
    /// The same images as teachers see them whose size or normalisation is another; see
    /// [`LoaderOptions::views`].
    pub views: Vec<View>,
}

impl Batch {
    /// The further view that `spec` asks for, if the batch was made with it.
    #[must_use]
    pub fn view(&self, spec: &ViewSpec) -> Option<&View> {
        self.views.iter().find(|view| view.spec == *spec)
    }
}

/// One annotated object in pixels of the original image.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// `[x1, y1, x2, y2]`.
    pub box_xyxy: [f32; 4],
    /// 0-based class index.
    pub label: usize,
    /// A crowd region: never a training target; absorbs detections in evaluation.
    pub is_crowd: bool,
    /// Area in pixels² as the evaluation bins it.
    pub area: f64,
    /// Its mask inside the box clipped to the image, where the data set has masks. Crowd regions,
    /// which are no target, have none.
    pub mask: Option<MaskCrop>,
}

/// One image of a data set, without its pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Id within the data set.
    pub image_id: i64,
    /// For messages: the file, or `shapes#17`.
    pub source: String,
    /// `[height, width]`.
    pub size: [usize; 2],
    /// Annotated objects, crowd regions included.
    pub objects: Vec<Object>,
}

/// 8-bit RGB pixels, row-major, interleaved.
#[derive(Clone, Debug, PartialEq)]
pub struct RgbPixels {
    /// `[height, width]`.
    pub size: [usize; 2],
    /// `height * width * 3` bytes.
    pub data: Vec<u8>,
}

/// What a reader left out of a data set, in file order; each entry names file, place and reason.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeftOut {
    /// Annotations without a usable box, or (policy `skip`) of an unknown class or image.
    pub boxes: Vec<String>,
    /// Images without a usable annotation file (policy `skip`).
    pub images: Vec<String>,
    /// Masks that cannot be read; their objects are there, without one.
    pub masks: Vec<String>,
}

impl LeftOut {
    /// One warning a kind with the count and the first case, so that a log stays readable.
    fn warn(&self, source: &str) {
        for (kind, entries) in [
            ("annotations", &self.boxes),
            ("images", &self.images),
            ("masks", &self.masks),
        ] {
            if let Some(first) = entries.first() {
                tracing::warn!(
                    "`{source}`: {} {kind} left out; the first: {first}",
                    entries.len()
                );
            }
        }
    }
}

static NOTHING_LEFT_OUT: LeftOut = LeftOut {
    boxes: Vec::new(),
    images: Vec::new(),
    masks: Vec::new(),
};

/// A data set: records in a fixed order, pixels and label maps on demand.
pub trait Dataset: Send + Sync {
    /// Class names; a label is an index into them.
    fn classes(&self) -> &[String];
    /// All images, in a fixed order.
    fn records(&self) -> &[Record];
    /// Decodes image `index`.
    ///
    /// # Errors
    /// If the file is missing or broken; the message names it.
    fn pixels(&self, index: usize) -> Result<RgbPixels, DatasetError>;
    /// Whether it is for segmentation: every image has a label map, and no record has objects.
    fn has_label_maps(&self) -> bool {
        false
    }
    /// Decodes the label map of image `index`, of the size of its [`Dataset::pixels`]; labels are
    /// indices into [`Dataset::classes`] or [`IGNORE_LABEL`].
    ///
    /// # Errors
    /// If the file is missing or broken, of another size than the image, or has a label that is
    /// none; the message names file, value and pixel. If the data set has no label maps.
    fn label_map(&self, index: usize) -> Result<LabelMap, DatasetError> {
        Err(DatasetError::NoLabelMap {
            image: self.records()[index].source.clone(),
        })
    }
    /// Whether it is for classification: every image has one class, and no record has objects.
    fn has_class_labels(&self) -> bool {
        false
    }
    /// The class of image `index`, an index into [`Dataset::classes`].
    ///
    /// # Errors
    /// If the data set has no classes of images.
    fn class_label(&self, index: usize) -> Result<usize, DatasetError> {
        Err(DatasetError::NoClassLabel {
            image: self.records()[index].source.clone(),
        })
    }
    /// What names the label maps beside images and classes: names of their files, how their values
    /// become labels. For the fingerprint.
    fn label_facts(&self) -> Vec<String> {
        Vec::new()
    }
    /// Category id of each class in the annotation files, for result files; 1, 2, … unless the
    /// format has its own.
    fn category_ids(&self) -> Vec<i64> {
        (1..=self.classes().len() as i64).collect()
    }
    /// What the reader left out.
    fn left_out(&self) -> &LeftOut {
        &NOTHING_LEFT_OUT
    }
}

/// Why a box cannot be used, if it cannot: `size` is the image's `[height, width]`.
fn box_fault(box_xyxy: [f32; 4], size: [usize; 2]) -> Option<&'static str> {
    let [x1, y1, x2, y2] = box_xyxy;
    let [height, width] = size.map(|s| s as f32);
    if box_xyxy.iter().any(|v| !v.is_finite()) {
        Some("a coordinate is not finite")
    } else if x2 <= x1 || y2 <= y1 {
        Some("zero or negative extent")
    } else if x2 <= 0.0 || y2 <= 0.0 || x1 >= width || y1 >= height {
        Some("outside the image")
    } else {
        None
    }
}

/// The part of a box within an image of `[height, width]`.
fn clipped(box_xyxy: [f32; 4], size: [usize; 2]) -> [f32; 4] {
    let [x1, y1, x2, y2] = box_xyxy;
    let [height, width] = size.map(|s| s as f32);
    let (x, y) = (|v: f32| v.clamp(0.0, width), |v: f32| v.clamp(0.0, height));
    [x(x1), y(y1), x(x2), y(y2)]
}

/// A data set or one of its files is unusable.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file cannot be read.
    #[error("`{path}`: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// An annotation cannot be used.
    #[error("`{path}`: {what}: {reason}")]
    Annotation {
        /// The file.
        path: String,
        /// Which entry.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The configuration makes no sense.
    #[error("configuration `{key}`: {reason}")]
    Config {
        /// Key path.
        key: &'static str,
        /// What is wrong and what is accepted.
        reason: String,
    },
    /// A detection set was asked for a label map.
    #[error("`{image}` has no label map: its data set is one of boxes; `data.dataset` names it")]
    NoLabelMap {
        /// The image's file.
        image: String,
    },
    /// A data set of another task was asked for the class of an image.
    #[error("`{image}` has no class of its own: `data.dataset` names a data set of another task")]
    NoClassLabel {
        /// The image's file.
        image: String,
    },
    /// No such data set.
    #[error("unknown data set `{name}` (`data.dataset`); known: {known}")]
    Unknown {
        /// As configured.
        name: String,
        /// What is registered.
        known: String,
    },
    /// No such image.
    #[error("the {split} split has no image `{wanted}`; it has {images}: {known}")]
    NoImage {
        /// `train` or `val`.
        split: &'static str,
        /// Id or name, as given.
        wanted: String,
        /// How many images there are.
        images: usize,
        /// Some of them.
        known: String,
    },
    /// Every image is broken, so that nothing is left to take a broken one's place.
    #[error("none of the {images} images can be read; the last: {last}")]
    NothingReadable {
        /// How many were tried.
        images: usize,
        /// Message of the last one.
        last: String,
    },
    /// A loader thread panicked: a bug of kdhost or of a data set.
    #[error("loading batch {batch} of epoch {epoch} panicked: {message}")]
    Panicked {
        /// Epoch.
        epoch: u64,
        /// Batch within the epoch.
        batch: usize,
        /// The panic's message.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detection_finds_its_way_back_to_the_original_image() {
        let meta = ImageMeta {
            image_id: 1,
            original_size: [100, 200],
            size: [50, 50],
            flipped: true,
        };
        // Width 200 → 50: a quarter; height 100 → 50: a half. Mirrored about x = 25.
        // x: [50 - 20, 50 - 10] * 4 = [120, 160]; y: [5, 60] * 2 = [10, 120], clipped at 100.
        let original = meta.to_original([10.0, 5.0, 20.0, 60.0]);
        assert_eq!(original, [120.0, 10.0, 160.0, 100.0]);
    }

    #[test]
    fn unusable_boxes_are_told_apart() {
        let size = [10, 20];
        let fault = |b: [f32; 4]| box_fault(b, size);
        assert_eq!(fault([1.0, 1.0, 2.0, 2.0]), None);
        assert_eq!(
            fault([-5.0, -5.0, 25.0, 15.0]),
            None,
            "partly outside is usable"
        );
        assert_eq!(fault([3.0, 1.0, 3.0, 2.0]), Some("zero or negative extent"));
        assert_eq!(fault([3.0, 4.0, 5.0, 2.0]), Some("zero or negative extent"));
        assert_eq!(fault([20.0, 1.0, 22.0, 2.0]), Some("outside the image"));
        assert_eq!(fault([1.0, -4.0, 2.0, 0.0]), Some("outside the image"));
        assert_eq!(
            fault([f32::NAN, 1.0, 2.0, 2.0]),
            Some("a coordinate is not finite")
        );
    }
}
