use super::*;
use crate::visualize::canvas::text_color;

const GRAY: [u8; 3] = [90; 3];

fn gray(height: usize, width: usize) -> RgbPixels {
    RgbPixels {
        size: [height, width],
        data: vec![90; height * width * 3],
    }
}

fn at(pixels: &RgbPixels, x: usize, y: usize) -> [u8; 3] {
    let start = (y * pixels.size[1] + x) * 3;
    pixels.data[start..start + 3].try_into().unwrap()
}

/// The rectangle of all changed pixels, `[x1, y1, x2, y2]`, ends excluded.
fn changed(pixels: &RgbPixels) -> Option<[usize; 4]> {
    let [height, width] = pixels.size;
    let touched: Vec<(usize, usize)> = (0..height)
        .flat_map(|y| (0..width).map(move |x| (x, y)))
        .filter(|&(x, y)| at(pixels, x, y) != GRAY)
        .collect();
    Some([
        touched.iter().map(|p| p.0).min()?,
        touched.iter().map(|p| p.1).min()?,
        touched.iter().map(|p| p.0).max()? + 1,
        touched.iter().map(|p| p.1).max()? + 1,
    ])
}

fn names() -> Vec<String> {
    vec!["cell".to_owned(), "platelet".to_owned()]
}

#[test]
fn outlines_a_box_and_captions_it_above() {
    let drawn = draw_detections(
        &gray(100, 120),
        &[[20.0, 40.0, 90.0, 80.0]],
        &[0],
        None,
        &names(),
    );
    let color = class_color(0);
    // One pixel of line on the edges, nothing inside and outside.
    for (x, y) in [(20, 40), (89, 40), (20, 79), (89, 79), (50, 40), (20, 60)] {
        assert_eq!(at(&drawn, x, y), color, "{x} {y}");
    }
    for (x, y) in [(21, 41), (88, 78), (90, 80), (19, 60), (50, 60)] {
        assert_eq!(at(&drawn, x, y), GRAY, "{x} {y}");
    }
    // Ten rows of caption: 8 of text and a margin on both sides; 4 characters and two margins.
    assert_eq!(at(&drawn, 20, 30), color);
    assert_eq!(at(&drawn, 20 + 33, 30), color);
    assert_eq!(at(&drawn, 20 + 34, 30), GRAY);
    assert_eq!(changed(&drawn), Some([20, 30, 90, 80]));
}

#[test]
fn captions_stay_inside_the_image() {
    let corners = [
        [0.0, 0.0, 10.0, 10.0],
        [110.0, 0.0, 130.0, 10.0],
        [-5.0, 95.0, 10.0, 110.0],
        [115.0, 90.0, 120.0, 100.0],
    ];
    for corner in corners {
        let drawn = draw_detections(&gray(100, 120), &[corner], &[1], Some(&[0.97]), &names());
        // "platelet 97": 11 characters and two margins wide, wherever the box is.
        let [x1, y1, x2, y2] = changed(&drawn).unwrap();
        assert_eq!(x2 - x1, 90, "{corner:?}");
        assert!(y2 - y1 >= 10, "{corner:?}");
        let painted = drawn
            .data
            .chunks_exact(3)
            .filter(|p| **p == class_color(1))
            .count();
        assert!(painted > 10 * 90 / 2, "{corner:?}");
    }
}

#[test]
fn small_images_cut_the_caption() {
    for (height, width) in [(1, 1), (3, 9), (12, 20), (100, 11)] {
        let all = [0.0, 0.0, width as f32, height as f32];
        let drawn = draw_detections(&gray(height, width), &[all], &[1], Some(&[1.0]), &names());
        assert_eq!(drawn.data.len(), height * width * 3);
        assert!(changed(&drawn).is_some());
    }
    let empty = RgbPixels {
        size: [0, 0],
        data: Vec::new(),
    };
    assert_eq!(
        draw_detections(&empty, &[[0.0, 0.0, 1.0, 1.0]], &[0], None, &names()),
        empty
    );
}

#[test]
fn what_is_outside_is_not_drawn() {
    let outside = [
        [-30.0, 10.0, -10.0, 20.0],
        [10.0, 100.0, 20.0, 130.0],
        [f32::NAN, 0.0, 10.0, 10.0],
        [0.0, 0.0, f32::INFINITY, 10.0],
    ];
    let image = gray(100, 120);
    assert_eq!(
        draw_detections(&image, &outside, &[0; 4], None, &names()),
        image
    );
}

#[test]
fn the_first_lies_on_top() {
    let box_xyxy = [20.0, 40.0, 90.0, 80.0];
    let drawn = draw_detections(
        &gray(100, 120),
        &[box_xyxy; 2],
        &[0, 1],
        Some(&[0.9, 0.2]),
        &names(),
    );
    assert_eq!(at(&drawn, 89, 60), class_color(0));
}

#[test]
fn lines_and_text_grow_with_the_image() {
    let drawn = draw_detections(
        &gray(960, 1280),
        &[[100.0, 200.0, 400.0, 500.0]],
        &[0],
        None,
        &names(),
    );
    // 1280 / 400 → 3 pixels of line; 1280 / 480 → text times 3, so 30 rows of caption.
    assert_eq!(
        [at(&drawn, 102, 300), at(&drawn, 103, 300)],
        [class_color(0), GRAY]
    );
    assert_eq!(changed(&drawn), Some([100, 170, 400, 500]));
}

#[test]
fn a_label_without_a_name_is_a_number() {
    let place = [[20.0, 40.0, 90.0, 80.0]];
    let numbered = draw_detections(&gray(100, 120), &place, &[12], None, &names());
    let mut thirteen = vec![String::new(); 13];
    thirteen[12] = "#12".to_owned();
    assert_eq!(
        numbered,
        draw_detections(&gray(100, 120), &place, &[12], None, &thirteen)
    );
}

#[test]
fn classes_differ_in_color() {
    // The closest two of the first ten, in channel steps summed; pinned so that it cannot shrink.
    let closest = (0..10)
        .flat_map(|a| (0..a).map(move |b| (class_color(a), class_color(b))))
        .map(|(a, b)| (0..3).map(|c| u32::from(a[c].abs_diff(b[c]))).sum::<u32>())
        .min()
        .unwrap();
    assert!(closest >= 60, "{closest}");
    assert_eq!(text_color([255, 255, 0]), [0; 3]);
    assert_eq!(text_color([60, 0, 200]), [255; 3]);
}

#[test]
fn a_picture_survives_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let drawn = draw_detections(
        &gray(30, 40),
        &[[2.0, 12.0, 30.0, 25.0]],
        &[0],
        None,
        &names(),
    );
    let path = folder.path().join("drawn.png");
    save_png(&drawn, &path).unwrap();
    let read = image::open(&path).unwrap().to_rgb8();
    assert_eq!(read.dimensions(), (40, 30));
    assert_eq!(read.into_raw(), drawn.data);
    let error = save_png(&drawn, &folder.path().join("missing/drawn.png")).unwrap_err();
    assert!(error.to_string().contains("missing/drawn.png"), "{error}");
}
