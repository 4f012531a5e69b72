use super::*;
use crate::data::fingerprint;
use crate::data::registry::default_config;

/// A folder with images of `height` by 8 pixels at these places below it.
fn folder(images: &[(&str, u32)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, height) in images {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(8, *height, image::Rgb([*height as u8; 3]))
            .save(path)
            .unwrap();
    }
    folder
}

fn opened(folder: &tempfile::TempDir, classes: &[&str]) -> Result<ClassFolder, DatasetError> {
    let classes: Vec<String> = classes.iter().map(|class| (*class).to_owned()).collect();
    ClassFolder::open(folder.path(), &classes, OnError::Error)
}

const IMAGES: [(&str, u32); 5] = [
    ("dog/b.png", 5),
    ("dog/a.JPG", 4),
    ("cat/z.jpeg", 3),
    ("cat/more/y.png", 2),
    ("cat/.hidden.png", 9),
];

#[test]
fn classes_are_sorted_folders_and_images_sorted_paths() {
    let folder = folder(&IMAGES);
    let set = opened(&folder, &[]).unwrap();
    assert_eq!(set.classes(), ["cat", "dog"]);
    let labels: Vec<usize> = (0..4).map(|i| set.class_label(i).unwrap()).collect();
    assert_eq!(labels, [0, 0, 1, 1]);
    let facts: Vec<(i64, [usize; 2])> = (set.records().iter())
        .map(|record| (record.image_id, record.size))
        .collect();
    assert_eq!(facts, [(1, [2, 8]), (2, [3, 8]), (3, [4, 8]), (4, [5, 8])]);
    assert!(set.records()[0].source.ends_with("cat/more/y.png"));
    assert_eq!(set.pixels(3).unwrap().data, [5; 120]);
    assert!(set.has_class_labels() && !set.has_label_maps());
    assert!(set.label_map(0).is_err());
}

#[test]
fn a_list_chooses_and_orders_the_classes() {
    let folder = folder(&[IMAGES[0], IMAGES[2], ("emu/e.png", 7)]);
    let set = opened(&folder, &["emu", "cat"]).unwrap();
    assert_eq!(set.classes(), ["emu", "cat"]);
    let labels: Vec<usize> = (0..2).map(|i| set.class_label(i).unwrap()).collect();
    assert_eq!((labels, set.records().len()), (vec![0, 1], 2));
    assert_eq!(set.records()[0].size, [7, 8]);
    let message = opened(&folder, &["cat", "cow"]).unwrap_err().to_string();
    assert!(
        message.contains("data.class_folder.classes") && message.contains("`cow` has no folder"),
        "{message}"
    );
    assert!(message.ends_with("cat, dog, emu"), "{message}");
}

#[test]
fn labels_are_part_of_the_fingerprint() {
    let [a, b] = [
        folder(&[("cat/1.png", 2), ("cat/2.png", 2), ("dog/3.png", 2)]),
        folder(&[("cat/1.png", 2), ("dog/2.png", 2), ("dog/3.png", 2)]),
    ];
    let of = |folder: &tempfile::TempDir| fingerprint(&opened(folder, &[]).unwrap());
    assert_ne!(of(&a), of(&b), "the second image has another class");
}

#[test]
fn what_cannot_be_meant_is_named() {
    let message = |images: &[(&str, u32)], change: fn(&Path)| {
        let folder = folder(images);
        change(folder.path());
        opened(&folder, &[]).unwrap_err().to_string()
    };
    let text = message(&IMAGES, |root| {
        std::fs::create_dir(root.join("ant")).unwrap()
    });
    assert!(text.contains("ant`: a class without an image"), "{text}");
    let text = message(&[("a.png", 2)], |_| ());
    assert!(text.contains("a.png`: a file beside the folders"), "{text}");
    let text = message(&[], |_| ());
    assert!(text.contains("no folder of a class"), "{text}");
    let text = message(&IMAGES, |root| {
        std::fs::write(root.join("cat/notes.txt"), "").unwrap();
    });
    assert!(text.contains("notes.txt`: neither `.jpg`"), "{text}");
    let text = message(&IMAGES, |root| {
        std::fs::write(root.join("cat/z.jpeg"), "no image").unwrap();
    });
    assert!(text.contains("z.jpeg`"), "{text}");
    for (split, key) in [
        (Split::Train, "data.class_folder.train"),
        (Split::Val, "data.class_folder.val"),
    ] {
        let config = default_config();
        let error = open(&config, Task::Classification, split).err().unwrap();
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn files_that_cannot_be_read_are_left_out_on_demand() {
    let folder = folder(&IMAGES);
    std::fs::write(folder.path().join("cat/notes.txt"), "").unwrap();
    std::fs::write(folder.path().join("dog/b.png"), "broken").unwrap();
    let set = ClassFolder::open(folder.path(), &[], OnError::Skip).unwrap();
    assert_eq!(set.records().len(), 3);
    assert_eq!(set.left_out().images.len(), 2);
    std::fs::remove_file(folder.path().join("dog/a.JPG")).unwrap();
    let error = ClassFolder::open(folder.path(), &[], OnError::Skip).unwrap_err();
    assert!(
        error.to_string().contains("a class without an image"),
        "{error}"
    );
}
