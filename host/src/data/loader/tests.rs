use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::data::registry::default_config;
use crate::data::{IGNORE_LABEL, LabelMap, Object, Record, RgbPixels};

/// `images` images of growing size, filled with their index; the listed ones are broken.
struct Numbered {
    records: Vec<Record>,
    classes: Vec<String>,
    broken: Vec<usize>,
    panics: Option<usize>,
    reads: Arc<AtomicUsize>,
    /// Label maps of the index modulo 5; that of image 4 is broken.
    labelled: bool,
}

fn numbered(images: usize) -> Numbered {
    let records = (0..images)
        .map(|index| Record {
            image_id: 100 + index as i64,
            source: format!("image#{index}"),
            size: [4 + index, 6],
            // Every third image is empty.
            objects: (index % 3 != 0)
                .then_some(Object {
                    box_xyxy: [1.0, 1.0, 4.0, 3.0],
                    label: 0,
                    is_crowd: false,
                    area: 6.0,
                    mask: None,
                })
                .into_iter()
                .collect(),
        })
        .collect();
    Numbered {
        records,
        classes: vec!["thing".into()],
        broken: Vec::new(),
        panics: None,
        reads: Arc::default(),
        labelled: false,
    }
}

impl Dataset for Numbered {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn records(&self) -> &[Record] {
        &self.records
    }

    fn pixels(&self, index: usize) -> Result<RgbPixels, DatasetError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        assert_ne!(Some(index), self.panics, "image {index} is a trap");
        if self.broken.contains(&index) {
            return Err(DatasetError::File {
                path: self.records[index].source.clone(),
                reason: "broken".into(),
            });
        }
        let size = self.records[index].size;
        let data = vec![index as u8; size[0] * size[1] * 3];
        Ok(RgbPixels { size, data })
    }

    fn has_label_maps(&self) -> bool {
        self.labelled
    }

    fn label_map(&self, index: usize) -> Result<LabelMap, DatasetError> {
        if index == 4 {
            return Err(DatasetError::File {
                path: "labels#4".into(),
                reason: "broken".into(),
            });
        }
        let size = self.records[index].size;
        let data = vec![index as u8 % 5; size[0] * size[1]];
        Ok(LabelMap { size, data })
    }
}

fn options(batch_size: usize, training: bool) -> LoaderOptions {
    let mut config = default_config();
    config.transform.size = [8, 8];
    config.batch_size = batch_size;
    config.workers = 0;
    if training {
        LoaderOptions::training(&config, 5, 4)
    } else {
        LoaderOptions::evaluation(&config, batch_size, 4, 0)
    }
}

fn loader(dataset: Numbered, options: LoaderOptions) -> Loader {
    Loader::new(Arc::new(dataset), options).unwrap()
}

fn ids(batches: &[Batch]) -> Vec<Vec<i64>> {
    let ids = |batch: &Batch| batch.metas.iter().map(|meta| meta.image_id).collect();
    batches.iter().map(ids).collect()
}

fn collect(loader: &Loader, epoch: u64, start: usize) -> Vec<Batch> {
    loader
        .epoch(epoch, start)
        .collect::<Result<_, _>>()
        .unwrap()
}

fn assert_same(left: &[Batch], right: &[Batch]) {
    assert_eq!(left.len(), right.len());
    for (left, right) in left.iter().zip(right) {
        assert_eq!(left.shape, right.shape);
        assert_eq!(left.images, right.images);
        assert_eq!(left.targets, right.targets);
        assert_eq!(left.metas, right.metas);
    }
}

#[test]
fn batches_do_not_depend_on_workers_and_resume_gives_the_tail() {
    let straight = collect(&loader(numbered(23), options(4, true)), 3, 0);
    assert_eq!(straight.len(), 5);
    for workers in [1, 3, 9] {
        let mut with_workers = options(4, true);
        with_workers.workers = workers;
        let loader = loader(numbered(23), with_workers);
        assert_same(&collect(&loader, 3, 0), &straight);
        assert_same(&collect(&loader, 3, 2), &straight[2..]);
        assert!(collect(&loader, 3, 5).is_empty());
        assert!(collect(&loader, 3, 6).is_empty());
    }
}

#[test]
fn order_and_flips_change_with_epoch_and_seed() {
    let loader_a = loader(numbered(40), options(8, true));
    let epoch_0 = collect(&loader_a, 0, 0);
    let epoch_1 = collect(&loader_a, 1, 0);
    assert_ne!(ids(&epoch_0), ids(&epoch_1));
    let mut all: Vec<i64> = ids(&epoch_0).concat();
    all.sort_unstable();
    assert_eq!(all, (100..140).collect::<Vec<_>>());
    let mut other_seed = options(8, true);
    other_seed.seed = 6;
    assert_ne!(
        ids(&epoch_0),
        ids(&collect(&loader(numbered(40), other_seed), 0, 0))
    );
    let flipped = epoch_0
        .iter()
        .flat_map(|b| &b.metas)
        .filter(|meta| meta.flipped)
        .count();
    // Binomial(40, 1/2): outside 6..=34 has a probability under 1e-5.
    assert!((6..=34).contains(&flipped), "{flipped}");
    for meta in epoch_0.iter().flat_map(|batch| &batch.metas) {
        assert_eq!(meta.flipped, flip_drawn(0.5, 5, 0, meta.image_id));
    }
}

#[test]
fn training_drops_the_incomplete_batch_and_evaluation_keeps_it() {
    let train = loader(numbered(10), options(4, true));
    assert_eq!(
        (train.batches_per_epoch(), collect(&train, 0, 0).len()),
        (2, 2)
    );
    let few = loader(numbered(3), options(4, true));
    assert_eq!(few.batches_per_epoch(), 1);
    assert_eq!(collect(&few, 0, 0)[0].shape[0], 3);
    let eval = loader(numbered(10), options(4, false));
    assert_eq!(eval.batches_per_epoch(), 3);
    let batches = collect(&eval, 0, 0);
    assert_eq!(ids(&batches).concat(), (100..110).collect::<Vec<_>>());
    assert_eq!(batches[2].shape[0], 2);
    let mut limited = options(4, false);
    limited.max_images = 5;
    assert_eq!(loader(numbered(10), limited).batches_per_epoch(), 2);
}

#[test]
fn images_are_padded_with_zeros_to_a_multiple() {
    let mut keep = options(2, false);
    keep.transform.resize = crate::config::ResizeMode::KeepRatio;
    // 4x6 stays; 5x6 shrinks to 4 (short side) and floor(6 * 0.8) = 4.
    (keep.transform.short_side, keep.transform.long_side) = (4, 6);
    let batch = collect(&loader(numbered(2), keep), 0, 0).remove(0);
    assert_eq!(batch.shape, [2, 3, 4, 8]);
    assert_eq!([batch.metas[0].size, batch.metas[1].size], [[4, 6], [4, 4]]);
    for (image, width) in batch.images.chunks_exact(3 * 32).zip([6, 4]) {
        for row in image.chunks_exact(8) {
            assert!(row[..width].iter().all(|v| *v != 0.0));
            assert!(row[width..].iter().all(|v| *v == 0.0));
        }
    }
}

#[test]
fn images_without_objects_are_left_out_on_demand() {
    let mut filtered = options(1, false);
    filtered.filter_empty = true;
    let loader = loader(numbered(7), filtered.clone());
    assert_eq!(ids(&collect(&loader, 0, 0)).concat(), [101, 102, 104, 105]);
    let error = Loader::new(Arc::new(numbered(1)), filtered).err().unwrap();
    assert!(error.to_string().contains("data.filter_empty"), "{error}");
}

#[test]
fn a_broken_image_is_named_by_policy_error() {
    for workers in [0, 2] {
        let mut dataset = numbered(12);
        dataset.broken = vec![7];
        let mut options = options(2, false);
        options.workers = workers;
        let loader = loader(dataset, options);
        let items: Vec<_> = loader.epoch(0, 0).collect();
        assert_eq!(
            items.len(),
            4,
            "three batches, then the error, then the end"
        );
        let message = items[3].as_ref().unwrap_err().to_string();
        assert_eq!(message, "`image#7`: broken");
    }
}

#[test]
fn a_skipped_image_is_counted_and_training_batches_stay_full() {
    let run = |workers: usize, training: bool| {
        let mut dataset = numbered(12);
        dataset.broken = vec![7, 2, 3];
        let mut options = options(2, training);
        options.on_error = OnError::Skip;
        options.workers = workers;
        let loader = loader(dataset, options);
        let batches = [collect(&loader, 0, 0), collect(&loader, 1, 0)].concat();
        (batches, loader.skipped())
    };
    for training in [true, false] {
        let (batches, skipped) = run(0, training);
        let (parallel, skipped_parallel) = run(3, training);
        assert_same(&batches, &parallel);
        assert_eq!(skipped, skipped_parallel);
        let indices: Vec<usize> = skipped.iter().map(|s| s.index).collect();
        assert_eq!(indices, [2, 3, 7]);
        assert!(skipped[2].reason.contains("image#7"));
        assert!(
            ids(&batches)
                .concat()
                .iter()
                .all(|id| ![107, 102, 103].contains(id))
        );
        if training {
            assert!(batches.iter().all(|batch| batch.shape[0] == 2));
        } else {
            // Batch 1 held images 2 and 3 alone; batch 3 keeps image 6.
            assert_eq!(
                ids(&batches[..5]),
                [
                    vec![100, 101],
                    vec![104, 105],
                    vec![106],
                    vec![108, 109],
                    vec![110, 111]
                ]
            );
        }
    }
}

#[test]
fn a_set_without_a_readable_image_is_an_error_even_under_skip() {
    let mut dataset = numbered(3);
    dataset.broken = vec![0, 1, 2];
    let mut options = options(2, true);
    options.on_error = OnError::Skip;
    let message = loader(dataset, options)
        .epoch(0, 0)
        .next()
        .unwrap()
        .unwrap_err()
        .to_string();
    assert!(message.contains("none of the 3 images"), "{message}");
}

#[test]
fn a_panic_is_an_error_of_its_batch() {
    for workers in [0, 1, 3] {
        let mut dataset = numbered(12);
        dataset.panics = Some(5);
        let mut options = options(2, false);
        options.workers = workers;
        let loader = loader(dataset, options);
        let items: Vec<_> = loader.epoch(4, 0).collect();
        assert_eq!(items.len(), 3);
        let message = items[2].as_ref().unwrap_err().to_string();
        assert!(
            message.contains("batch 2 of epoch 4") && message.contains("trap"),
            "{message}"
        );
    }
}

#[test]
fn prefetch_is_bounded_and_dropping_stops_the_workers() {
    let dataset = numbered(200);
    let reads = Arc::clone(&dataset.reads);
    let mut options = options(1, false);
    options.workers = 2;
    let loader = loader(dataset, options);
    let mut epoch = loader.epoch(0, 0);
    assert!(epoch.next().unwrap().is_ok());
    drop(epoch);
    // Joined: no thread reads any more. Two workers, two jobs each, and one for the batch taken.
    let after_drop = reads.load(Ordering::Relaxed);
    assert!(after_drop <= 5, "{after_drop}");
    assert_eq!(
        Arc::strong_count(&loader.source),
        1,
        "no thread holds the data set"
    );
}

#[test]
fn senseless_options_name_their_key() {
    for (change, key) in [
        (
            (|o| o.batch_size = 0) as fn(&mut LoaderOptions),
            "batch_size",
        ),
        (|o| o.size_divisor = 0, "size_divisor"),
        (|o| o.transform.size = [0, 3], "data.transform.size"),
    ] {
        let mut options = options(2, true);
        change(&mut options);
        let message = Loader::new(Arc::new(numbered(3)), options)
            .err()
            .unwrap()
            .to_string();
        assert!(message.contains(key), "{message}");
    }
}

fn labelled(images: usize) -> Numbered {
    let mut dataset = Numbered {
        labelled: true,
        ..numbered(images)
    };
    // As of every set with label maps.
    for record in &mut dataset.records {
        record.objects.clear();
    }
    dataset
}

fn segmentation(batch_size: usize, training: bool) -> LoaderOptions {
    let mut options = LoaderOptions {
        on_error: OnError::Skip,
        filter_empty: true,
        ..options(batch_size, training)
    };
    options.transform.resize = crate::config::ResizeMode::None;
    options
}

#[test]
fn label_maps_lie_in_the_batch_as_images_do() {
    let loader = loader(labelled(3), segmentation(3, false));
    assert_eq!(loader.num_images(), 3, "images without objects take part");
    let batch = collect(&loader, 0, 0).remove(0);
    // Heights 4, 5, 6 and width 6, to a multiple of 4.
    assert_eq!(batch.shape, [3, 3, 8, 8]);
    let maps = batch.label_maps.chunks_exact(64);
    assert_eq!(maps.len(), 3);
    for (index, map) in maps.enumerate() {
        for (y, row) in map.chunks_exact(8).enumerate() {
            for (x, label) in row.iter().enumerate() {
                let inside = y < 4 + index && x < 6;
                assert_eq!(*label, if inside { index as u8 } else { IGNORE_LABEL });
            }
        }
        let original = &batch.original_label_maps[index];
        assert_eq!(original.size, [4 + index, 6]);
        assert!(original.data.iter().all(|label| *label == index as u8));
    }
    assert_eq!(batch.targets, vec![crate::data::ImageTargets::default(); 3]);
}

#[test]
fn crops_and_scales_do_not_depend_on_workers() {
    let mut options = segmentation(4, true);
    options.transform.scale_range = [0.5, 2.0];
    options.transform.crop_size = vec![7, 9];
    let straight = collect(&loader(labelled(23), options.clone()), 3, 0);
    options.workers = 3;
    let threaded = collect(&loader(labelled(23), options), 3, 0);
    assert_same(&straight, &threaded);
    for (a, b) in straight.iter().zip(&threaded) {
        assert_eq!(a.shape, [4, 3, 8, 12]);
        assert_eq!(a.label_maps.len(), 4 * 8 * 12);
        assert_eq!(a.label_maps, b.label_maps);
        assert!(a.original_label_maps.is_empty());
        assert!(a.metas.iter().all(|meta| meta.size == [7, 9]));
    }
}

#[test]
fn a_broken_label_map_is_as_a_broken_image() {
    let skipping = loader(labelled(6), segmentation(6, false));
    let batch = collect(&skipping, 0, 0).remove(0);
    assert_eq!(ids(&[batch]), [[100, 101, 102, 103, 105]]);
    assert_eq!(skipping.skipped()[0].reason, "`labels#4`: broken");
    let mut strict = segmentation(6, false);
    strict.on_error = OnError::Error;
    let error = loader(labelled(6), strict).epoch(0, 0).next().unwrap();
    assert_eq!(error.unwrap_err().to_string(), "`labels#4`: broken");
}

#[test]
fn images_of_one_class_each_are_cropped_at_random_and_keep_their_label() {
    use crate::data::{Split, ViewSpec, open};
    let mut config = default_config();
    (config.shapes.num_train, config.batch_size) = (12, 4);
    config.transform.size = [48, 40];
    let dataset = open(&config, crate::config::Task::Classification, Split::Train).unwrap();
    let made = |config: &crate::config::DataConfig, training: bool, epoch: u64| {
        let options = match training {
            true => LoaderOptions::training(config, 5, 32),
            false => LoaderOptions::evaluation(config, 4, 32, 0),
        };
        let large = ViewSpec {
            scale: [2.0; 2],
            mean: config.transform.mean,
            std: config.transform.std,
            size_divisor: 32,
            frame_scale: None,
        };
        let options = options.with_views(vec![large]);
        let loader = Loader::new(Arc::clone(&dataset), options).unwrap();
        collect(&loader, epoch, 0)
    };
    let whole = made(&config, true, 1);
    config.transform.area_range = [0.08, 1.0];
    let drawn = made(&config, true, 1);
    config.workers = 2;
    assert_same(&drawn, &made(&config, true, 1));
    for (whole, drawn) in whole.iter().zip(&drawn) {
        assert_eq!(drawn.shape, [4, 3, 64, 64]);
        assert_eq!(drawn.views[0].sizes, [[96, 80]; 4]);
        // Order and mirroring are draws of their own.
        assert_eq!(whole.metas, drawn.metas);
        assert_ne!(whole.images, drawn.images);
        let labels = drawn.metas.iter().map(|meta| {
            let index = meta.image_id as usize - 1;
            dataset.class_label(index).unwrap()
        });
        assert_eq!(drawn.labels, labels.collect::<Vec<_>>());
        assert!(drawn.label_maps.is_empty() && drawn.original_label_maps.is_empty());
    }
    assert_ne!(drawn[0].images, made(&config, true, 2)[0].images);
    let evaluated = made(&config, false, 0);
    config.transform.area_range = [1.0, 1.0];
    assert_same(&evaluated, &made(&config, false, 0));
    assert_eq!(
        evaluated
            .iter()
            .map(|batch| batch.labels.len())
            .sum::<usize>(),
        12
    );
}

/// SHA-256 of pixels, boxes, labels, masks and label maps of two epochs.
fn hash(loader: &Loader) -> String {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    for epoch in 0..2 {
        for batch in loader.epoch(epoch, 0) {
            let batch = batch.unwrap();
            for value in &batch.images {
                hasher.update(value.to_bits().to_le_bytes());
            }
            hasher.update(&batch.label_maps);
            let facts = format!("{:?} {:?} {:?}", batch.shape, batch.targets, batch.metas);
            hasher.update(facts);
        }
    }
    crate::state::hex(&hasher.finalize())
}

#[test]
fn batches_are_those_that_earlier_versions_made() {
    use crate::config::Task;
    use crate::data::{Split, open};
    let of = |task: Task, training: bool, change: fn(&mut crate::config::DataConfig)| {
        let mut config = default_config();
        (config.shapes.num_train, config.shapes.num_val) = (6, 6);
        config.shapes.size = [48, 64];
        (config.batch_size, config.workers) = (3, 0);
        change(&mut config);
        let options = match training {
            true => LoaderOptions::training(&config, 7, 32),
            false => LoaderOptions::evaluation(&config, 3, 32, 0),
        };
        let dataset = open(&config, task, Split::Train).unwrap();
        hash(&Loader::new(dataset, options).unwrap())
    };
    let keep_ratio = |config: &mut crate::config::DataConfig| {
        config.transform.resize = crate::config::ResizeMode::KeepRatio;
        (config.transform.short_side, config.transform.long_side) = (40, 50);
    };
    let cropped = |config: &mut crate::config::DataConfig| {
        config.transform.size = [64, 80];
        config.transform.scale_range = [0.5, 2.0];
        config.transform.crop_size = vec![56, 72];
    };
    let own_size = |config: &mut crate::config::DataConfig| {
        config.transform.resize = crate::config::ResizeMode::None;
    };
    let found = [
        of(Task::Detection, true, |_| ()),
        of(Task::Detection, true, keep_ratio),
        of(Task::Detection, false, own_size),
        of(Task::Segmentation, true, cropped),
        of(Task::Segmentation, false, keep_ratio),
    ];
    // Recorded before an image could have further views: checkpoints go on with the same images.
    let recorded = [
        "b119141427922c8f8ebd956779b82723bff8ea13f9a354de58794bd0dbb6533b",
        "d30bd075d4aae2489b851f318f39058c72d6c934fb3853d314ca751760da54df",
        "9549961031342334717536e76a53d2dc80209f720e4ff60e07ff375dfbc44a8b",
        "1cee5c58e71610209eabe549f9bf57fb30dcd888d1a4c9b0dbb7752e8f1ba2fe",
        "a0e72e0151fbcc0bb54b6e724fa7aa8ea9dcda993661380818d6c752ba04a420",
    ];
    assert_eq!(found, recorded);
}
