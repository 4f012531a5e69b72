use serde::Deserialize;

use super::*;
use crate::data::Object;
use crate::data::registry::default_config;

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
fn flips_depend_on_their_key_and_have_the_probability() {
    let count = |probability: f64, epoch: u64| {
        (0..4000)
            .filter(|&id| flip_drawn(probability, 9, epoch, id))
            .count()
    };
    assert_eq!((count(0.0, 0), count(1.0, 0)), (0, 4000));
    // Five standard deviations of Binomial(4000, 0.3): 5 * sqrt(840) = 145.
    assert!(count(0.3, 0).abs_diff(1200) <= 145);
    let epoch =
        |epoch: u64| -> Vec<bool> { (0..64).map(|id| flip_drawn(0.5, 9, epoch, id)).collect() };
    assert_eq!(epoch(1), epoch(1));
    assert_ne!(epoch(1), epoch(2));
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
