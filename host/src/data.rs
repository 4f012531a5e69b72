//! Data sets, transforms and the prefetching loader.

/// Ground truth of one image as the network sees it: after resize and flip, crowd regions left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageTargets {
    /// Pixels of the network input.
    pub boxes_xyxy: Vec<[f32; 4]>,
    /// 0-based class indices.
    pub labels: Vec<usize>,
}

/// Where an image of a batch came from.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageMeta {
    /// Id within the data set.
    pub image_id: i64,
    /// `[height, width]` of the original.
    pub original_size: [usize; 2],
    /// `[height, width]` after resize, before padding.
    pub size: [usize; 2],
    /// Mirrored left to right.
    pub flipped: bool,
}

/// Images and their ground truth, padded to one size.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[N, 3, H, W]` normalised, zero where padded.
    pub images: Vec<f32>,
    /// `[N, 3, H, W]`.
    pub shape: [usize; 4],
    /// One an image.
    pub targets: Vec<ImageTargets>,
    /// One an image.
    pub metas: Vec<ImageMeta>,
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

/// A detection data set: records in a fixed order, pixels on demand.
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
}
