use serde::Deserialize;

use super::*;
use crate::data::registry::default_config;
use crate::data::{Crop, Object};
use crate::rng::KeyedRng;

/// Made by `tests/golden/data/make_resize.py`.
const GOLDEN: &str = include_str!("../../../../tests/golden/data/resize.json");

#[derive(Deserialize)]
struct Golden {
    resize: Vec<ResizeCase>,
    keep_ratio: Vec<KeepRatioCase>,
}

#[derive(Deserialize)]
struct ResizeCase {
    size: [usize; 2],
    pixels: Vec<u8>,
    out_size: [usize; 2],
    pillow: Vec<u8>,
    torch: Vec<f64>,
}

#[derive(Deserialize)]
struct KeepRatioCase {
    short_side: usize,
    long_side: usize,
    size: [usize; 2],
    out_size: [usize; 2],
}

fn golden() -> Golden {
    serde_json::from_str(GOLDEN).unwrap()
}

fn fixed(size: [usize; 2]) -> Transform {
    let mut config = default_config().transform;
    config.size = size;
    Transform::new(&config).unwrap()
}

fn record(size: [usize; 2], boxes: &[[f32; 4]]) -> Record {
    Record {
        image_id: 1,
        source: "literal".into(),
        size,
        objects: boxes
            .iter()
            .enumerate()
            .map(|(label, &box_xyxy)| Object {
                box_xyxy,
                label,
                is_crowd: false,
                area: 1.0,
                mask: None,
            })
            .collect(),
    }
}

fn relative_error(out: &[f64], reference: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut out.iter().zip(reference).map(|(a, b)| a - b));
    difference / norm(&mut reference.iter().copied())
}

/// Two roundings to 8 bits are errors of at most half a level each, 0.4 of one in the mean
/// square together; values here are near 100.
const TORCH_RELATIVE: f64 = 5e-3;

#[test]
fn resize_equals_pillow_and_agrees_with_torch() {
    for case in golden().resize {
        let pixels = RgbPixels {
            size: case.size,
            data: case.pixels,
        };
        let out = resize(&pixels, case.out_size).data;
        assert_eq!(out, case.pillow);
        let out: Vec<f64> = out.into_iter().map(f64::from).collect();
        let error = relative_error(&out, &case.torch);
        assert!(error < TORCH_RELATIVE, "{:?}: {error}", case.out_size);
    }
}

#[test]
fn keep_ratio_chooses_torchvisions_sizes() {
    for case in golden().keep_ratio {
        let mut config = default_config().transform;
        config.resize = ResizeMode::KeepRatio;
        (config.short_side, config.long_side) = (case.short_side, case.long_side);
        let transform = Transform::new(&config).unwrap();
        assert_eq!(
            transform.output_size(case.size),
            case.out_size,
            "{:?}",
            case.size
        );
    }
}

#[test]
fn pixels_are_normalised_planes_and_mirrored() {
    // One row of two pixels.
    let pixels = RgbPixels {
        size: [1, 2],
        data: vec![0, 51, 255, 255, 102, 0],
    };
    let record = record([1, 2], &[[0.0, 0.0, 1.0, 1.0]]);
    let straight = fixed([1, 2]).apply(&record, &pixels, false);
    let mirrored = fixed([1, 2]).apply(&record, &pixels, true);
    // (value / 255 - mean) / std by channel.
    let red = [(0.0 - 0.485) / 0.229, (1.0 - 0.485) / 0.229];
    let green = [(0.2 - 0.456) / 0.224, (0.4 - 0.456) / 0.224];
    let blue = [(1.0 - 0.406) / 0.225, (0.0 - 0.406) / 0.225];
    let close = |image: &[f32], expected: [f32; 6]| {
        for (a, b) in image.iter().zip(expected) {
            // A few roundings of single precision on values of a few units.
            assert!((a - b).abs() < 2e-6, "{a} {b}");
        }
    };
    close(
        &straight.image,
        [red[0], red[1], green[0], green[1], blue[0], blue[1]],
    );
    close(
        &mirrored.image,
        [red[1], red[0], green[1], green[0], blue[1], blue[0]],
    );
    assert_eq!(straight.targets.boxes_xyxy, [[0.0, 0.0, 1.0, 1.0]]);
    assert_eq!(mirrored.targets.boxes_xyxy, [[1.0, 0.0, 2.0, 1.0]]);
    assert!(mirrored.meta.flipped && !straight.meta.flipped);
}

#[test]
fn boxes_scale_with_the_image_and_are_clipped() {
    // Height 10 → 5, width 20 → 40.
    let boxes = [
        [2.0, 4.0, 10.0, 8.0],
        [-3.0, -1.0, 25.0, 4.0],
        [20.5, 1.0, 30.0, 2.0],
    ];
    let mut record = record([10, 20], &boxes);
    record.objects.push(Object {
        is_crowd: true,
        ..record.objects[0].clone()
    });
    let pixels = RgbPixels {
        size: [10, 20],
        data: vec![0; 600],
    };
    let sample = fixed([5, 40]).apply(&record, &pixels, false);
    let expected = [[4.0, 2.0, 20.0, 4.0], [0.0, 0.0, 40.0, 2.0]];
    assert_eq!(sample.targets.boxes_xyxy, expected);
    assert_eq!(sample.targets.labels, [0, 1]);
    assert_eq!(sample.meta.size, [5, 40]);
    for flip in [false, true] {
        let sample = fixed([5, 40]).apply(&record, &pixels, flip);
        let back = sample.meta.to_original(sample.targets.boxes_xyxy[0]);
        assert_eq!(back, boxes[0]);
    }
}

#[test]
fn masks_go_with_their_boxes_and_are_mirrored() {
    let boxes = [
        [2.0, 1.0, 9.0, 8.0],
        [30.0, 1.0, 40.0, 8.0],
        [0.0, 0.0, 7.0, 7.0],
    ];
    let mut record = record([10, 20], &boxes);
    // The upper left half of the first box, a little less; the second is outside, the third without
    // a mask.
    let upper_left = MaskCrop::from_polygons(&[vec![2.0, 1.0, 8.5, 1.0, 2.0, 7.5]], boxes[0]);
    let upper_right = MaskCrop::from_polygons(&[vec![2.5, 1.0, 9.0, 1.0, 9.0, 7.5]], boxes[0]);
    assert_ne!(upper_left, upper_right);
    for object in &mut record.objects[..2] {
        object.mask = Some(upper_left);
    }
    let pixels = RgbPixels {
        size: [10, 20],
        data: vec![0; 600],
    };
    let crops = |flip| {
        fixed([5, 40])
            .apply(&record, &pixels, flip)
            .targets
            .mask_crops
    };
    assert_eq!(crops(false), [Some(upper_left), None]);
    assert_eq!(crops(true), [Some(upper_right), None]);
}

#[test]
fn flip_is_an_involution() {
    let mut rng = KeyedRng::new("involution", &[1]);
    for _ in 0..1000 {
        let size = [1 + rng.below(1000), 1 + rng.below(1000)];
        let [height, width] = size.map(|s| s as f64);
        let (x, y) = (rng.range(0.0, width), rng.range(0.0, height));
        let corners = [x, y, rng.range(x, width), rng.range(y, height)].map(|v| v as f32);
        let mirrored = move_box(corners, size, size, true);
        let back = move_box(mirrored, size, size, true);
        for (before, after) in corners.iter().zip(back) {
            // The mirrored coordinate is rounded once, to single precision at the width's scale.
            assert!((before - after).abs() <= size[1] as f32 * f32::EPSILON);
        }
        let extent = |b: [f32; 4]| b[2] - b[0];
        assert!((extent(corners) - extent(mirrored)).abs() <= size[1] as f32 * f32::EPSILON);
    }
}

#[test]
fn senseless_configurations_name_their_key() {
    type Spoil = fn(&mut TransformConfig);
    let cases: [(Spoil, &str); 6] = [
        (|c| c.size = [0, 1], "data.transform.size"),
        (
            |c| (c.resize, c.short_side) = (ResizeMode::KeepRatio, 0),
            "data.transform.short_side",
        ),
        (
            |c| (c.resize, c.long_side) = (ResizeMode::KeepRatio, 5),
            "data.transform.long_side",
        ),
        (|c| c.flip_prob = 1.5, "data.transform.flip_prob"),
        (|c| c.std[1] = 0.0, "data.transform.std"),
        (|c| c.mean[1] = f32::NAN, "data.transform.mean"),
    ];
    for (change, key) in cases {
        let mut config = default_config().transform;
        change(&mut config);
        let message = Transform::new(&config).unwrap_err().to_string();
        assert!(message.contains(key), "{message}");
    }
}

/// An image whose red value is its label, so that both tell where a pixel came from.
fn labelled(size: [usize; 2]) -> (RgbPixels, LabelMap) {
    let data: Vec<u8> = (0..size[0] * size[1]).map(|p| (p % 251) as u8).collect();
    let rgb = data.iter().flat_map(|&value| [value, 0, 0]).collect();
    (RgbPixels { size, data: rgb }, LabelMap { size, data })
}

/// Values of red as bytes, `None` where it is 0: padding.
fn reds(sample: &Sample) -> Vec<Option<u8>> {
    let plane = &sample.image[..sample.image.len() / 3];
    let byte = |v: &f32| ((v * 0.5 + 0.25) * 255.0).round() as u8;
    plane.iter().map(|v| (*v != 0.0).then(|| byte(v))).collect()
}

fn labelled_sample(
    transform: &Transform,
    record: &Record,
    pixels: &RgbPixels,
    labels: &LabelMap,
    augmentation: &Augmentation,
) -> Sample {
    let geometry = transform.augmented(pixels.size, augmentation);
    transform.sample(record, pixels, &geometry, Some(labels))
}

fn unscaled() -> Transform {
    let mut config = default_config().transform;
    config.resize = ResizeMode::None;
    // No byte is normalised to exactly 0.
    (config.mean, config.std) = ([0.25; 3], [0.5; 3]);
    Transform::new(&config).unwrap()
}

#[test]
fn labels_stay_on_their_pixels_through_crop_and_flip() {
    let (pixels, labels) = labelled([9, 11]);
    let record = record([9, 11], &[]);
    let transform = unscaled();
    let mut rng = KeyedRng::new("crops", &[1]);
    for round in 0..200 {
        let augmentation = Augmentation {
            scale: 1.0,
            crop: Some(Crop {
                size: [1 + rng.below(14), 1 + rng.below(14)],
                place: [rng.uniform(), rng.uniform()],
            }),
            flip: round % 2 == 0,
        };
        let sample = labelled_sample(&transform, &record, &pixels, &labels, &augmentation);
        let map = sample.label_map.as_ref().unwrap();
        assert_eq!(map.size, augmentation.crop.unwrap().size);
        assert_eq!(sample.meta.size, map.size);
        assert_eq!(sample.meta.original_size, [9, 11]);
        for (red, label) in reds(&sample).into_iter().zip(&map.data) {
            assert_eq!(red.unwrap_or(IGNORE_LABEL), *label, "{augmentation:?}");
        }
        // Padding is at right and bottom, whether mirrored or not.
        for (y, row) in map.data.chunks_exact(map.size[1]).enumerate() {
            for (x, label) in row.iter().enumerate() {
                assert_eq!(*label == IGNORE_LABEL, y >= 9 || x >= 11);
            }
        }
    }
}

#[test]
fn crops_reach_both_ends() {
    let (pixels, labels) = labelled([5, 5]);
    let record = record([5, 5], &[]);
    let first = |place: f64| {
        let crop = Some(Crop {
            size: [3, 3],
            place: [place; 2],
        });
        let augmentation = Augmentation {
            crop,
            ..Augmentation::NONE
        };
        let sample = labelled_sample(&unscaled(), &record, &pixels, &labels, &augmentation);
        sample.label_map.unwrap().data[0]
    };
    assert_eq!([0.0, 0.33].map(first), [0, 0]);
    assert_eq!([0.34, 0.66].map(first), [6, 6]);
    assert_eq!([0.67, 1.0 - f64::EPSILON].map(first), [12, 12]);
}

#[test]
fn scaled_images_and_labels_have_one_geometry() {
    // Quarters of one colour and label each: whatever the scale, a pixel whose neighbours are of its
    // own quarter keeps its colour.
    let size = [24, 36];
    let quarter = |p: usize| (10 * (1 + (p / 36 / 12) * 2 + (p % 36) / 18)) as u8;
    let data: Vec<u8> = (0..size[0] * size[1]).map(quarter).collect();
    let pixels = RgbPixels {
        size,
        data: data.iter().flat_map(|&value| [value; 3]).collect(),
    };
    let labels = LabelMap { size, data };
    let record = record(size, &[]);
    for scale in [0.5, 0.77, 1.0, 1.31, 2.0] {
        let augmentation = Augmentation {
            scale,
            ..Augmentation::NONE
        };
        let sample = labelled_sample(&unscaled(), &record, &pixels, &labels, &augmentation);
        let expected = size.map(|extent| (extent as f64 * scale).round() as usize);
        assert_eq!(sample.meta.size, expected);
        let map = sample.label_map.as_ref().unwrap();
        let matching = reds(&sample)
            .iter()
            .zip(&map.data)
            .filter(|(red, label)| red.unwrap() == **label)
            .count();
        // All but the pixels that the two borders cross, at most two wide (bilinear).
        let borders = 2 * (expected[0] + expected[1]);
        assert!(map.data.len() - matching <= borders, "{scale}: {matching}");
    }
}

#[test]
fn random_scales_and_crops_name_their_key() {
    type Spoil = fn(&mut TransformConfig);
    let cases: [(Spoil, &str); 5] = [
        (|c| c.scale_range = [2.0, 1.0], "data.transform.scale_range"),
        (|c| c.scale_range = [0.0, 1.0], "data.transform.scale_range"),
        (
            |c| c.scale_range = [1.0, f64::INFINITY],
            "data.transform.scale_range",
        ),
        (|c| c.crop_size = vec![40], "data.transform.crop_size"),
        (|c| c.crop_size = vec![40, 0], "data.transform.crop_size"),
    ];
    for (change, key) in cases {
        let mut config = default_config().transform;
        change(&mut config);
        let message = Transform::new(&config).unwrap_err().to_string();
        assert!(message.contains(key), "{message}");
    }
}
