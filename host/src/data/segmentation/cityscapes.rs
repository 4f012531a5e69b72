//! Cityscapes (arXiv 1604.01685) with the 19 classes of its benchmark.

use std::path::Path;
use std::sync::Arc;

use super::{LabelledFiles, Meaning, Pair, file_fault, needed, sorted};
use crate::config::{DataConfig, Task};
use crate::data::{Dataset, DatasetEntry, DatasetError, IGNORE_LABEL, Split};

inventory::submit! { DatasetEntry {
    name: "cityscapes",
    tasks: &[Task::Segmentation],
    open,
} }

/// Id in the files and name, in the order of train ids (`cityscapesscripts`, `helpers/labels.py`).
const CLASSES: [(usize, &str); 19] = [
    (7, "road"),
    (8, "sidewalk"),
    (11, "building"),
    (12, "wall"),
    (13, "fence"),
    (17, "pole"),
    (19, "traffic light"),
    (20, "traffic sign"),
    (21, "vegetation"),
    (22, "terrain"),
    (23, "sky"),
    (24, "person"),
    (25, "rider"),
    (26, "car"),
    (27, "truck"),
    (28, "bus"),
    (31, "train"),
    (32, "motorcycle"),
    (33, "bicycle"),
];
/// Ids are 0 to 33; all but the 19 have no class.
const LAST_ID: usize = 33;

const IMAGE: &str = "_leftImg8bit.png";
const LABELS: &str = "_gtFine_labelIds.png";

/// Images in the order of cities, then of names.
fn open(config: &DataConfig, _: Task, split: Split) -> Result<Arc<dyn Dataset>, DatasetError> {
    let own = &config.cityscapes;
    let what = "the folder that holds `leftImg8bit` and `gtFine`";
    needed("data.cityscapes.root", &own.root, what)?;
    let name = match split {
        Split::Train => &own.train_split,
        Split::Val => &own.val_split,
    };
    let images = own.root.join("leftImg8bit").join(name);
    let labels = own.root.join("gtFine").join(name);
    let pairs = pairs(&images, &labels)?;
    let dataset = LabelledFiles::open(&images, meaning(), pairs, config.on_error)?;
    Ok(Arc::new(dataset))
}

fn meaning() -> Meaning {
    let mut labels = [None; 256];
    labels[..=LAST_ID].fill(Some(IGNORE_LABEL));
    for (train_id, (id, _)) in (0..).zip(CLASSES) {
        labels[id] = Some(train_id);
    }
    Meaning {
        classes: CLASSES.map(|(_, name)| name.to_owned()).to_vec(),
        labels,
        known: format!("Cityscapes' label ids are 0 to {LAST_ID}"),
    }
}

fn pairs(images: &Path, labels: &Path) -> Result<Vec<Pair>, DatasetError> {
    let mut pairs = Vec::new();
    for city in sorted(images)?.into_iter().filter(|path| path.is_dir()) {
        let labels = labels.join(city.file_name().expect("it was listed"));
        for image in sorted(&city)? {
            let name = image.file_name().expect("it was listed");
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(IMAGE)) else {
                continue;
            };
            let labels = labels.join(format!("{stem}{LABELS}"));
            pairs.push(Pair { image, labels });
        }
    }
    if pairs.is_empty() {
        let reason = format!("no folder of a city with files `*{IMAGE}`");
        return Err(file_fault(images, reason));
    }
    Ok(pairs)
}
