//! By hand; against exact areas and pycocotools: `coco/tests.rs`.

use super::*;
use crate::rng::KeyedRng;

const BOX: [f32; 4] = [10.0, 20.0, 17.0, 34.0];

/// Rows of `#` and `.`.
fn drawn(crop: MaskCrop) -> Vec<String> {
    crop.to_f32s()
        .chunks(SIDE)
        .map(|row| {
            row.iter()
                .map(|&v| if v == 1.0 { '#' } else { '.' })
                .collect()
        })
        .collect()
}

#[test]
fn a_rectangle_as_large_as_its_box_fills_it() {
    let corners = [10.0, 20.0, 17.0, 20.0, 17.0, 34.0, 10.0, 34.0];
    let full = MaskCrop::from_polygons(&[corners.to_vec()], BOX);
    assert_eq!(full.to_f32s(), [1.0; 49]);
    assert_eq!(full.bits(), (1 << 49) - 1);
    // The other way round, and closed by hand.
    let mut reversed: Vec<f64> = corners.chunks(2).rev().flatten().copied().collect();
    reversed.extend_from_within(..2);
    assert_eq!(MaskCrop::from_polygons(&[reversed], BOX), full);
    let outside = corners.map(|v| v + 100.0).to_vec();
    assert_eq!(MaskCrop::from_polygons(&[outside], BOX).bits(), 0);
    assert_eq!(MaskCrop::from_polygons(&[], BOX).bits(), 0);
}

#[test]
fn a_triangle_covers_its_half() {
    // A little beyond the diagonal, so that its cells are more than half covered.
    let crop = MaskCrop::from_polygons(&[vec![10.0, 19.0, 10.0, 34.0, 17.5, 34.0]], BOX);
    let expected = [
        "#......", "##.....", "###....", "####...", "#####..", "######.", "#######",
    ];
    assert_eq!(drawn(crop), expected);
    let expected = [
        "......#", ".....##", "....###", "...####", "..#####", ".######", "#######",
    ];
    assert_eq!(drawn(crop.mirrored()), expected);
    assert_eq!(crop.mirrored().mirrored(), crop);
}

#[test]
fn polygons_are_united_and_one_that_crosses_itself_is_even_odd() {
    let rectangle = |x1: f64, y1: f64, x2: f64, y2: f64| vec![x1, y1, x2, y1, x2, y2, x1, y2];
    let (left, top) = (
        rectangle(10.0, 20.0, 12.0, 34.0),
        rectangle(8.0, 20.0, 20.0, 24.0),
    );
    let united = MaskCrop::from_polygons(&[left, top], BOX);
    let expected = [
        "#######", "#######", "##.....", "##.....", "##.....", "##.....", "##.....",
    ];
    assert_eq!(drawn(united), expected);
    // A frame: the outer outline, then the inner one, in one polygon.
    let mut frame = rectangle(10.0, 20.0, 17.0, 34.0);
    frame.extend([10.0, 20.0]);
    frame.extend(rectangle(12.0, 24.0, 15.0, 30.0));
    frame.extend([12.0, 24.0]);
    let expected = [
        "#######", "#######", "##...##", "##...##", "##...##", "#######", "#######",
    ];
    assert_eq!(drawn(MaskCrop::from_polygons(&[frame], BOX)), expected);
}

#[test]
fn a_crop_is_relative_to_its_box() {
    let polygon = [11.0, 21.0, 16.5, 25.0, 14.0, 33.0, 9.0, 30.0];
    let crop = MaskCrop::from_polygons(&[polygon.to_vec()], BOX);
    assert!((10..40).contains(&crop.bits().count_ones()));
    // Powers of two: nothing is rounded.
    let scaled = polygon.map(|v| v * 4.0).to_vec();
    assert_eq!(
        MaskCrop::from_polygons(&[scaled], BOX.map(|v| v * 4.0)),
        crop
    );
}

#[test]
fn polygons_and_coverage_agree() {
    let mut rng = KeyedRng::new("mask crop", &[0]);
    for _ in 0..200 {
        let triangle: Vec<f64> = (0..3)
            .flat_map(|_| [rng.range(5.0, 22.0), rng.range(15.0, 39.0)])
            .collect();
        let side = |x: f64, y: f64, i: usize| {
            let [a, b] = [2 * i, (2 * i + 2) % 6];
            (triangle[b] - triangle[a]) * (y - triangle[a + 1])
                - (triangle[b + 1] - triangle[a + 1]) * (x - triangle[a])
        };
        let covers = |x, y| {
            let sides = [0, 1, 2].map(|i| side(x, y, i) > 0.0);
            sides == [true; 3] || sides == [false; 3]
        };
        let by_coverage = MaskCrop::from_coverage(covers, BOX);
        let by_polygon = MaskCrop::from_polygons(std::slice::from_ref(&triangle), BOX);
        assert_eq!(drawn(by_polygon), drawn(by_coverage), "{triangle:?}");
    }
}

#[test]
fn coordinates_far_outside_do_no_harm() {
    let far = [-1e300, -1e300, 1e300, -1e300, 1e300, 1e300, -1e300, 1e300];
    let crop = MaskCrop::from_polygons(&[far.to_vec()], BOX);
    assert_eq!(crop.to_f32s(), [1.0; 49]);
    let beyond = far.map(|v| v * 1e8).to_vec();
    let _ = MaskCrop::from_polygons(&[beyond], BOX);
}
