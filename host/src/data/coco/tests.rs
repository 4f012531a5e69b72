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
                area: 33.5,
                mask: None,
            },
            Object {
                box_xyxy: [15.0, 1.0, 24.0, 4.0],
                label: 0,
                is_crowd: true,
                area: 27.0,
                mask: None,
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
