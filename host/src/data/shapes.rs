//! A data set made in memory: flat shapes on cluttered ground, no download.
//!
//! Made to tell models apart after minutes of training: three size ranges, crowding, occlusion,
//! truncation at the border, textures and colours drawn without regard to the class, strokes and
//! blots that are no object, and sensor noise.

mod paint;
mod scene;

use std::sync::Arc;

use rayon::prelude::*;

use self::scene::{Scene, Visible};
use super::{Dataset, DatasetEntry, DatasetError, LabelMap, Object, Record, RgbPixels, Split};
use crate::config::{DataConfig, ShapesConfig, Task};

inventory::submit! { DatasetEntry {
    name: "shapes",
    tasks: &[Task::Detection, Task::Segmentation, Task::Classification],
    open,
} }

/// Raised with every change of the generator that changes an image: part of each record's name and
/// thereby of the fingerprint.
const VERSION: u32 = 1;
/// An object of which less is seen becomes a crowd region.
const MIN_VISIBLE: f64 = 0.25;
/// Likewise one with fewer visible pixels: nobody could tell its class.
const MIN_PIXELS: usize = 24;
/// First class of the segmentation set; its labels are those of the objects plus one.
const BACKGROUND: &str = "background";
/// Largest and smallest extent of an image, pixels.
const EXTENTS: std::ops::RangeInclusive<usize> = 32..=1024;

/// The procedural data set.
///
/// - Image `index` of a split is a function of the seed, the split and the index alone: a set of
///   more images starts with those of the smaller one. Only basic arithmetic and square roots are
///   used, so images are the same on every platform.
/// - Boxes hold the visible pixels of an object exactly. An object that is hidden altogether is
///   left out; one of which less than a quarter is seen is a crowd region.
/// - Masks hold the visible pixels too: what stands in front is cut out, clutter is not.
/// - `area` is the box's, so that size ranges mean the same for objects and detections.
/// - Image ids count from 1.
/// - For segmentation ([`ShapesDataset::labelled`]) the images are the same, and what the objects are
///   is in the label maps alone: a pixel has the class of the object that is seen there, however
///   little of it is seen, and ground and clutter are `background`, class 0. None is left open.
/// - For classification ([`ShapesDataset::single`]) each image has one object, of any size from a third to
///   four fifths of the image and whole but for corners of the largest, on the ground and among the clutter of the other sets; it is
///   the image's class, and records have no objects.
#[derive(Debug)]
pub struct ShapesDataset {
    config: ShapesConfig,
    split: Split,
    task: Task,
    classes: Vec<String>,
    records: Vec<Record>,
}

fn open(config: &DataConfig, task: Task, split: Split) -> Result<Arc<dyn Dataset>, DatasetError> {
    Ok(Arc::new(match task {
        Task::Detection => ShapesDataset::new(&config.shapes, split)?,
        Task::Segmentation => ShapesDataset::labelled(&config.shapes, split)?,
        Task::Classification => ShapesDataset::single(&config.shapes, split)?,
    }))
}

impl ShapesDataset {
    /// Lays out all images of a split; they are painted on demand.
    ///
    /// # Errors
    /// If the number of images is 0 or an extent is not in 32..=1024.
    pub fn new(config: &ShapesConfig, split: Split) -> Result<Self, DatasetError> {
        let images = checked(config, split)?;
        // Each record is a function of its index: collecting in order keeps threads out of it.
        let records = (0..images)
            .into_par_iter()
            .map(|index| record(config, split, index))
            .collect();
        Ok(ShapesDataset {
            config: config.clone(),
            split,
            task: Task::Detection,
            classes: scene::CLASSES.map(String::from).to_vec(),
            records,
        })
    }

    /// The same images for segmentation.
    ///
    /// # Errors
    /// As [`ShapesDataset::new`].
    pub fn labelled(config: &ShapesConfig, split: Split) -> Result<Self, DatasetError> {
        let mut dataset = ShapesDataset::new(config, split)?;
        dataset.task = Task::Segmentation;
        dataset.classes.insert(0, BACKGROUND.to_owned());
        for record in &mut dataset.records {
            record.objects.clear();
        }
        Ok(dataset)
    }

    /// Images of one object each, for classification.
    ///
    /// # Errors
    /// As [`ShapesDataset::new`].
    pub fn single(config: &ShapesConfig, split: Split) -> Result<Self, DatasetError> {
        let images = checked(config, split)?;
        let (seed, name) = (config.seed, split.name());
        let record = |index: usize| Record {
            image_id: index as i64 + 1,
            source: format!("shapes-v{VERSION}-single-seed{seed}-{name}#{index}"),
            size: config.size,
            objects: Vec::new(),
        };
        Ok(ShapesDataset {
            config: config.clone(),
            split,
            task: Task::Classification,
            classes: scene::CLASSES.map(String::from).to_vec(),
            records: (0..images).map(record).collect(),
        })
    }

    fn scene(&self, index: usize) -> Scene {
        let key = key(&self.config, self.split, index);
        match self.task {
            Task::Classification => Scene::single(self.config.size, key),
            Task::Detection | Task::Segmentation => Scene::lay_out(self.config.size, key),
        }
    }
}

impl Dataset for ShapesDataset {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn records(&self) -> &[Record] {
        &self.records
    }

    fn pixels(&self, index: usize) -> Result<RgbPixels, DatasetError> {
        let key = key(&self.config, self.split, index);
        Ok(paint::paint(&self.scene(index), key))
    }

    fn has_label_maps(&self) -> bool {
        self.task == Task::Segmentation
    }

    fn has_class_labels(&self) -> bool {
        self.task == Task::Classification
    }

    fn class_label(&self, index: usize) -> Result<usize, DatasetError> {
        if !self.has_class_labels() {
            let image = self.records[index].source.clone();
            return Err(DatasetError::NoClassLabel { image });
        }
        Ok(self.scene(index).items[0].class)
    }

    fn label_map(&self, index: usize) -> Result<LabelMap, DatasetError> {
        if !self.has_label_maps() {
            let image = self.records[index].source.clone();
            return Err(DatasetError::NoLabelMap { image });
        }
        let scene = self.scene(index);
        let label =
            |owner: &Option<usize>| owner.map_or(0, |item| scene.items[item].class as u8 + 1);
        Ok(LabelMap {
            size: self.config.size,
            data: scene.owners().iter().map(label).collect(),
        })
    }
}

/// The number of images of a split.
fn checked(config: &ShapesConfig, split: Split) -> Result<usize, DatasetError> {
    let (key, images) = match split {
        Split::Train => ("data.shapes.num_train", config.num_train),
        Split::Val => ("data.shapes.num_val", config.num_val),
    };
    if images == 0 {
        let reason = "is 0; the set needs at least one image".into();
        return Err(DatasetError::Config { key, reason });
    }
    if !config.size.iter().all(|extent| EXTENTS.contains(extent)) {
        return Err(DatasetError::Config {
            key: "data.shapes.size",
            reason: format!("is {:?}; extents must be in 32..=1024", config.size),
        });
    }
    Ok(images)
}

/// What every draw of an image is keyed by.
fn key(config: &ShapesConfig, split: Split, index: usize) -> [u64; 3] {
    let split = match split {
        Split::Train => 0,
        Split::Val => 1,
    };
    [config.seed, split, index as u64]
}

fn record(config: &ShapesConfig, split: Split, index: usize) -> Record {
    let scene = Scene::lay_out(config.size, key(config, split, index));
    let objects = scene
        .items
        .iter()
        .zip(scene.visible())
        .filter_map(|(item, seen)| {
            let Visible {
                box_xyxy: [x1, y1, x2, y2],
                pixels,
                painted,
                mask,
            } = seen?;
            let is_crowd = pixels < MIN_PIXELS || (pixels as f64) < MIN_VISIBLE * painted as f64;
            Some(Object {
                box_xyxy: [x1, y1, x2, y2].map(|v| v as f32),
                label: item.class,
                is_crowd,
                area: ((x2 - x1) * (y2 - y1)) as f64,
                mask: (!is_crowd).then_some(mask),
            })
        });
    let (seed, split) = (config.seed, split.name());
    Record {
        image_id: index as i64 + 1,
        source: format!("shapes-v{VERSION}-seed{seed}-{split}#{index}"),
        size: config.size,
        objects: objects.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::fingerprint;
    use crate::data::registry::default_config;

    fn config(num_train: usize) -> ShapesConfig {
        let mut config = default_config().shapes;
        (config.num_train, config.num_val) = (num_train, num_train);
        config
    }

    fn train(config: &ShapesConfig) -> ShapesDataset {
        ShapesDataset::new(config, Split::Train).unwrap()
    }

    #[test]
    fn an_image_depends_on_seed_split_and_index_alone() {
        let (few, many) = (train(&config(3)), train(&config(5)));
        assert_eq!(few.records(), &many.records()[..3]);
        for index in 0..3 {
            assert_eq!(few.pixels(index).unwrap(), many.pixels(index).unwrap());
        }
        assert_ne!(few.pixels(0).unwrap(), few.pixels(1).unwrap());
        let val = ShapesDataset::new(&config(3), Split::Val).unwrap();
        assert_ne!(few.pixels(0).unwrap(), val.pixels(0).unwrap());
        assert_ne!(fingerprint(&few), fingerprint(&val));
        let mut seeded = config(3);
        seeded.seed = 1;
        assert_ne!(few.pixels(0).unwrap(), train(&seeded).pixels(0).unwrap());
    }

    #[test]
    fn pixels_are_the_same_everywhere() {
        use sha2::{Digest, Sha256};
        let dataset = train(&config(2));
        let mut hasher = Sha256::new();
        for index in 0..2 {
            hasher.update(dataset.pixels(index).unwrap().data);
        }
        // Recorded with VERSION 1: whoever changes it raises VERSION.
        let recorded = "12027364d25eeadba1e1605560f21ea4a42387a1b1002ac559e21d2012dcec7e";
        assert_eq!(crate::state::hex(&hasher.finalize()), recorded);
    }

    #[test]
    fn the_set_has_the_variety_that_it_promises() {
        let dataset = train(&config(300));
        let objects: Vec<&Object> = dataset.records().iter().flat_map(|r| &r.objects).collect();
        let share = |keep: &dyn Fn(&Object) -> bool| {
            objects.iter().filter(|object| keep(object)).count() as f64 / objects.len() as f64
        };
        let small = share(&|o| o.area < 32.0 * 32.0);
        let large = share(&|o| o.area > 96.0 * 96.0);
        assert!((0.25..0.65).contains(&small), "{small}");
        assert!((0.03..0.2).contains(&large), "{large}");
        let crowd = share(&|o| o.is_crowd);
        assert!((0.002..0.08).contains(&crowd), "{crowd}");
        for label in 0..dataset.classes().len() {
            let share = share(&|o| o.label == label);
            assert!((0.15..0.25).contains(&share), "{label}: {share}");
        }
        let per_image = objects.len() as f64 / 300.0;
        assert!((3.0..7.0).contains(&per_image), "{per_image}");
        let overlapping = dataset
            .records()
            .iter()
            .filter(|r| has_overlap(&r.objects))
            .count();
        assert!((90..280).contains(&overlapping), "{overlapping}");
    }

    fn has_overlap(objects: &[Object]) -> bool {
        let overlap = |a: &Object, b: &Object| {
            let ([a1, b1, a2, b2], [c1, d1, c2, d2]) = (a.box_xyxy, b.box_xyxy);
            a1.max(c1) < a2.min(c2) && b1.max(d1) < b2.min(d2)
        };
        (0..objects.len()).any(|i| (0..i).any(|j| overlap(&objects[i], &objects[j])))
    }

    #[test]
    fn boxes_are_within_the_image_and_never_empty() {
        for size in [[128, 128], [32, 32], [200, 320]] {
            let mut config = config(40);
            config.size = size;
            let dataset = train(&config);
            for (index, record) in dataset.records().iter().enumerate() {
                for object in &record.objects {
                    let [x1, y1, x2, y2] = object.box_xyxy;
                    assert!(0.0 <= x1 && x1 < x2 && x2 <= size[1] as f32);
                    assert!(0.0 <= y1 && y1 < y2 && y2 <= size[0] as f32);
                    assert_eq!(object.mask.is_none(), object.is_crowd);
                }
                if index == 0 {
                    assert_eq!(dataset.pixels(0).unwrap().data.len(), size[0] * size[1] * 3);
                }
            }
        }
    }

    #[test]
    fn label_maps_show_what_is_seen_of_the_objects() {
        let config = config(20);
        let (boxes, labelled) = (
            train(&config),
            ShapesDataset::labelled(&config, Split::Train).unwrap(),
        );
        assert_eq!(labelled.classes()[0], "background");
        assert_eq!(labelled.classes()[1..], *boxes.classes());
        assert_ne!(fingerprint(&boxes), fingerprint(&labelled));
        assert!(boxes.label_map(0).is_err() && !boxes.has_label_maps());
        for index in 0..20 {
            assert_eq!(
                boxes.pixels(index).unwrap(),
                labelled.pixels(index).unwrap()
            );
            assert!(labelled.records()[index].objects.is_empty());
            let map = labelled.label_map(index).unwrap();
            assert_eq!(map.size, [128, 128]);
            // The tight box over the pixels of a class is the one over the boxes of its objects,
            // crowd regions included.
            for class in 0..boxes.classes().len() {
                let objects = boxes.records()[index].objects.iter();
                let around = |a: [f32; 4], b: [f32; 4]| {
                    let [x1, y1] = [a[0].min(b[0]), a[1].min(b[1])];
                    [x1, y1, a[2].max(b[2]), a[3].max(b[3])]
                };
                let expected = objects
                    .filter(|object| object.label == class)
                    .map(|object| object.box_xyxy)
                    .reduce(around);
                let seen = (0..map.data.len())
                    .filter(|&p| usize::from(map.data[p]) == class + 1)
                    .map(|p| [p % 128, p / 128, p % 128 + 1, p / 128 + 1].map(|v| v as f32))
                    .reduce(around);
                assert_eq!(seen, expected, "image {index}, class {class}");
            }
        }
    }

    #[test]
    fn a_single_object_is_the_class_of_its_image() {
        let config = config(300);
        let single = ShapesDataset::single(&config, Split::Train).unwrap();
        assert!(single.has_class_labels() && !single.has_label_maps());
        assert!(single.label_map(0).is_err() && train(&config).class_label(0).is_err());
        assert_eq!(single.classes(), train(&config).classes());
        assert_ne!(fingerprint(&single), fingerprint(&train(&config)));
        let mut counts = [0; 5];
        let mut sides = [f32::MAX, 0.0];
        for index in 0..300 {
            let scene = single.scene(index);
            counts[single.class_label(index).unwrap()] += 1;
            assert_eq!(scene.items.len(), 1);
            let side = 2.0 * scene.items[0].half;
            sides = [sides[0].min(side), sides[1].max(side)];
            // Whole, but for the largest.
            let seen = scene.visible().remove(0).unwrap();
            let [x1, y1, x2, y2] = seen.box_xyxy;
            let inside = x1 > 0 && y1 > 0 && x2 < 128 && y2 < 128;
            assert!(inside || side > 90.0, "image {index}: {:?}", seen.box_xyxy);
            assert!(single.records()[index].objects.is_empty());
        }
        // Five standard deviations of Binomial(300, 1/5): 5 * sqrt(48) = 35.
        assert!(
            counts.iter().all(|count: &i32| (25..=95).contains(count)),
            "{counts:?}"
        );
        assert!(sides[0] < 50.0 && sides[1] > 95.0, "{sides:?}");
        let few = ShapesDataset::single(&self::config(3), Split::Train).unwrap();
        for index in 0..3 {
            assert_eq!(few.pixels(index).unwrap(), single.pixels(index).unwrap());
        }
        assert_ne!(
            few.pixels(0).unwrap(),
            train(&self::config(3)).pixels(0).unwrap()
        );
    }

    #[test]
    fn senseless_configurations_name_their_key() {
        let mut none = config(0);
        let message = ShapesDataset::new(&none, Split::Val)
            .unwrap_err()
            .to_string();
        assert!(message.contains("data.shapes.num_val"), "{message}");
        none = config(1);
        none.size = [8, 128];
        let message = ShapesDataset::new(&none, Split::Train)
            .unwrap_err()
            .to_string();
        assert!(message.contains("data.shapes.size"), "{message}");
    }
}
