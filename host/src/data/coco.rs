//! COCO's JSON format (arXiv 1405.0312; cocodataset.org, "data format").

mod segmentation;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::decode::decode_annotated;
use super::{
    Dataset, DatasetEntry, DatasetError, LeftOut, Object, Record, RgbPixels, Split, box_fault,
    clipped,
};
use crate::config::{DataConfig, OnError, Task};

inventory::submit! { DatasetEntry { name: "coco", tasks: &[Task::Detection], open } }

/// A split in COCO's format.
///
/// - Images are in ascending order of id, classes in ascending order of category id.
/// - Boxes stay as annotated (`[x, y, x + w, y + h]`), also where they reach over the border: the
///   transform clips them, evaluation sees them as pycocotools does.
/// - `area` is the annotation's (a segment's, where there is one), or the box's where absent.
/// - Boxes of zero or negative extent or outside their image are left out with a counted warning.
/// - A mask is read from polygons or run lengths, where an object has a `segmentation`. One that
///   cannot be read is left out with a counted warning; its object stays.
#[derive(Debug)]
pub struct CocoDataset {
    folder: PathBuf,
    classes: Vec<String>,
    category_ids: Vec<i64>,
    records: Vec<Record>,
    file_names: Vec<String>,
    left_out: LeftOut,
}

#[derive(Deserialize)]
struct File<'a> {
    images: Vec<Image>,
    #[serde(borrow)]
    annotations: Vec<Annotation<'a>>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: i64,
    file_name: String,
    width: usize,
    height: usize,
}

#[derive(Deserialize)]
struct Annotation<'a> {
    id: i64,
    image_id: i64,
    category_id: i64,
    bbox: [f64; 4],
    area: Option<f64>,
    #[serde(default)]
    iscrowd: u8,
    /// Where it stands in the file: polygons of a whole data set take more memory than all the
    /// rest, so each is parsed alone, once its box and image are known.
    #[serde(borrow)]
    segmentation: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
}

fn open(config: &DataConfig, _: Task, split: Split) -> Result<Arc<dyn Dataset>, DatasetError> {
    let coco = &config.coco;
    let (annotations, images) = match split {
        Split::Train => (
            ("data.coco.train_annotations", &coco.train_annotations),
            ("data.coco.train_images", &coco.train_images),
        ),
        Split::Val => (
            ("data.coco.val_annotations", &coco.val_annotations),
            ("data.coco.val_images", &coco.val_images),
        ),
    };
    for (key, path, what) in [
        (
            annotations.0,
            annotations.1,
            "the JSON file of the annotations",
        ),
        (images.0, images.1, "the folder of the images"),
    ] {
        if path.as_os_str().is_empty() {
            return Err(DatasetError::Config {
                key,
                reason: format!("is empty; set it to {what}"),
            });
        }
    }
    let dataset = CocoDataset::open(annotations.1, images.1, config.on_error)?;
    Ok(Arc::new(dataset))
}

impl CocoDataset {
    /// Reads the annotation file; images are read later, one by one.
    ///
    /// # Errors
    /// If the file or the folder is missing, the JSON malformed, an id used twice, or there is no
    /// image or no category. With `OnError::Error` also if an annotation names an image or a
    /// category that the file does not have.
    pub fn open(
        annotations: &Path,
        images: &Path,
        on_error: OnError,
    ) -> Result<Self, DatasetError> {
        let path = annotations.display().to_string();
        let fault = |reason: String| DatasetError::File {
            path: path.clone(),
            reason,
        };
        let text = fs::read(annotations).map_err(|e| fault(e.to_string()))?;
        let mut file: File<'_> = serde_json::from_slice(&text)
            .map_err(|e| fault(format!("not COCO annotations: {e}")))?;
        if !images.is_dir() {
            return Err(DatasetError::File {
                path: images.display().to_string(),
                reason: "no such folder of images".into(),
            });
        }

        file.categories.sort_by_key(|category| category.id);
        file.images.sort_by_key(|image| image.id);
        if file.categories.is_empty() {
            return Err(fault("`categories` is empty".into()));
        }
        if file.images.is_empty() {
            return Err(fault("`images` is empty".into()));
        }
        if let Some(pair) = file.categories.windows(2).find(|p| p[0].id == p[1].id) {
            return Err(fault(format!("category id {} is there twice", pair[0].id)));
        }
        if let Some(pair) = file.images.windows(2).find(|p| p[0].id == p[1].id) {
            return Err(fault(format!("image id {} is there twice", pair[0].id)));
        }
        if let Some(image) = file.images.iter().find(|i| i.width == 0 || i.height == 0) {
            return Err(fault(format!("image id {} has no extent", image.id)));
        }

        let label_of: BTreeMap<i64, usize> = file
            .categories
            .iter()
            .enumerate()
            .map(|(i, c)| (c.id, i))
            .collect();
        let index_of: BTreeMap<i64, usize> = file
            .images
            .iter()
            .enumerate()
            .map(|(i, image)| (image.id, i))
            .collect();
        let mut records: Vec<Record> = file
            .images
            .iter()
            .map(|image| Record {
                image_id: image.id,
                source: images.join(&image.file_name).display().to_string(),
                size: [image.height, image.width],
                objects: Vec::new(),
            })
            .collect();

        let mut left_out = LeftOut::default();
        for annotation in &file.annotations {
            let what = format!("annotation id {}", annotation.id);
            let known = match (
                index_of.get(&annotation.image_id),
                label_of.get(&annotation.category_id),
            ) {
                (Some(&index), Some(&label)) => Ok((index, label)),
                (None, _) => Err(format!("unknown image id {}", annotation.image_id)),
                (_, None) => Err(format!("unknown category id {}", annotation.category_id)),
            };
            let (index, label) = match known {
                Ok(known) => known,
                Err(reason) if on_error == OnError::Skip => {
                    left_out.boxes.push(format!("{what}: {reason}"));
                    continue;
                }
                Err(reason) => return Err(DatasetError::Annotation { path, what, reason }),
            };
            let record = &mut records[index];
            let mut object = annotation.object(label);
            let fault =
                |reason: &str| format!("{what} of image id {}: {reason}", annotation.image_id);
            if let Some(reason) = box_fault(object.box_xyxy, record.size) {
                left_out.boxes.push(fault(reason));
                continue;
            }
            if let Some(text) = annotation.segmentation.filter(|_| !object.is_crowd) {
                let box_xyxy = clipped(object.box_xyxy, record.size);
                match segmentation::crop(text.get(), box_xyxy, record.size) {
                    Ok(mask) => object.mask = mask,
                    Err(reason) => left_out.masks.push(fault(&reason)),
                }
            }
            record.objects.push(object);
        }
        left_out.warn(&path);

        Ok(CocoDataset {
            folder: images.into(),
            category_ids: file.categories.iter().map(|c| c.id).collect(),
            classes: file.categories.into_iter().map(|c| c.name).collect(),
            records,
            file_names: file.images.into_iter().map(|i| i.file_name).collect(),
            left_out,
        })
    }
}

impl Annotation<'_> {
    fn object(&self, label: usize) -> Object {
        let [x, y, width, height] = self.bbox;
        Object {
            box_xyxy: [x as f32, y as f32, (x + width) as f32, (y + height) as f32],
            label,
            is_crowd: self.iscrowd != 0,
            area: self.area.unwrap_or(width * height),
            mask: None,
        }
    }
}

impl Dataset for CocoDataset {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn records(&self) -> &[Record] {
        &self.records
    }

    fn pixels(&self, index: usize) -> Result<RgbPixels, DatasetError> {
        let path = self.folder.join(&self.file_names[index]);
        decode_annotated(&path, self.records[index].size)
    }

    fn category_ids(&self) -> Vec<i64> {
        self.category_ids.clone()
    }

    fn left_out(&self) -> &LeftOut {
        &self.left_out
    }
}

#[cfg(test)]
mod tests;
