//! Configuration: the tables of a TOML file. Defaults live in `configs/base.toml`, nowhere else.
//!
//! A [`Config`] is put together from [`Sources`]: the embedded default, files (which may extend
//! other files), `--set key=value`, flags. The JSON Schema derived from the structs below then
//! checks names, types and ranges at once; what concerns several keys is checked by `validate`.
//! `x-path` marks the keys that hold a path: `file` is taken relative to the folder of the file that
//! sets it, `name-or-file` likewise if it holds a `/`. `output_dir` and `cache_dir` are relative to
//! the working directory.
//!
//! Every module takes its own table, never the whole [`Config`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::ComputeDevice;

mod datasets;
mod difference;
mod distill;
mod error;
mod image_size;
mod inherit;
mod layers;
mod load;
mod paths;
mod plugins;
mod print;
mod schedule;
mod schema;
mod stage;
mod teacher;
mod transform;
mod validate;

pub use self::datasets::{
    CityscapesConfig, ClassFolderConfig, CocoConfig, SegFolderConfig, ShapesConfig, VocConfig,
    VocSegConfig,
};
pub use self::difference::{KeyDifference, differences, differences_of, flat};
pub use self::distill::{
    DistillConfig, Execution, GatePolicy, MethodConfig, MethodEntry, PretrainSource,
};
pub use self::error::{ConfigError, Problem, ProblemKind};
pub use self::layers::{Origin, Origins};
pub use self::load::{Flag, Resolved, Sources};
pub use self::schedule::{Moment, WeightSchedule, WeightScheduleKind};
pub use self::schema::{check_plugin_config, check_plugin_schema};
pub use self::stage::StageConfig;
pub use self::transform::{ResizeMode, TransformConfig};

/// A whole experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is learned: `detection` (boxes), `segmentation` (a class for every pixel) or `classification`
    /// (a class for every image). It decides the defaults of models and training: `configs/task/`.
    pub task: Task,
    /// Seed of weights, order and augmentation.
    #[schemars(range(max = 9_223_372_036_854_775_807_i64))]
    pub seed: u64,
    /// Run directories are made below it.
    pub output_dir: PathBuf,
    /// Where controls and teachers are kept for reuse, keyed by content hash.
    pub cache_dir: PathBuf,
    /// Where everything of a step is computed: `cpu`, or `cuda:0` for the first NVIDIA GPU (a build
    /// with the feature `cuda`). Checkpoints fit every device.
    pub device: String,
    /// Data set and input pipeline.
    pub data: DataConfig,
    /// The model to deploy.
    pub student: ModelConfig,
    /// The model to learn from; built only if the method taps one.
    pub teacher: TeacherConfig,
    /// Further ones by name; what an entry leaves out is as in `teacher`.
    pub teachers: BTreeMap<String, TeacherConfig>,
    /// Optimizer and schedule, the same for the plain and the distilled student.
    pub train: TrainConfig,
    /// The distillation methods.
    pub distill: DistillConfig,
    /// In a run that is a stage of a method: which.
    pub stage: StageConfig,
    /// Evaluation.
    pub eval: EvalConfig,
}

impl Config {
    /// The device of the run.
    #[must_use]
    pub fn compute_device(&self) -> ComputeDevice {
        self.device.parse().expect("`validate` has parsed it")
    }

    /// The teacher of that name; `teacher` is the one that `[teacher]` configures.
    #[must_use]
    pub fn teacher_named(&self, name: &str) -> Option<&TeacherConfig> {
        match name {
            TeacherConfig::UNNAMED => Some(&self.teacher),
            name => self.teachers.get(name),
        }
    }

    /// Names of all teachers that are configured.
    #[must_use]
    pub fn teacher_names(&self) -> Vec<String> {
        let further = self.teachers.keys().cloned();
        std::iter::once(TeacherConfig::UNNAMED.to_owned())
            .chain(further)
            .collect()
    }
}

/// What a run learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Boxes and their classes.
    Detection,
    /// A class for every pixel.
    Segmentation,
    /// A class for every image.
    Classification,
}

impl Task {
    /// As in configurations and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Task::Detection => "detection",
            Task::Segmentation => "segmentation",
            Task::Classification => "classification",
        }
    }
}

/// Data set and input pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// `shapes` (every task), `coco`, `voc` (detection), `seg_folder`, `voc_seg`, `cityscapes`
    /// (segmentation) or `class_folder` (classification).
    #[schemars(extend("enum" = [
        "shapes", "coco", "voc", "seg_folder", "voc_seg", "cityscapes", "class_folder"
    ]))]
    pub dataset: String,
    /// Images per optimizer micro-batch.
    #[schemars(range(min = 1))]
    pub batch_size: usize,
    /// Decoding threads, 0: none beside the training thread; the order of images does not depend on it.
    pub workers: usize,
    /// What a broken image or annotation does: `error` or `skip` (counted and reported).
    pub on_error: OnError,
    /// Training of a detector leaves out images without any object; false: they count as pure
    /// background. The other tasks train on all images.
    pub filter_empty: bool,
    /// Resize, crop, flip, normalise.
    pub transform: TransformConfig,
    /// For `dataset = "shapes"`.
    pub shapes: ShapesConfig,
    /// For `dataset = "coco"`.
    pub coco: CocoConfig,
    /// For `dataset = "voc"`.
    pub voc: VocConfig,
    /// For `dataset = "seg_folder"`.
    pub seg_folder: SegFolderConfig,
    /// For `dataset = "voc_seg"`.
    pub voc_seg: VocSegConfig,
    /// For `dataset = "cityscapes"`.
    pub cityscapes: CityscapesConfig,
    /// For `dataset = "class_folder"`.
    pub class_folder: ClassFolderConfig,
}

/// What a broken image or annotation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Ends the run with a message that names the file.
    Error,
    /// Leaves it out, counted and reported. In training the next readable image of the epoch's
    /// order takes the place of a broken one, so that batches stay full.
    Skip,
}

/// Architecture of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// `retinanet` (arXiv 1708.02002) or `fcos` (arXiv 2006.09214), as torchvision has them.
    pub detector: String,
    /// `deeplabv3` (arXiv 1706.05587) as torchvision has it; with `deeplab.aspp` off the last map of the
    /// backbone is classified as it is.
    pub segmenter: String,
    /// `convnet`: the mean over the last map of `backbone`, then one linear layer, as torchvision's ResNet
    /// and MobileNetV2 have it. `vit`: a vision transformer in DeiT's layout (arXiv 2012.12877), see `vit`;
    /// it has no `backbone`.
    pub classifier: String,
    /// `resnet18`, `resnet34`, `resnet50`, `resnet101`, `tiny` (see `tiny_width`, `tiny_blocks`), or, of
    /// a segmenter or classifier, `mobilenet_v2` (arXiv 1801.04381; see `mobilenet_width`).
    #[schemars(extend("enum" = [
        "resnet18", "resnet34", "resnet50", "resnet101", "tiny", "mobilenet_v2"
    ]))]
    pub backbone: String,
    /// Channels of the first stage of `tiny`; stages double it.
    #[schemars(range(min = 1))]
    pub tiny_width: usize,
    /// Basic blocks of each of the four stages of `tiny`.
    #[schemars(inner(range(min = 1)))]
    pub tiny_blocks: [usize; 4],
    /// Multiplies the channels of `mobilenet_v2`, which are then rounded to multiples of 8 as
    /// torchvision rounds them.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub mobilenet_width: f64,
    /// Channels of the pyramid and the head.
    #[schemars(range(min = 1))]
    pub fpn_channels: usize,
    /// Enlarges a detector's pyramid between neck and head so many times, bilinearly: the head then
    /// predicts at the locations of an input of so many times the size, one by one, whose anchors are
    /// as many times smaller. 1: not at all.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub pyramid_scale: f64,
    /// 3×3 convolutions of each tower of the head.
    pub head_convs: usize,
    /// Backbone stages that learn, counted from the last: 5 all, 3 is torchvision's default with
    /// pretrained weights.
    #[schemars(range(min = 0, max = 5))]
    pub trainable_layers: usize,
    /// Normalisation of the backbone: `batch` or `frozen_batch`. The ASPP and the classifier of
    /// `deeplabv3` have batch statistics in either case.
    pub norm: NormKind,
    /// RetinaNet's: anchor sides of the finest level in pixels; each next level doubles them.
    #[schemars(range(min = 1))]
    pub anchor_base_size: usize,
    /// RetinaNet's: anchor scales per level (octaves), multiplied by the base size.
    #[schemars(length(min = 1), extend("items" = {"type": "number", "exclusiveMinimum": 0}))]
    pub anchor_scales: Vec<f32>,
    /// RetinaNet's: height / width of anchors.
    #[schemars(length(min = 1), extend("items" = {"type": "number", "exclusiveMinimum": 0}))]
    pub anchor_ratios: Vec<f32>,
    /// RetinaNet's: `l1` or `giou`. FCOS has GIoU.
    pub box_loss: BoxLoss,
    /// Weight of the box loss.
    #[schemars(range(min = 0.0))]
    pub box_loss_weight: f32,
    /// Balance of the focal loss.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub focal_alpha: f32,
    /// Focusing of the focal loss.
    #[schemars(range(min = 0.0))]
    pub focal_gamma: f32,
    /// RetinaNet's: IoU from which an anchor is foreground.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub fg_iou_threshold: f32,
    /// RetinaNet's: IoU below which an anchor is background.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub bg_iou_threshold: f32,
    /// Detections whose score is not above are dropped.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub score_threshold: f32,
    /// IoU of non-maximum suppression.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub nms_threshold: f32,
    /// Candidates kept per level before suppression.
    #[schemars(range(min = 1))]
    pub topk_candidates: usize,
    /// Detections kept per image.
    #[schemars(range(min = 1))]
    pub detections_per_image: usize,
    /// Safetensors file with initial weights (torchvision's names); empty: random.
    #[schemars(extend("x-path" = "file"))]
    pub weights: PathBuf,
    /// FCOS's own settings.
    pub fcos: FcosConfig,
    /// DeepLabV3's own settings.
    pub deeplab: DeeplabConfig,
    /// The vision transformer's own settings.
    pub vit: VitConfig,
}

/// What FCOS has and RetinaNet has not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FcosConfig {
    /// Side in pixels of the square that stands for a location of the finest level; each next level
    /// doubles it. Box distances are in units of it, and a level answers for objects whose farthest
    /// side is 4 to 8 of it away. torchvision: 8, the stride.
    #[schemars(range(min = 2))]
    pub base_size: usize,
    /// A location is foreground within so many sides of its square from an object's centre, along
    /// each axis. torchvision: 1.5.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub center_sampling_radius: f32,
    /// Groups of the head's GroupNorm (arXiv 1803.08494); divides `fpn_channels`. torchvision: 32.
    #[schemars(range(min = 1))]
    pub norm_groups: usize,
}

/// What DeepLabV3 has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeeplabConfig {
    /// Atrous spatial pyramid pooling (arXiv 1706.05587) between backbone and classifier; off: the last
    /// map of the backbone is classified by one 1×1 convolution.
    pub aspp: bool,
    /// Channels of each branch of the ASPP, of its output and of the classifier's 3×3 convolution.
    /// torchvision: 256.
    #[schemars(range(min = 1))]
    pub aspp_channels: usize,
    /// Dilations of the ASPP's three 3×3 convolutions: 6, 12, 18 for an output stride of 16, twice that
    /// for 8 (torchvision's).
    #[schemars(inner(range(min = 1)))]
    pub atrous_rates: [usize; 3],
    /// Input pixels per cell of the backbone's last map: 16, 8 or 4. Strides beyond become dilations.
    #[schemars(extend("enum" = [4, 8, 16]))]
    pub output_stride: usize,
}

/// What a vision transformer has. DeiT-tiny: patches of 16, 192 channels, 12 blocks of 3 heads;
/// DeiT-small: 384 channels, 6 heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Side of a patch in pixels.
    #[schemars(range(min = 1))]
    pub patch_size: usize,
    /// Channels of a token; a multiple of `heads`.
    #[schemars(range(min = 1))]
    pub dim: usize,
    /// Blocks.
    #[schemars(range(min = 1))]
    pub depth: usize,
    /// Heads of the attention of a block.
    #[schemars(range(min = 1))]
    pub heads: usize,
    /// Channels inside the MLP of a block, as a multiple of `dim`.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub mlp_ratio: f64,
    /// `[height, width]` of the images, for the grid of the position embedding; what a side has beyond
    /// whole patches is not seen. Empty: that of the images that the model is given by the
    /// configuration.
    #[schemars(inner(range(min = 1)))]
    pub image_size: Vec<usize>,
}

/// Normalisation of the backbone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Batch statistics while training, running ones in evaluation.
    Batch,
    /// Running statistics and affine part fixed.
    FrozenBatch,
}

/// Loss on box regression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BoxLoss {
    /// On encoded deltas.
    L1,
    /// Generalised IoU on decoded boxes (arXiv 1902.09630).
    Giou,
}

/// The model to learn from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// Its architecture.
    pub model: ModelConfig,
    /// Safetensors file with trained weights; empty: it is trained here and cached.
    #[schemars(extend("x-path" = "file"))]
    pub checkpoint: PathBuf,
    /// Epochs of its own training where no checkpoint is given.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// As `data.transform.mean`, for images that this teacher sees; empty: the student's.
    pub mean: Vec<f32>,
    /// As `data.transform.std`, for images that this teacher sees; empty: the student's.
    #[schemars(extend("items" = {"type": "number", "exclusiveMinimum": 0}))]
    pub std: Vec<f32>,
    /// `[height, width]` of the images of this teacher, where `data.transform.resize` is `fixed` or
    /// `center_crop`; empty: as for the student, or as `input_scale` says. They are made from the pictures
    /// themselves and not from the student's images, and show the same part of them, mirrored alike.
    #[schemars(inner(range(min = 32)))]
    pub input_size: Vec<usize>,
    /// Sides of the images of this teacher over those of the student's, whatever the resizing; extents are
    /// rounded to the nearest pixel. 0: as for the student, or as `input_size` says.
    #[schemars(range(min = 0.0))]
    pub input_scale: f64,
}

impl TeacherConfig {
    /// Name of the teacher that `[teacher]` configures.
    pub const UNNAMED: &str = "teacher";
}

/// Optimizer and schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training set.
    #[schemars(range(min = 1))]
    pub epochs: usize,
    /// Stop after this many optimizer steps; 0: no limit beside `epochs`.
    pub max_iters: usize,
    /// `sgd` or `adamw`.
    pub optimizer: OptimizerKind,
    /// Peak learning rate per optimizer step.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: f64,
    /// SGD momentum.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub momentum: f64,
    /// AdamW's decay rates.
    #[schemars(extend("items" = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}))]
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: f64,
    /// Decay of weights.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Decay of normalisation scales and shifts.
    #[schemars(range(min = 0.0))]
    pub norm_decay: f64,
    /// Decay of biases.
    #[schemars(range(min = 0.0))]
    pub bias_decay: f64,
    /// Multiplies the learning rate of the method's own parameters, whichever optimizer they have.
    #[schemars(range(min = 0.0))]
    pub method_lr_scale: f64,
    /// An optimizer of its own for the method's parameters.
    pub method: MethodOptimizerConfig,
    /// Linear warm-up, optimizer steps.
    pub warmup_iters: usize,
    /// Learning rate at step 0 as a share of `lr`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_factor: f64,
    /// `constant`, `multi_step`, `cosine` or `poly`.
    pub schedule: ScheduleKind,
    /// Epochs at which `multi_step` multiplies by `gamma`.
    #[schemars(inner(range(min = 1)))]
    pub milestones: Vec<usize>,
    /// Factor of `multi_step`.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub gamma: f64,
    /// Exponent of `poly`.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub poly_power: f64,
    /// The gradient norm over the student's parameters is clipped to it, and so, apart from it, is
    /// that over the method's: what a method learns for itself does not slow its student; 0: off.
    #[schemars(range(min = 0.0))]
    pub grad_clip_norm: f64,
    /// Each element of a gradient is clipped to plus and minus this (Detectron2's default way, with
    /// 1.0); 0: off.
    #[schemars(range(min = 0.0))]
    pub grad_clip_value: f64,
    /// Numbers of activations and convolutions: `f32`, or `bf16`, which takes less memory and is meant
    /// for devices that have units for it; the CPU is slower with it. Weights, normalisation, losses, taps and optimizer
    /// are `f32` in either case.
    pub precision: Precision,
    /// Micro-batches per optimizer step.
    #[schemars(range(min = 1))]
    pub accumulate: usize,
    /// Decay of the averaged weights that are evaluated and exported; 0: off.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub ema_decay: f64,
    /// Evaluate every so many epochs; 0: at the end alone.
    pub eval_interval_epochs: usize,
    /// Write a checkpoint every so many optimizer steps, beside the one of each epoch; 0: off.
    pub checkpoint_interval_iters: usize,
    /// Log losses every so many optimizer steps.
    #[schemars(range(min = 1))]
    pub log_interval_iters: usize,
}

/// Optimizer of the method's own parameters; it follows the student's schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MethodOptimizerConfig {
    /// `inherit`: the student's, and nothing below counts; `sgd` or `adamw`.
    pub optimizer: MethodOptimizerKind,
    /// Parameters it learns, by the beginning of their names (`teacher.`); empty: all. The others
    /// stay with the student's optimizer.
    pub params: Vec<String>,
    /// Peak learning rate.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lr: f64,
    /// SGD momentum.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub momentum: f64,
    /// AdamW's decay rates.
    #[schemars(extend("items" = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}))]
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: f64,
    /// Decay of weights.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Decay of biases.
    #[schemars(range(min = 0.0))]
    pub bias_decay: f64,
}

/// Optimizer of the method's own parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MethodOptimizerKind {
    /// The student's, with its settings and `method_lr_scale`.
    Inherit,
    /// With momentum, as torch.optim.SGD.
    Sgd,
    /// As torch.optim.AdamW.
    Adamw,
}

/// Optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// With momentum, as torch.optim.SGD.
    Sgd,
    /// As torch.optim.AdamW.
    Adamw,
}

/// Numbers of activations and convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits: the exponent of f32, 8 bits of the fraction.
    Bf16,
}

/// Shape of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Flat.
    Constant,
    /// Multiplied by `gamma` at each milestone.
    MultiStep,
    /// Half a cosine down to 0.
    Cosine,
    /// `(1 - t)^poly_power`.
    Poly,
}

/// Evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Images per forward pass.
    #[schemars(range(min = 1))]
    pub batch_size: usize,
    /// Evaluate on the first so many images; 0: all.
    pub max_images: usize,
    /// Also score the head on the method's maps, with the ground truth fed to the method: a
    /// diagnostic of the maps, not a result of the student.
    pub oracle: bool,
}
