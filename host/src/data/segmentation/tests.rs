use std::fs;

use image::{GrayImage, RgbImage};

use super::*;
use crate::config::{DataConfig, Task};
use crate::data::registry::default_config;
use crate::data::{Split, fingerprint, open};

/// 4 wide, 2 high.
const LABELS: [u8; 8] = [0, 1, 2, 255, 11, 1, 0, 2];

fn image(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(4, 2, |x, y| image::Rgb([x as u8, y as u8, 9]))
        .save(path)
        .unwrap();
}

fn labels(path: &Path, values: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_raw(4, values.len() as u32 / 4, values.to_vec())
        .unwrap()
        .save(path)
        .unwrap();
}

fn opened(config: &DataConfig) -> Result<std::sync::Arc<dyn Dataset>, DatasetError> {
    open(config, Task::Segmentation, Split::Train)
}

/// Two images, `a` and `b`, with labels.
fn folder() -> (tempfile::TempDir, DataConfig) {
    let folder = tempfile::tempdir().unwrap();
    let [images, maps] = ["images", "labels"].map(|name| folder.path().join(name));
    image(&images.join("b.jpg"));
    image(&images.join("a.png"));
    fs::write(images.join("notes.txt"), "not an image").unwrap();
    labels(&maps.join("a.png"), &LABELS);
    labels(&maps.join("b.png"), &[2; 8]);
    let mut config = default_config();
    config.dataset = "seg_folder".into();
    let own = &mut config.seg_folder;
    (own.train_images, own.train_labels) = (images, maps);
    own.classes = ["sky", "road", "car"].map(String::from).to_vec();
    own.ignore = vec![11];
    (folder, config)
}

fn message<T>(result: Result<T, DatasetError>) -> String {
    result.err().expect("it is refused").to_string()
}

#[test]
fn a_folder_gives_pairs_by_name() {
    let (_folder, config) = folder();
    let dataset = opened(&config).unwrap();
    assert_eq!(dataset.classes(), ["sky", "road", "car"]);
    let [a, b] = dataset.records() else {
        panic!("two images")
    };
    assert!(a.source.ends_with("a.png") && b.source.ends_with("b.jpg"));
    assert_eq!((a.image_id, b.image_id, a.size), (1, 2, [2, 4]));
    assert_eq!(dataset.pixels(0).unwrap().data[3..6], [1, 0, 9]);
    let map = dataset.label_map(0).unwrap();
    assert_eq!(map.size, [2, 4]);
    assert_eq!(map.data, [0, 1, 2, 255, 255, 1, 0, 2]);
}

#[test]
fn a_value_that_is_no_class_is_named_with_its_pixel() {
    let (folder, config) = folder();
    let mut values = LABELS;
    values[6] = 3;
    labels(&folder.path().join("labels/a.png"), &values);
    let message = message(opened(&config).unwrap().label_map(0));
    for part in [
        "labels/a.png`",
        "row 1, column 2",
        "value 3 is no class",
        "0 to 2",
        "`data.seg_folder.ignore`",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn another_size_names_both_files() {
    let (folder, config) = folder();
    labels(&folder.path().join("labels/a.png"), &[0; 12]);
    let message = message(opened(&config).unwrap().label_map(0));
    for part in ["labels/a.png`: is 4x3", "images/a.png` is 4x2"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_missing_label_map_is_an_error_or_left_out() {
    let (folder, mut config) = folder();
    fs::remove_file(folder.path().join("labels/a.png")).unwrap();
    let error = message(opened(&config));
    assert!(error.contains("labels/a.png"), "{error}");
    assert!(error.contains("images/a.png"), "{error}");
    config.on_error = OnError::Skip;
    let dataset = opened(&config).unwrap();
    assert_eq!(dataset.records().len(), 1);
    assert_eq!(dataset.left_out().images, [error]);
    fs::remove_file(folder.path().join("labels/b.png")).unwrap();
    let error = message(opened(&config));
    assert!(error.contains("no image with a label map"), "{error}");
}

#[test]
fn names_that_share_a_label_map_are_refused() {
    let (folder, config) = folder();
    image(&folder.path().join("images/b.png"));
    let message = message(opened(&config));
    assert!(message.contains("images/b.jpg") && message.contains("images/b.png"));
}

#[test]
fn keys_that_are_needed_are_named() {
    let (_folder, config) = folder();
    type Spoil = fn(&mut DataConfig);
    let cases: [(Spoil, &str); 6] = [
        (
            |c| c.seg_folder.train_images = PathBuf::new(),
            "data.seg_folder.train_images",
        ),
        (
            |c| c.seg_folder.train_labels = PathBuf::new(),
            "data.seg_folder.train_labels",
        ),
        (|c| c.seg_folder.classes.clear(), "data.seg_folder.classes"),
        (|c| c.dataset = "voc_seg".into(), "data.voc_seg.root"),
        (|c| c.dataset = "cityscapes".into(), "data.cityscapes.root"),
        (|c| c.dataset = "coco".into(), "data.dataset"),
    ];
    for (spoil, key) in cases {
        let mut config = config.clone();
        spoil(&mut config);
        let message = message(opened(&config));
        assert!(message.contains(key), "{key}: {message}");
    }
}

#[test]
fn the_fingerprint_sees_classes_values_and_names() {
    let (folder, config) = folder();
    let print = |config: &DataConfig| fingerprint(opened(config).unwrap().as_ref());
    let base = print(&config);
    assert_eq!(print(&config), base);
    let mut changed = config.clone();
    changed.seg_folder.ignore = vec![];
    assert_ne!(print(&changed), base);
    changed = config.clone();
    changed.seg_folder.classes[1] = "street".into();
    assert_ne!(print(&changed), base);
    image(&folder.path().join("images/c.png"));
    labels(&folder.path().join("labels/c.png"), &[0; 8]);
    assert_ne!(print(&config), base);
}

#[test]
fn voc_follows_its_list_and_reads_palette_indices() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for id in ["2007_1", "2007_2"] {
        image(&root.join(format!("JPEGImages/{id}.jpg")));
    }
    let lists = root.join("ImageSets/Segmentation");
    fs::create_dir_all(&lists).unwrap();
    fs::write(lists.join("train.txt"), "2007_2\n2007_1\n").unwrap();
    fs::create_dir_all(root.join("SegmentationClass")).unwrap();
    let values = [0, 1, 20, 255, 5, 5, 5, 5];
    for id in ["2007_1", "2007_2"] {
        let file = fs::File::create(root.join(format!("SegmentationClass/{id}.png"))).unwrap();
        let mut encoder = png::Encoder::new(file, 4, 2);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_palette([200; 768].as_slice());
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&values).unwrap();
    }
    let mut config = default_config();
    config.dataset = "voc_seg".into();
    config.voc_seg.root = root.into();
    let dataset = opened(&config).unwrap();
    assert_eq!(dataset.classes().len(), 21);
    assert_eq!(dataset.classes()[0], "background");
    assert_eq!(dataset.classes()[15], "person");
    assert!(dataset.records()[0].source.ends_with("2007_2.jpg"));
    assert_eq!(dataset.label_map(0).unwrap().data, values);
    config.voc_seg.classes = ["ground", "thing"].map(String::from).to_vec();
    let message = message(opened(&config).unwrap().label_map(1));
    assert!(message.contains("value 20 is no class"), "{message}");
}

#[test]
fn cityscapes_ids_become_train_ids() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (city, stem) in [("ulm", "ulm_000_01"), ("aachen", "aachen_003_02")] {
        image(&root.join(format!("leftImg8bit/train/{city}/{stem}_leftImg8bit.png")));
        let path = root.join(format!("gtFine/train/{city}/{stem}_gtFine_labelIds.png"));
        // ego vehicle, road, parking, building, tunnel, caravan, train, bicycle
        labels(&path, &[1, 7, 9, 11, 16, 29, 31, 33]);
    }
    let mut config = default_config();
    config.dataset = "cityscapes".into();
    config.cityscapes.root = root.into();
    let dataset = opened(&config).unwrap();
    assert_eq!(dataset.classes().len(), 19);
    assert!(dataset.records()[0].source.contains("aachen"));
    let map = dataset.label_map(1).unwrap();
    assert_eq!(map.data, [255, 0, 255, 2, 255, 255, 16, 18]);
    let path = root.join("gtFine/train/ulm/ulm_000_01_gtFine_labelIds.png");
    labels(&path, &[0, 0, 0, 0, 0, 0, 0, 34]);
    let message = message(dataset.label_map(1));
    assert!(message.contains("value 34"), "{message}");
    assert!(message.contains("0 to 33"), "{message}");
}
