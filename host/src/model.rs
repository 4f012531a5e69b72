//! Models: architecture without weights, after torchvision's structure and names.
//!
//! A [`Model`] is immutable. Weights are a slice of flat tensors in the order of [`Model::specs`]:
//! student leaves on the autodiff device, teacher tensors on the plain one. The engine owns them, so
//! optimizer, checkpoint, EMA and hash work on named flat arrays.
//!
//! A new model implements [`Model`] and what its task asks for ([`Detector`]), and submits a
//! [`DetectorEntry`], a [`SegmenterEntry`] or a [`ClassifierEntry`]; it reaches kernels through [`ops`] alone.

mod backbone;
mod convnet;
mod deeplab;
mod fcos;
mod fpn;
mod head;
mod init;
mod layers;
mod mobilenet;
mod one_stage;
pub mod ops;
mod pass;
mod pyramid_scale;
mod resnet;
mod retinanet;
mod stem;
mod tap_table;
mod validate;
mod vit;
pub mod weights;

#[cfg(test)]
mod tests;

pub use init::initial_state;
pub use tap_table::{TapRow, TapShape, map_size, tap_table};
pub use weights::{LoadReport, Mismatch};

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::Tensor;

use crate::boxes::BoxXyxy;
use crate::config::{ModelConfig, Task};
use crate::data::ImageTargets;
use crate::detection::{Assignment, Detections, HeadOutput, LocationLosses};

/// Which part of a model a parameter belongs to; phases freeze and scale by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Everything up to `c5`, and what a classifier has before it pools.
    Backbone,
    /// A detector's feature pyramid, a segmenter's ASPP.
    Neck,
    /// Towers for classes and boxes, or a segmenter's classifier, with what normalises them; a
    /// classifier's linear layer.
    Head,
}

impl Part {
    /// As phases and messages call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Part::Backbone => "backbone",
            Part::Neck => "neck",
            Part::Head => "head",
        }
    }
}

/// What a weight is; decides decay and whether it is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Convolution or linear weight.
    Weight,
    /// Bias of a convolution or linear layer.
    Bias,
    /// Scale of a normalisation layer.
    NormWeight,
    /// Shift of a normalisation layer.
    NormBias,
    /// A token that is learned: it never decays, as timm's `no_weight_decay` says.
    Token,
    /// Embedding of the positions of a class token and of the cells of a grid, row-major, `[1, 1 + hw, D]`:
    /// it never decays either, and weights of another grid are resized to it.
    Positions {
        /// `[h, w]`.
        grid: [usize; 2],
    },
    /// Running mean: a buffer.
    RunningMean,
    /// Running variance: a buffer.
    RunningVar,
}

impl ParamKind {
    /// Buffers are updated by the forward pass, not by the optimizer.
    #[must_use]
    pub fn is_buffer(self) -> bool {
        matches!(self, ParamKind::RunningMean | ParamKind::RunningVar)
    }
}

/// How a parameter is initialised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All equal.
    Constant(f32),
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// Uniform between minus and plus `bound`.
    Uniform {
        /// Largest magnitude.
        bound: f32,
    },
    /// He et al. 2015, fan-out, ReLU gain: convolutions of torchvision's ResNet and MobileNetV2.
    KaimingNormalFanOut,
    /// Uniform with bound `sqrt(6 / ((1 + a²) fan_in))`, `a = 1`: torchvision's FPN.
    KaimingUniformFanIn,
}

/// One parameter or buffer of an architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// torchvision's name.
    pub name: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: ParamKind,
    /// Where it belongs.
    pub part: Part,
    /// How it starts.
    pub init: Init,
    /// False for layers frozen by configuration (`trainable_layers`).
    pub trainable: bool,
}

/// A tensor of the forward pass that methods may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapSpec {
    /// `image` (the input, normalised), `stem` (after its ReLU, before the max-pool),
    /// `backbone.c2..c5`, `neck.p3..p7` (what the head reads), and on each level of the neck
    /// `head.cls_feat.p3`, `head.box_feat.p3` (last activation of a tower), `head.cls_logits.p3`,
    /// `head.box_deltas.p3` and, of a detector that has it, `head.centerness.p3` (outputs).
    ///
    /// Logits and centerness are raw, before the sigmoid, `A*K` and `A` channels for `A` anchors a
    /// cell; box deltas have `A*4`. RetinaNet's deltas are raw: shifts of the centre, then logarithms
    /// of sizes. FCOS (`A = 1`) gives its own after their ReLU: distances to left, top, right and
    /// bottom in sides of the location's square.
    ///
    /// A segmenter has `image`, `stem`, `backbone.c2..c5`, `aspp` (its output, if it has one),
    /// `feat.last` (what the last convolution reads) and `logits` (raw, before they are enlarged).
    ///
    /// A classifier has `image`, `stem`, `backbone.c2..c5`, `feat.last` (what is pooled) and `logits`
    /// (`[N, K, 1, 1]`); a vision transformer `stem` (the patches with their positions), `backbone.b1..`
    /// (patches after each block), `attn.b1..` (attention after its softmax, `[N, heads, T, T]`, the
    /// class token first), `feat.last` and `logits`.
    ///
    /// All have `stem.conv`, what the first convolution gives, before normalisation and ReLU; of a
    /// vision transformer the patches without their positions.
    pub name: String,
    /// Channels.
    pub channels: usize,
    /// Input pixels per cell, to the nearest whole number, 0 where the tap has no grid; how many cells
    /// there are [`Model::tap_size`] says.
    pub stride: usize,
}

/// How far and how to run.
#[derive(Clone, Debug)]
pub struct ForwardRequest {
    /// Batch statistics (true) or running ones (false) in normalisation layers.
    pub training: bool,
    /// Taps to keep, by name; others are dropped as soon as the network is done with them.
    pub taps: Vec<String>,
    /// Compute nothing beyond `taps`. The neck's and the head's outputs are then absent, unless
    /// they are taps.
    pub stop_at_taps: bool,
}

/// New statistics of one normalisation layer, to be blended into its running ones.
#[derive(Clone, Debug)]
pub struct BatchStats {
    /// Index of the running mean in [`Model::specs`].
    pub mean_index: usize,
    /// Index of the running variance.
    pub var_index: usize,
    /// Batch mean, plain device.
    pub mean: Tensor<1>,
    /// Unbiased batch variance (PyTorch's), plain device.
    pub var: Tensor<1>,
}

/// What a model gives at its end, before losses and post-processing.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one a pass, and it is not moved about"
)]
pub enum Output {
    /// A detector's head on all levels.
    Detection(HeadOutput),
    /// Logits of a segmenter `[N, K, h, w]`, f32, on its own grid: not yet brought to the size of the
    /// image.
    Segmentation(Tensor<4>),
    /// Logits of a classifier `[N, K]`, f32.
    Classification(Tensor<2>),
}

impl Output {
    /// Of a detector; none of another task's model.
    #[must_use]
    pub fn detection(&self) -> Option<&HeadOutput> {
        match self {
            Output::Detection(head) => Some(head),
            Output::Segmentation(_) | Output::Classification(_) => None,
        }
    }

    /// Logits of a segmenter; none of another task's model.
    #[must_use]
    pub fn segmentation(&self) -> Option<&Tensor<4>> {
        match self {
            Output::Segmentation(logits) => Some(logits),
            Output::Detection(_) | Output::Classification(_) => None,
        }
    }

    /// Logits of a classifier; none of another task's model.
    #[must_use]
    pub fn classification(&self) -> Option<&Tensor<2>> {
        match self {
            Output::Classification(logits) => Some(logits),
            Output::Detection(_) | Output::Segmentation(_) => None,
        }
    }
}

/// Result of a forward pass.
#[derive(Clone, Debug, Default)]
pub struct Forward {
    /// The requested taps.
    pub taps: BTreeMap<String, Tensor<4>>,
    /// What the head reads: a detector's neck outputs, finest first. Empty if the pass stopped at its
    /// taps.
    pub pyramid: Vec<Tensor<4>>,
    /// Absent if the pass stopped at its taps.
    pub output: Option<Output>,
    /// Empty unless training.
    pub batch_stats: Vec<BatchStats>,
}

impl Forward {
    /// Of a detector: what its head gave, if the pass went to its end.
    #[must_use]
    pub fn head(&self) -> Option<&HeadOutput> {
        self.output.as_ref().and_then(Output::detection)
    }

    /// Of a classifier: its logits `[N, K]`, if the pass went to its end.
    #[must_use]
    pub fn class_logits(&self) -> Option<&Tensor<2>> {
        self.output.as_ref().and_then(Output::classification)
    }

    /// Of a segmenter: its logits `[N, K, h, w]`, if the pass went to its end.
    #[must_use]
    pub fn logits(&self) -> Option<&Tensor<4>> {
        self.output.as_ref().and_then(Output::segmentation)
    }
}

/// A network's architecture, whatever its task.
pub trait Model: Send + Sync {
    /// What it gives.
    fn task(&self) -> Task;
    /// Parameters and buffers in forward order; weights are passed in this order.
    fn specs(&self) -> &[ParamSpec];
    /// What methods may tap.
    fn taps(&self) -> &[TapSpec];
    /// Inputs are padded to a multiple of this.
    fn size_divisor(&self) -> usize;
    /// Number of classes, background excluded.
    fn num_classes(&self) -> usize;
    /// Runs on `images` `[N, 3, H, W]`, normalised. Gradients flow to the weights that are leaves;
    /// weights on the plain device are constants. `images` in bf16 make every layer compute in it, as
    /// [`ops`] says; taps and the head's outputs are f32.
    ///
    /// # Panics
    /// If `request` names a tap that [`Model::taps`] lacks, or if a map is so small that a
    /// channel's batch variance is undefined while training with `norm = "batch"`; so it is of an
    /// ASPP on a single image.
    fn forward(
        &self,
        weights: &[Tensor<1>],
        images: Tensor<4>,
        request: &ForwardRequest,
    ) -> Forward;
    /// `[height, width]` of `tap`, one of [`Model::taps`], where the input has `input_size` pixels.
    fn tap_size(&self, tap: &TapSpec, input_size: [usize; 2]) -> [usize; 2] {
        map_size(input_size, tap.stride)
    }
    /// Names of the taps that the head reads and a method's maps may stand in for, finest first; empty
    /// where maps have no place.
    fn head_taps(&self) -> Vec<String> {
        Vec::new()
    }
    /// The model as a detector, if it is one.
    fn as_detector(&self) -> Option<&dyn Detector> {
        None
    }
}

/// A detector's architecture.
pub trait Detector: Model {
    /// Runs the head alone on `pyramid` (a method's generated maps), one map a head tap, in that
    /// order.
    fn head(&self, weights: &[Tensor<1>], pyramid: &[Tensor<4>]) -> HeadOutput;
    /// Anchors of all locations of a `[H, W]` input, in pixels: levels finest first, row-major over
    /// cells, anchors of a cell innermost. Of a detector without anchors the squares that stand for
    /// its locations.
    fn anchors(&self, input_size: [usize; 2]) -> Arc<Vec<BoxXyxy>>;
    /// Boxes predicted at every location, `[N, L]` row-major, in pixels of the network input, not
    /// clipped. No gradient.
    fn decoded_boxes(&self, head: &HeadOutput, input_size: [usize; 2]) -> Vec<BoxXyxy>;
    /// Task losses of each location under `assignment`, which may be another model's with the same
    /// anchors. No gradient.
    fn location_losses(&self, head: &HeadOutput, assignment: &Assignment) -> LocationLosses;
    /// Matches ground truth to the anchors of a `[H, W]` input; to a detector without anchors each
    /// location is one, the square that stands for it. No gradient.
    fn assign(&self, input_size: [usize; 2], targets: &[ImageTargets]) -> Assignment;
    /// Task losses `(name, scalar [1])`: `loss_cls`, `loss_bbox`, and `loss_ctrness` where the head
    /// has centerness.
    fn losses(&self, head: &HeadOutput, assignment: &Assignment) -> Vec<(&'static str, Tensor<1>)>;
    /// Final detections in pixels of the network input, one entry an image; `sizes` are the
    /// unpadded `(height, width)`.
    fn detect(
        &self,
        head: &HeadOutput,
        input_size: [usize; 2],
        sizes: &[[usize; 2]],
    ) -> Vec<Detections>;
}

/// Builds an architecture for a number of classes.
pub type BuildDetector = fn(&ModelConfig, usize) -> Result<Box<dyn Detector>, ModelError>;

/// A detector that configurations can name; registered with `inventory::submit!`.
pub struct DetectorEntry {
    /// The name in `student.detector`.
    pub name: &'static str,
    /// Builds the architecture.
    pub build: BuildDetector,
}
inventory::collect!(DetectorEntry);

/// Builds a segmenter for a number of classes; its forward pass ends with [`Output::Segmentation`].
pub type BuildSegmenter = fn(&ModelConfig, usize) -> Result<Box<dyn Model>, ModelError>;

/// A segmenter that configurations can name; registered with `inventory::submit!`.
pub struct SegmenterEntry {
    /// The name in `student.segmenter`.
    pub name: &'static str,
    /// Builds the architecture.
    pub build: BuildSegmenter,
}
inventory::collect!(SegmenterEntry);

/// Builds a classifier for a number of classes; its forward pass ends with [`Output::Classification`].
pub type BuildClassifier = fn(&ModelConfig, usize) -> Result<Box<dyn Model>, ModelError>;

/// A classifier that configurations can name; registered with `inventory::submit!`.
pub struct ClassifierEntry {
    /// The name in `student.classifier`.
    pub name: &'static str,
    /// Builds the architecture.
    pub build: BuildClassifier,
}
inventory::collect!(ClassifierEntry);

/// A model cannot be built or its weights do not fit.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No such model.
    #[error("unknown {what} `{name}`; known: {known}")]
    Unknown {
        /// `detector`, `segmenter` or `classifier`.
        what: &'static str,
        /// As configured.
        name: String,
        /// What is registered.
        known: String,
    },
    /// The configuration makes no sense.
    #[error("model configuration `{key}`: {reason}")]
    Config {
        /// Key path below the model's table.
        key: &'static str,
        /// What is wrong and what is accepted.
        reason: String,
    },
    /// Nothing to learn.
    #[error("the data set has no classes, so there is nothing to learn")]
    NoClasses,
    /// A weight file does not fit the architecture.
    #[error("weights do not fit the model: {report}")]
    Weights {
        /// Matched, missing, unexpected, mismatched.
        report: String,
    },
}

/// Builds the model that `config` names for `task`.
///
/// # Errors
/// If the name is unknown or the configuration makes no sense.
pub fn build(
    config: &ModelConfig,
    task: Task,
    num_classes: usize,
) -> Result<Box<dyn Model>, ModelError> {
    let scale = config.pyramid_scale;
    validate::require(
        "pyramid_scale",
        task == Task::Detection || scale == 1.0,
        || format!("got {scale}, but only a detector has a pyramid; set it to 1.0"),
    )?;
    match task {
        Task::Detection => Ok(build_detector(config, num_classes)?),
        Task::Segmentation => build_segmenter(config, num_classes),
        Task::Classification => build_classifier(config, num_classes),
    }
}

/// Builds the detector that `config` names.
///
/// # Errors
/// If the name is unknown or the configuration makes no sense.
pub fn build_detector(
    config: &ModelConfig,
    num_classes: usize,
) -> Result<Box<dyn Detector>, ModelError> {
    for entry in inventory::iter::<DetectorEntry> {
        if entry.name == config.detector {
            return (entry.build)(config, num_classes);
        }
    }
    Err(ModelError::Unknown {
        what: "detector",
        name: config.detector.clone(),
        known: detector_names().join(", "),
    })
}

fn build_segmenter(config: &ModelConfig, num_classes: usize) -> Result<Box<dyn Model>, ModelError> {
    for entry in inventory::iter::<SegmenterEntry> {
        if entry.name == config.segmenter {
            return (entry.build)(config, num_classes);
        }
    }
    Err(ModelError::Unknown {
        what: "segmenter",
        name: config.segmenter.clone(),
        known: segmenter_names().join(", "),
    })
}

fn build_classifier(
    config: &ModelConfig,
    num_classes: usize,
) -> Result<Box<dyn Model>, ModelError> {
    for entry in inventory::iter::<ClassifierEntry> {
        if entry.name == config.classifier {
            return (entry.build)(config, num_classes);
        }
    }
    Err(ModelError::Unknown {
        what: "classifier",
        name: config.classifier.clone(),
        known: classifier_names().join(", "),
    })
}

/// Names of all detectors, sorted.
#[must_use]
pub fn detector_names() -> Vec<&'static str> {
    let entries = inventory::iter::<DetectorEntry>.into_iter();
    let mut names: Vec<&str> = entries.map(|entry| entry.name).collect();
    names.sort_unstable();
    names
}

/// Names of all segmenters, sorted.
#[must_use]
pub fn segmenter_names() -> Vec<&'static str> {
    let entries = inventory::iter::<SegmenterEntry>.into_iter();
    let mut names: Vec<&str> = entries.map(|entry| entry.name).collect();
    names.sort_unstable();
    names
}

/// Names of all classifiers, sorted.
#[must_use]
pub fn classifier_names() -> Vec<&'static str> {
    let entries = inventory::iter::<ClassifierEntry>.into_iter();
    let mut names: Vec<&str> = entries.map(|entry| entry.name).collect();
    names.sort_unstable();
    names
}
