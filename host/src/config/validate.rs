//! Rules that concern several keys, or that a range cannot say. Ranges of single keys stand at the
//! fields, as part of the schema.

use std::path::Path;

use serde_json::Value as Json;

use super::error::ProblemKind;
use super::schema::Finding;
use super::{
    Config, ModelConfig, ResizeMode, ScheduleKind, Task, TeacherConfig, TrainConfig,
    TransformConfig, image_size,
};
use crate::device::ComputeDevice;

mod methods;
mod teachers;

/// Every rule that `config` breaks.
/// `single` is what `[distill]` says of a single method where nobody sets anything.
pub(super) fn rules(config: &Config, single: &Json) -> Vec<Finding> {
    let mut rules = Rules::default();
    dataset(config, &mut rules);
    transform(&config.data.transform, config.task, &mut rules);
    model("student", &config.student, config, false, &mut rules);
    vit("student", &config.student, config, None, &mut rules);
    teachers::rules(config, &mut rules);
    train(&config.train, &mut rules);
    methods::rules(&config.distill, single, &mut rules);
    if let Err(error) = config.device.parse::<ComputeDevice>() {
        rules.require(false, "device", || error.to_string());
    }
    for (key, path) in [
        ("output_dir", &config.output_dir),
        ("cache_dir", &config.cache_dir),
    ] {
        rules.require(!is_unset(path), key, || {
            "a folder is needed; `.` is the working directory".to_owned()
        });
    }
    rules.0
}

#[derive(Default)]
struct Rules(Vec<Finding>);

impl Rules {
    fn refuse(&mut self, path: Vec<String>, rule: String) {
        let kind = ProblemKind::Rule { rule };
        self.0.push(Finding { path, kind });
    }

    fn require(&mut self, holds: bool, key: &str, rule: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Finding {
                path: key
                    .replace('[', ".[")
                    .split('.')
                    .map(str::to_owned)
                    .collect(),
                kind: ProblemKind::Rule { rule: rule() },
            });
        }
    }
}

fn dataset(config: &Config, rules: &mut Rules) {
    let data = &config.data;
    let needed: &[(&str, &Path)] = match data.dataset.as_str() {
        "coco" => &[
            ("data.coco.train_images", &data.coco.train_images),
            ("data.coco.train_annotations", &data.coco.train_annotations),
            ("data.coco.val_images", &data.coco.val_images),
            ("data.coco.val_annotations", &data.coco.val_annotations),
        ],
        "voc" => &[("data.voc.root", &data.voc.root)],
        "seg_folder" => &[
            (
                "data.seg_folder.train_images",
                &data.seg_folder.train_images,
            ),
            (
                "data.seg_folder.train_labels",
                &data.seg_folder.train_labels,
            ),
            ("data.seg_folder.val_images", &data.seg_folder.val_images),
            ("data.seg_folder.val_labels", &data.seg_folder.val_labels),
        ],
        "voc_seg" => &[("data.voc_seg.root", &data.voc_seg.root)],
        "cityscapes" => &[("data.cityscapes.root", &data.cityscapes.root)],
        "class_folder" => &[
            ("data.class_folder.train", &data.class_folder.train),
            ("data.class_folder.val", &data.class_folder.val),
        ],
        _ => &[],
    };
    for (key, path) in needed {
        rules.require(!is_unset(path), key, || {
            format!(
                "`data.dataset = \"{}\"` needs it; give it in a file or by `--set {key}=PATH`",
                data.dataset
            )
        });
    }
    let tasks: &[Task] = match data.dataset.as_str() {
        "coco" | "voc" => &[Task::Detection],
        "seg_folder" | "voc_seg" | "cityscapes" => &[Task::Segmentation],
        "class_folder" => &[Task::Classification],
        _ => &[Task::Detection, Task::Segmentation, Task::Classification],
    };
    rules.require(tasks.contains(&config.task), "data.dataset", || {
        let wants = match config.task {
            Task::Detection => "boxes",
            Task::Segmentation => "label maps",
            Task::Classification => "a class for each image",
        };
        format!(
            "`{}` has no {wants}, and `task` is \"{}\"; choose another data set or task",
            data.dataset,
            config.task.name()
        )
    });
    class_names("data.voc.classes", &data.voc.classes, rules);
    class_names("data.voc_seg.classes", &data.voc_seg.classes, rules);
    class_names("data.seg_folder.classes", &data.seg_folder.classes, rules);
    let folders = &data.class_folder.classes;
    class_names("data.class_folder.classes", folders, rules);
    let named = data.dataset != "seg_folder" || !data.seg_folder.classes.is_empty();
    rules.require(named, "data.seg_folder.classes", || {
        "`data.dataset = \"seg_folder\"` needs the names of its classes, in the order of their values"
            .to_owned()
    });
    for (key, classes) in [
        ("data.voc_seg.classes", &data.voc_seg.classes),
        ("data.seg_folder.classes", &data.seg_folder.classes),
    ] {
        rules.require(classes.len() <= 255, key, || {
            format!(
                "a label map has room for 255 classes, got {}",
                classes.len()
            )
        });
    }
}

fn class_names(key: &str, names: &[String], rules: &mut Rules) {
    let mut names = names.to_vec();
    names.sort_unstable();
    for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
        rules.require(false, key, || format!("`{}` stands twice", pair[0]));
    }
}

fn transform(transform: &TransformConfig, task: Task, rules: &mut Rules) {
    let [low, high] = transform.scale_range;
    rules.require(low <= high, "data.transform.scale_range", || {
        format!("expected `[lowest, highest]`, got [{low}, {high}]")
    });
    let crop = &transform.crop_size;
    rules.require(
        matches!(crop.len(), 0 | 2),
        "data.transform.crop_size",
        || {
            format!(
                "expected `[height, width]`, or `[]`, got {} numbers",
                crop.len()
            )
        },
    );
    let cropped = task == Task::Segmentation;
    let why =
        "only segmentation scales at random and crops so; it is for `task = \"segmentation\"`";
    rules.require(
        cropped || [low, high] == [1.0, 1.0],
        "data.transform.scale_range",
        || format!("{why}: leave it `[1.0, 1.0]`"),
    );
    rules.require(
        cropped || crop.is_empty(),
        "data.transform.crop_size",
        || format!("{why}: leave it `[]`"),
    );
    of_classification(transform, task, rules);
    let (short, long) = (transform.short_side, transform.long_side);
    rules.require(short <= long, "data.transform.long_side", || {
        format!("must be at least `data.transform.short_side` ({short}), got {long}")
    });
}

/// What images of one class each are prepared with.
fn of_classification(transform: &TransformConfig, task: Task, rules: &mut Rules) {
    let classification = task == Task::Classification;
    for (key, [low, high]) in [
        ("data.transform.area_range", transform.area_range),
        ("data.transform.aspect_range", transform.aspect_range),
    ] {
        rules.require(low <= high, key, || {
            format!("expected `[lowest, highest]`, got [{low}, {high}]")
        });
    }
    let random = transform.area_range != [1.0, 1.0];
    let key = "data.transform.area_range";
    rules.require(classification || !random, key, || {
        "a random part of an image may miss what is annotated; it is for `task = \"classification\"`: \
         leave it `[1.0, 1.0]`"
            .to_owned()
    });
    let centred = transform.resize == ResizeMode::CenterCrop;
    let one_size = centred || transform.resize == ResizeMode::Fixed;
    rules.require(one_size || !random, key, || {
        "needs images of one size: `data.transform.resize` \"fixed\" or \"center_crop\"; else leave it \
         `[1.0, 1.0]`"
            .to_owned()
    });
    rules.require(classification || !centred, "data.transform.resize", || {
        "\"center_crop\" cuts off what is annotated; it is for `task = \"classification\"`"
            .to_owned()
    });
    let (size, short_side) = (transform.size, transform.short_side);
    let fits = size.iter().all(|extent| *extent <= short_side);
    rules.require(!centred || fits, "data.transform.size", || {
        format!(
            "\"center_crop\" takes it out of images whose shorter side is `data.transform.short_side` \
             ({short_side}), got {size:?}"
        )
    });
}

fn model(at: &str, model: &ModelConfig, config: &Config, has_checkpoint: bool, rules: &mut Rules) {
    let fits = config.task != Task::Detection || model.backbone != "mobilenet_v2";
    rules.require(fits, &format!("{at}.backbone"), || {
        "`mobilenet_v2` is a backbone of segmenters and classifiers, and `task` is `detection`"
            .to_owned()
    });
    let (dim, heads) = (model.vit.dim, model.vit.heads);
    rules.require(dim.is_multiple_of(heads), &format!("{at}.vit.dim"), || {
        format!("must be a multiple of `{at}.vit.heads` ({heads}), got {dim}")
    });
    // The pooled branch has one value a channel and image.
    let pools = config.task == Task::Segmentation && model.deeplab.aspp && !has_checkpoint;
    let batch_size = config.data.batch_size;
    rules.require(!pools || batch_size > 1, "data.batch_size", || {
        format!(
            "training with `{at}.deeplab.aspp` normalises the means of images over the batch, which \
             needs 2 or more, got {batch_size}"
        )
    });
    let (fg, bg) = (model.fg_iou_threshold, model.bg_iou_threshold);
    rules.require(bg <= fg, &format!("{at}.bg_iou_threshold"), || {
        format!("must be at most `{at}.fg_iou_threshold` ({fg}), got {bg}")
    });
    let (groups, channels) = (model.fcos.norm_groups, model.fpn_channels);
    let divides = model.detector != "fcos" || channels.is_multiple_of(groups);
    rules.require(divides, &format!("{at}.fcos.norm_groups"), || {
        format!("must divide `{at}.fpn_channels` ({channels}), got {groups}")
    });
    let layers = model.trainable_layers;
    let fixed_at_random = layers < 5 && is_unset(&model.weights) && !has_checkpoint;
    rules.require(!fixed_at_random, &format!("{at}.trainable_layers"), || {
        format!(
            "{layers} leaves layers fixed, which needs `{at}.weights`; 5 trains all from random"
        )
    });
}

/// Rules of a vision transformer, which is the student's or that of `teacher`.
fn vit(
    at: &str,
    model: &ModelConfig,
    config: &Config,
    teacher: Option<&TeacherConfig>,
    rules: &mut Rules,
) {
    if !image_size::is_vit(model, config.task) {
        return;
    }
    let layers = model.trainable_layers;
    rules.require(layers == 5, &format!("{at}.trainable_layers"), || {
        format!("a vision transformer has no stages to count, got {layers}; 5 trains all of it")
    });
    let key = format!("{at}.vit.image_size");
    let size = &model.vit.image_size;
    if size.is_empty() {
        let why = "a vision transformer has positions for images of one size: give it as \
                   `[height, width]`, or set `data.transform.resize` so that all have one";
        return rules.require(false, &key, || why.to_owned());
    }
    let patch = model.vit.patch_size;
    let fits = size.len() == 2 && size.iter().all(|&extent| extent >= patch);
    rules.require(fits, &key, || {
        format!(
            "expected `[height, width]`, each at least `{at}.vit.patch_size` ({patch}), got {size:?}"
        )
    });
    let Some(images) = image_size::of_images(&config.data.transform, teacher) else {
        return;
    };
    rules.require(*size == images, &key, || {
        format!(
            "the images of this model have the size {images:?}, got {size:?}; leave it `[]` to take \
             theirs"
        )
    });
}

fn train(train: &TrainConfig, rules: &mut Rules) {
    let milestones = &train.milestones;
    let ascend = milestones.windows(2).all(|pair| pair[0] < pair[1]);
    rules.require(ascend, "train.milestones", || {
        format!("must ascend, got {milestones:?}")
    });
    let empty = train.schedule == ScheduleKind::MultiStep && milestones.is_empty();
    rules.require(!empty, "train.milestones", || {
        "`train.schedule = \"multi_step\"` needs at least one".to_owned()
    });
}

fn is_unset(path: &Path) -> bool {
    path.as_os_str().is_empty()
}
