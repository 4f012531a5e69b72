use image::RgbImage;
use serde_json::{Value, json};

use super::*;
use crate::data::MaskCrop;

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

/// A sample whose first annotation, in box `[1.5, 2.0, 11.5, 6.0]`, has this `segmentation`.
fn segmented(segmentation: Value) -> Value {
    let mut json = sample();
    json["annotations"][0]["segmentation"] = segmentation;
    json
}

fn mask(dataset: &CocoDataset) -> Option<MaskCrop> {
    dataset.records()[1].objects[0].mask
}

#[test]
fn masks_are_read_from_polygons() {
    let left_half = json!([[1.5, 2.0, 6.5, 2.0, 6.5, 6.0, 1.5, 6.0]]);
    let dataset = read(&segmented(left_half), OnError::Error).unwrap();
    // Half of seven columns: the fourth is covered by half, which is enough.
    let row = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0];
    assert_eq!(mask(&dataset).unwrap().to_f32s(), [row; 7].as_flattened());
    assert_eq!(dataset.left_out().masks.len(), 0);
    // Half a point and a line are passed over beside a polygon.
    let mut more = json!([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]);
    let whole = json!([0, 0, 20, 0, 20, 10, 0, 10]);
    more.as_array_mut().unwrap().push(whole);
    let dataset = read(&segmented(more), OnError::Error).unwrap();
    assert_eq!(mask(&dataset).unwrap().to_f32s(), [1.0; 49]);
}

#[test]
fn the_box_of_a_mask_is_clipped_to_the_image() {
    let mut json = segmented(json!([[10, 2, 20, 2, 20, 6, 10, 6]]));
    json["annotations"][0]["bbox"] = json!([10.0, 2.0, 100.0, 4.0]);
    let dataset = read(&json, OnError::Error).unwrap();
    assert_eq!(mask(&dataset).unwrap().to_f32s(), [1.0; 49]);
}

#[test]
fn masks_are_read_from_run_lengths() {
    // The right 13 of 20 columns of 10 pixels; the box ends at 11.5, so that the last 4.5 of its
    // 10 columns are covered: 3.15 of 7 cells.
    let row = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0];
    // The second as pycocotools encodes it.
    for counts in [json!([70, 130]), json!("V2R4")] {
        let dataset = read(
            &segmented(json!({"size": [10, 20], "counts": counts})),
            OnError::Error,
        )
        .unwrap();
        let crop = mask(&dataset).unwrap();
        assert_eq!(crop.to_f32s(), [row; 7].as_flattened(), "{counts}");
    }
}

#[test]
fn an_object_without_a_mask_is_no_fault_and_a_broken_mask_is_counted() {
    for none in [json!([]), json!(null)] {
        let dataset = read(&segmented(none), OnError::Error).unwrap();
        assert_eq!((mask(&dataset), dataset.left_out().masks.len()), (None, 0));
    }
    for (broken, reason) in [
        (json!([[1.0, 2.0, 3.0, 4.0]]), "three points"),
        (json!([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), "a list of polygons"),
        (json!("gone"), "a list of polygons"),
        (json!({"size": [10, 20]}), "counts"),
        (json!({"size": [20, 10], "counts": [200]}), "not 10x20"),
        (json!({"size": [10, 20], "counts": [80, 121]}), "201"),
        (json!({"size": [10, 20], "counts": " "}), "segmentation"),
    ] {
        let dataset = read(&segmented(broken), OnError::Error).unwrap();
        assert_eq!(mask(&dataset), None);
        assert_eq!(dataset.records()[1].objects.len(), 2, "the object stays");
        let [message] = &dataset.left_out().masks[..] else {
            panic!("one mask is broken")
        };
        assert!(
            message.starts_with("annotation id 1 of image id 9: ") && message.contains(reason),
            "{message}"
        );
    }
    // A crowd region is no target: its mask is not even read.
    let mut json = segmented(json!("gone"));
    json["annotations"][0]["iscrowd"] = 1.into();
    assert_eq!(
        read(&json, OnError::Error).unwrap().left_out().masks.len(),
        0
    );
}

/// Made by `tests/golden/data/make_mask_crops.py`.
const GOLDEN: &str = include_str!("../../../../tests/golden/data/mask_crops.json");

#[derive(Deserialize)]
struct Golden {
    size: [usize; 2],
    cases: Vec<GoldenCase>,
}

#[derive(Deserialize)]
struct GoldenCase {
    polygons: Value,
    #[serde(rename = "box")]
    box_xyxy: [f32; 4],
    area: Vec<f64>,
    rle: String,
    rle_area: Vec<f64>,
}

/// So near one half samples may take the wrong side: two of the 64 of a cell. The farthest that
/// does among these cases has an area of 0.516.
const UNDECIDED: f64 = 2.0 / 64.0;

#[test]
fn masks_agree_with_exact_areas_and_pycocotools() {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    let [mut undecided, mut cells] = [0, 0];
    for case in golden.cases {
        let rle = json!({"size": golden.size, "counts": case.rle});
        for (segmentation, area) in [(case.polygons, case.area), (rle, case.rle_area)] {
            let json = segmentation.to_string();
            let crop = segmentation::crop(&json, case.box_xyxy, golden.size).unwrap();
            for (cell, area) in crop.unwrap().to_f32s().into_iter().zip(area) {
                cells += 1;
                if (area - 0.5).abs() <= UNDECIDED {
                    undecided += 1;
                } else {
                    assert_eq!(cell, f32::from(area > 0.5), "{area} of {json}");
                }
            }
        }
    }
    assert!(
        undecided * 25 < cells,
        "{undecided} of {cells} decide nothing"
    );
}
