//! COCO's JSON format (arXiv 1405.0312; cocodataset.org, "data format").

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::decode::decode_annotated;
use super::{
    Dataset, DatasetEntry, DatasetError, LeftOut, Object, Record, RgbPixels, Split, box_fault,
};
use crate::config::{DataConfig, OnError};

inventory::submit! { DatasetEntry { name: "coco", open } }

/// A split in COCO's format.
///
/// - Images are in ascending order of id, classes in ascending order of category id.
/// - Boxes stay as annotated (`[x, y, x + w, y + h]`), also where they reach over the border: the
///   transform clips them, evaluation sees them as pycocotools does.
/// - `area` is the annotation's (a segment's, where there is one), or the box's where absent.
/// - Boxes of zero or negative extent or outside their image are left out with a counted warning.
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
struct File {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
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
struct Annotation {
    id: i64,
    image_id: i64,
    category_id: i64,
    bbox: [f64; 4],
    area: Option<f64>,
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
}

fn open(config: &DataConfig, split: Split) -> Result<Arc<dyn Dataset>, DatasetError> {
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
        let mut file: File = serde_json::from_slice(&text)
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
            let object = annotation.object(label);
            match box_fault(object.box_xyxy, record.size) {
                Some(reason) => left_out.boxes.push(format!(
                    "{what} of image id {}: {reason}",
                    annotation.image_id
                )),
                None => record.objects.push(object),
            }
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

impl Annotation {
    fn object(&self, label: usize) -> Object {
        let [x, y, width, height] = self.bbox;
        Object {
            box_xyxy: [x as f32, y as f32, (x + width) as f32, (y + height) as f32],
            label,
            is_crowd: self.iscrowd != 0,
            area: self.area.unwrap_or(width * height),
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
mod tests {
    use image::RgbImage;
    use serde_json::{Value, json};

    use super::*;

    fn sample() -> Value {
        json!({
            "images": [
                {"id": 9, "file_name": "b.png", "width": 20, "height": 10},
                {"id": 4, "file_name": "a.png", "width": 8, "height": 6},
            ],
            "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
            "annotations": [
                {"id": 1, "image_id": 9, "category_id": 18, "bbox": [1.5, 2.0, 10.0, 4.0],
                 "area": 33.5, "iscrowd": 0},
                {"id": 2, "image_id": 9, "category_id": 3, "bbox": [15.0, 1.0, 9.0, 3.0],
                 "iscrowd": 1},
                {"id": 3, "image_id": 4, "category_id": 3, "bbox": [1.0, 1.0, 0.0, 3.0]},
                {"id": 4, "image_id": 4, "category_id": 3, "bbox": [8.0, 1.0, 2.0, 3.0]},
            ],
        })
    }

    fn read(json: &Value, on_error: OnError) -> Result<CocoDataset, DatasetError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances.json");
        fs::write(&path, json.to_string()).unwrap();
        RgbImage::from_pixel(8, 6, image::Rgb([1, 2, 3]))
            .save(folder.path().join("a.png"))
            .unwrap();
        let dataset = CocoDataset::open(&path, folder.path(), on_error)?;
        assert_eq!(dataset.pixels(0)?.size, [6, 8]);
        assert!(dataset.pixels(1).unwrap_err().to_string().contains("b.png"));
        Ok(dataset)
    }

    #[test]
    fn sparse_ids_become_dense_labels_and_are_kept() {
        let dataset = read(&sample(), OnError::Error).unwrap();
        assert_eq!(dataset.classes(), ["car", "dog"]);
        assert_eq!(dataset.category_ids(), [3, 18]);
        let [first, second] = dataset.records() else {
            panic!("two images")
        };
        assert_eq!((first.image_id, first.size), (4, [6, 8]));
        assert!(first.objects.is_empty());
        assert_eq!((second.image_id, second.size), (9, [10, 20]));
        assert_eq!(
            second.objects,
            [
                Object {
                    box_xyxy: [1.5, 2.0, 11.5, 6.0],
                    label: 1,
                    is_crowd: false,
                    area: 33.5
                },
                Object {
                    box_xyxy: [15.0, 1.0, 24.0, 4.0],
                    label: 0,
                    is_crowd: true,
                    area: 27.0
                },
            ]
        );
    }

    #[test]
    fn unusable_boxes_are_counted() {
        let dataset = read(&sample(), OnError::Error).unwrap();
        assert_eq!(
            dataset.left_out().boxes,
            [
                "annotation id 3 of image id 4: zero or negative extent",
                "annotation id 4 of image id 4: outside the image",
            ]
        );
    }

    #[test]
    fn an_unknown_id_is_an_error_that_names_the_annotation_or_is_skipped() {
        for (key, reason) in [
            ("image_id", "unknown image id 77"),
            ("category_id", "unknown category id 77"),
        ] {
            let mut json = sample();
            json["annotations"][1][key] = 77.into();
            let message = read(&json, OnError::Error).unwrap_err().to_string();
            assert!(message.contains("instances.json"), "{message}");
            assert!(
                message.contains(&format!("annotation id 2: {reason}")),
                "{message}"
            );
            let dataset = read(&json, OnError::Skip).unwrap();
            assert_eq!(
                dataset.left_out().boxes[0],
                format!("annotation id 2: {reason}")
            );
            assert_eq!(dataset.records()[1].objects.len(), 1);
        }
    }

    #[test]
    fn an_id_used_twice_is_an_error() {
        let mut json = sample();
        json["categories"][0]["id"] = 3.into();
        let message = read(&json, OnError::Skip).unwrap_err().to_string();
        assert!(
            message.contains("category id 3 is there twice"),
            "{message}"
        );
        let mut json = sample();
        json["images"][0]["id"] = 4.into();
        let message = read(&json, OnError::Skip).unwrap_err().to_string();
        assert!(message.contains("image id 4 is there twice"), "{message}");
    }

    #[test]
    fn missing_and_malformed_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances.json");
        let open = || CocoDataset::open(&path, folder.path(), OnError::Error);
        assert!(open().unwrap_err().to_string().contains("instances.json"));
        fs::write(&path, r#"{"images": [{"id": 1}]}"#).unwrap();
        let message = open().unwrap_err().to_string();
        assert!(
            message.contains("instances.json") && message.contains("file_name"),
            "{message}"
        );
        fs::write(&path, sample().to_string()).unwrap();
        let message = CocoDataset::open(&path, &folder.path().join("gone"), OnError::Error)
            .unwrap_err()
            .to_string();
        assert!(message.contains("gone"), "{message}");
    }
}
