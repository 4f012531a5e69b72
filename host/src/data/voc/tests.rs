use image::RgbImage;

use super::*;
use crate::data::registry::default_config;

fn object(class: &str, corners: [i32; 4], rest: &str) -> String {
    let [xmin, ymin, xmax, ymax] = corners;
    format!(
        "<object><name>{class}</name>{rest}<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>\
         <xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
    )
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["Annotations", "ImageSets/Main", "JPEGImages"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Folder(folder)
    }

    fn list(&self, split: &str, ids: &str) {
        fs::write(list_path(self.0.path(), split), ids).unwrap();
    }

    fn xml(&self, id: &str, text: &str) {
        fs::write(self.0.path().join(format!("Annotations/{id}.xml")), text).unwrap();
    }

    /// 20 wide, 10 high, black.
    fn image(&self, id: &str, objects: &str) {
        let path = self.0.path().join(format!("JPEGImages/{id}.png"));
        RgbImage::new(20, 10).save(path).unwrap();
        let size = "<size><width>20</width><height>10</height><depth>3</depth></size>";
        self.xml(id, &format!("<annotation>{size}{objects}</annotation>"));
    }

    fn config(&self) -> VocConfig {
        let mut config = default_config().voc;
        config.root = self.0.path().into();
        config
    }

    fn open(&self, split: Split) -> Result<VocDataset, DatasetError> {
        VocDataset::open(&self.config(), split, OnError::Error)
    }
}

fn two_images() -> Folder {
    let folder = Folder::new();
    let part = "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax>\
                <ymax>9</ymax></bndbox></part>";
    folder.image(
        "first",
        &[
            object("dog", [1, 1, 20, 10], part),
            object("cat", [3, 4, 3, 4], ""),
            object("cat", [5, 2, 9, 6], "<difficult>1</difficult>"),
        ]
        .concat(),
    );
    folder.image("second", "");
    folder.list("train", "second\nfirst  1\n\n");
    folder.image("third", &object("dog", [0, 2, 25, 6], ""));
    folder.list("val", "third\n");
    folder
}

#[test]
fn inclusive_corners_become_continuous() {
    let folder = two_images();
    let train = folder.open(Split::Train).unwrap();
    assert_eq!(train.classes(), ["cat", "dog"]);
    let [second, first] = train.records() else {
        panic!("two images")
    };
    assert_eq!((second.image_id, second.objects.len()), (1, 0));
    assert_eq!(
        first.objects,
        [
            Object {
                box_xyxy: [0.0, 0.0, 20.0, 10.0],
                label: 1,
                is_crowd: false,
                area: 200.0,
                mask: None,
            },
            Object {
                box_xyxy: [4.0, 1.0, 9.0, 6.0],
                label: 0,
                is_crowd: true,
                area: 25.0,
                mask: None,
            },
        ]
    );
    assert_eq!(train.pixels(0).unwrap().size, [10, 20]);
    assert!(first.source.ends_with("first.png"));
    // A 0-based file reaches one pixel out on each side.
    let val = folder.open(Split::Val).unwrap();
    assert_eq!(val.records()[0].objects[0].box_xyxy, [0.0, 1.0, 20.0, 6.0]);
    assert_eq!(val.classes(), ["cat", "dog"], "as in the training split");
}

#[test]
fn difficult_objects_are_trained_on_only_when_asked() {
    let folder = two_images();
    folder.list("val", "first\n");
    let mut config = folder.config();
    config.keep_difficult = true;
    for (split, is_crowd) in [(Split::Train, false), (Split::Val, true)] {
        let dataset = VocDataset::open(&config, split, OnError::Error).unwrap();
        let record = dataset.records().last().unwrap();
        assert_eq!(record.objects[1].is_crowd, is_crowd);
    }
}

#[test]
fn zero_extent_is_counted() {
    let train = two_images().open(Split::Train).unwrap();
    let [entry] = &train.left_out().boxes[..] else {
        panic!("one box")
    };
    assert!(entry.contains("first.xml"), "{entry}");
    assert!(
        entry.ends_with("object 2 (`cat`): zero or negative extent"),
        "{entry}"
    );
}

#[test]
fn classes_of_the_configuration_decide() {
    let folder = two_images();
    let mut config = folder.config();
    config.classes = vec!["dog".into()];
    let error = VocDataset::open(&config, Split::Train, OnError::Error).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("first.xml") && message.contains("object 2 (`cat`)"),
        "{message}"
    );
    let dataset = VocDataset::open(&config, Split::Train, OnError::Skip).unwrap();
    assert_eq!(dataset.left_out().boxes.len(), 2);
    assert_eq!(dataset.records()[1].objects.len(), 1);
    assert_eq!(dataset.category_ids(), [1]);
}

#[test]
fn broken_files_are_named_or_skipped() {
    type Spoil<'a> = &'a dyn Fn(&Folder);
    let faults: [(&str, Spoil<'_>); 5] = [
        ("first.xml", &|f| f.xml("first", "<annotation><size>")),
        ("no `xmax`", &|f| {
            f.xml(
                "first",
                "<annotation><object><name>a</name><bndbox><xmin>1</xmin>\
                <ymin>1</ymin></bndbox></object></annotation>",
            );
        }),
        ("`xmin` is `one`", &|f| {
            f.xml(
                "first",
                "<annotation><object><name>a</name><bndbox><xmin>one</xmin>\
                </bndbox></object></annotation>",
            );
        }),
        ("no image `first`", &|f| {
            fs::remove_file(f.0.path().join("JPEGImages/first.png")).unwrap();
        }),
        ("first.xml", &|f| {
            fs::remove_file(f.0.path().join("Annotations/first.xml")).unwrap();
        }),
    ];
    for (expected, fault) in faults {
        let folder = two_images();
        fault(&folder);
        let message = folder.open(Split::Train).unwrap_err().to_string();
        assert!(
            message.contains(expected) && message.contains("first"),
            "{message}"
        );
        let dataset = VocDataset::open(&folder.config(), Split::Train, OnError::Skip).unwrap();
        assert_eq!(dataset.records().len(), 1);
        assert_eq!(dataset.left_out().images, [message]);
    }
}

#[test]
fn a_missing_or_empty_list_is_named() {
    let folder = two_images();
    folder.list("val", "\n");
    let message = folder.open(Split::Val).unwrap_err().to_string();
    assert!(message.contains("val.txt"), "{message}");
    fs::remove_file(list_path(folder.0.path(), "val")).unwrap();
    let message = folder.open(Split::Val).unwrap_err().to_string();
    assert!(message.contains("val.txt"), "{message}");
}

#[test]
fn an_absent_size_is_read_from_the_image_and_filename_finds_odd_names() {
    let folder = two_images();
    let root = folder.0.path();
    fs::rename(
        root.join("JPEGImages/first.png"),
        root.join("JPEGImages/odd.name"),
    )
    .unwrap();
    let object = object("dog", [1, 1, 2, 2], "");
    let zero = "<size><width>0</width><height>0</height></size>";
    folder.xml(
        "first",
        &format!("<annotation><filename>odd.name</filename>{zero}{object}</annotation>"),
    );
    let dataset = folder.open(Split::Train).unwrap();
    assert_eq!(dataset.records()[1].size, [10, 20]);
    assert_eq!(dataset.pixels(1).unwrap().size, [10, 20]);
}

/// The published blood-cell set (364 photographs) where `KDHOST_BCCD` names its folder.
#[test]
fn bccd_reads_with_two_boxes_left_out() {
    let Some(root) = std::env::var_os("KDHOST_BCCD")
        .map(PathBuf::from)
        .filter(|p| p.is_dir())
    else {
        println!("skipped: KDHOST_BCCD does not name the folder of BCCD");
        return;
    };
    let mut config = default_config().voc;
    config.root = root;
    let mut left_out = Vec::new();
    for (train_split, images) in [("trainval", 292), ("test", 72)] {
        config.train_split = train_split.into();
        let dataset = VocDataset::open(&config, Split::Train, OnError::Error).unwrap();
        assert_eq!(dataset.classes(), ["Platelets", "RBC", "WBC"]);
        assert_eq!(dataset.records().len(), images);
        assert_eq!(dataset.pixels(images - 1).unwrap().size, [480, 640]);
        left_out.extend(dataset.left_out().boxes.clone());
    }
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    for image in ["BloodImage_00338", "BloodImage_00343"] {
        assert!(
            left_out.iter().any(|entry| entry.contains(image)),
            "{left_out:?}"
        );
    }
}
