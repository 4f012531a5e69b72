//! What a data set is, in one line: part of cache keys, reported with every metric.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Dataset, MaskCrop};
use crate::config::TransformConfig;
use crate::state::hex;

/// SHA-256, lowercase hex, over class names and category ids and the ordered images: id, file name
/// (not its folder, so that a moved copy is the same set), size and all objects, with their masks
/// where there are any; of a segmentation set also the names of the label maps' files and how their
/// values become labels; of a classification set the class of each image.
///
/// Pixels are not read: a replaced image or label map of the same name and size is not seen.
#[must_use]
pub fn fingerprint(dataset: &dyn Dataset) -> String {
    hex(&digest(dataset).finalize())
}

/// As [`fingerprint`], with the transform: everything the network's input depends on beside seed
/// and epoch.
#[must_use]
pub fn input_fingerprint(dataset: &dyn Dataset, transform: &TransformConfig) -> String {
    let mut hasher = digest(dataset);
    // Equal configurations print equally: floats in their shortest form that reads back the same.
    hasher.update(serde_json::to_vec(transform).expect("a transform is plain data"));
    hex(&hasher.finalize())
}

fn digest(dataset: &dyn Dataset) -> Sha256 {
    let mut hasher = Sha256::new();
    let classes = dataset.classes().iter().zip(dataset.category_ids());
    number(&mut hasher, dataset.classes().len() as u64);
    for (name, id) in classes {
        text(&mut hasher, name);
        number(&mut hasher, id.cast_unsigned());
    }
    number(&mut hasher, dataset.records().len() as u64);
    for record in dataset.records() {
        number(&mut hasher, record.image_id.cast_unsigned());
        let name = Path::new(&record.source).file_name();
        text(&mut hasher, &name.unwrap_or_default().to_string_lossy());
        number(&mut hasher, record.size[0] as u64);
        number(&mut hasher, record.size[1] as u64);
        number(&mut hasher, record.objects.len() as u64);
        for object in &record.objects {
            for value in object.box_xyxy {
                hasher.update(value.to_bits().to_le_bytes());
            }
            number(&mut hasher, object.label as u64);
            number(&mut hasher, u64::from(object.is_crowd));
            number(&mut hasher, object.area.to_bits());
        }
    }
    // Behind everything else and only if there are any: a set without masks is named as it was
    // before masks were read.
    let objects = || dataset.records().iter().flat_map(|record| &record.objects);
    if objects().any(|object| object.mask.is_some()) {
        text(&mut hasher, "masks");
        for object in objects() {
            // A crop has 49 bits.
            number(&mut hasher, object.mask.map_or(u64::MAX, MaskCrop::bits));
        }
    }
    if dataset.has_label_maps() {
        text(&mut hasher, "label maps");
        let facts = dataset.label_facts();
        number(&mut hasher, facts.len() as u64);
        for fact in &facts {
            text(&mut hasher, fact);
        }
    }
    if dataset.has_class_labels() {
        text(&mut hasher, "class labels");
        for index in 0..dataset.records().len() {
            // Where a class cannot be told there is none to be changed.
            let label = dataset
                .class_label(index)
                .map_or(u64::MAX, |label| label as u64);
            number(&mut hasher, label);
        }
    }
    hasher
}

fn number(hasher: &mut Sha256, value: u64) {
    hasher.update(value.to_le_bytes());
}

/// Length first, so that `ab, c` and `a, bc` differ.
fn text(hasher: &mut Sha256, value: &str) {
    number(hasher, value.len() as u64);
    hasher.update(value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DatasetError, Object, Record, RgbPixels};

    struct Listed(Vec<String>, Vec<Record>);

    impl Dataset for Listed {
        fn classes(&self) -> &[String] {
            &self.0
        }
        fn records(&self) -> &[Record] {
            &self.1
        }
        fn pixels(&self, _: usize) -> Result<RgbPixels, DatasetError> {
            panic!("pixels are not read")
        }
    }

    fn listed() -> Listed {
        let object = Object {
            box_xyxy: [1.0, 2.0, 3.0, 4.0],
            label: 0,
            is_crowd: false,
            area: 4.0,
            mask: None,
        };
        let record = |image_id: i64| Record {
            image_id,
            source: format!("folder/{image_id}.jpg"),
            size: [10, 20],
            objects: vec![object.clone()],
        };
        Listed(vec!["a".into()], vec![record(1), record(2)])
    }

    #[test]
    fn it_sees_every_fact_but_the_folder() {
        let base = fingerprint(&listed());
        assert_eq!(base.len(), 64);
        let mut moved = listed();
        moved.1[0].source = "elsewhere/1.jpg".into();
        assert_eq!(fingerprint(&moved), base);
        let changes: [fn(&mut Listed); 8] = [
            |d| d.0[0] = "b".into(),
            |d| d.1.swap(0, 1),
            |d| d.1[1].image_id = 3,
            |d| d.1[1].source = "folder/3.jpg".into(),
            |d| d.1[1].size = [20, 10],
            |d| d.1[1].objects[0].box_xyxy[3] = 4.000_001,
            |d| d.1[1].objects[0].is_crowd = true,
            |d| d.1[1].objects[0].area = 5.0,
        ];
        for change in changes {
            let mut changed = listed();
            change(&mut changed);
            assert_ne!(fingerprint(&changed), base);
        }
    }

    #[test]
    fn masks_count_where_there_are_any() {
        // Recorded before there were masks: runs of sets without are found again.
        let recorded = "41547e991f56740dab70f61888f23ece9f054a9ac76e548a4675151ee94a730b";
        assert_eq!(fingerprint(&listed()), recorded);
        let crop = |right: f64| {
            let polygon = vec![1.0, 2.0, right, 2.0, right, 4.0, 1.0, 4.0];
            Some(MaskCrop::from_polygons(&[polygon], [1.0, 2.0, 3.0, 4.0]))
        };
        let masked = |first, second| {
            let mut masked = listed();
            masked.1[0].objects[0].mask = first;
            masked.1[1].objects[0].mask = second;
            fingerprint(&masked)
        };
        let all = [
            masked(None, None),
            masked(crop(3.0), None),
            masked(None, crop(3.0)),
            masked(crop(3.0), crop(3.0)),
            masked(crop(2.0), None),
            masked(crop(1.0), None),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn the_input_depends_on_the_transform() {
        let mut transform = crate::data::registry::default_config().transform;
        let base = input_fingerprint(&listed(), &transform);
        assert_eq!(input_fingerprint(&listed(), &transform), base);
        transform.size = [96, 96];
        assert_ne!(input_fingerprint(&listed(), &transform), base);
    }
}
