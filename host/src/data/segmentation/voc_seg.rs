//! PASCAL VOC's segmentation (devkit document of VOC2012, "class segmentation").

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{LabelledFiles, Meaning, Pair, file_fault, needed};
use crate::config::{DataConfig, Task};
use crate::data::{Dataset, DatasetEntry, DatasetError, Split};

inventory::submit! { DatasetEntry {
    name: "voc_seg",
    tasks: &[Task::Segmentation],
    open,
} }

/// In the order of the palette.
const CLASSES: [&str; 21] = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
];

/// Images in the order of the list. 255, which outlines objects and marks what is hard to tell, has
/// no class.
fn open(config: &DataConfig, _: Task, split: Split) -> Result<Arc<dyn Dataset>, DatasetError> {
    let own = &config.voc_seg;
    let what =
        "the folder that holds `SegmentationClass`, `ImageSets/Segmentation` and `JPEGImages`";
    needed("data.voc_seg.root", &own.root, what)?;
    let name = match split {
        Split::Train => &own.train_split,
        Split::Val => &own.val_split,
    };
    let classes = if own.classes.is_empty() {
        CLASSES.map(String::from).to_vec()
    } else {
        own.classes.clone()
    };
    if classes.len() > 255 {
        let reason = format!("has {} names; a label map has room for 255", classes.len());
        let key = "data.voc_seg.classes";
        return Err(DatasetError::Config { key, reason });
    }
    let keys = "`data.voc_seg.classes` names them";
    let meaning = Meaning::of_indices(classes, &[], keys);
    let lists = own.root.join("ImageSets").join("Segmentation");
    let list = lists.join(format!("{name}.txt"));
    let pairs = pairs(&own.root, &list)?;
    let dataset = LabelledFiles::open(&list, meaning, pairs, config.on_error)?;
    Ok(Arc::new(dataset))
}

fn pairs(root: &Path, list: &Path) -> Result<Vec<Pair>, DatasetError> {
    let text = fs::read_to_string(list).map_err(|e| file_fault(list, e))?;
    let ids = text.lines().map(str::trim).filter(|id| !id.is_empty());
    let pair = |id: &str| Pair {
        image: root.join("JPEGImages").join(format!("{id}.jpg")),
        labels: root.join("SegmentationClass").join(format!("{id}.png")),
    };
    Ok(ids.map(pair).collect())
}
