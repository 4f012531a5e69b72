//! The rule by hand, and against torchvision.

use super::*;
use crate::detection::AnchorGenerator;
use crate::detection::golden::Golden;

fn image(boxes_xyxy: Vec<BoxXyxy>) -> ImageTargets {
    ImageTargets {
        labels: vec![0; boxes_xyxy.len()],
        boxes_xyxy,
        ..ImageTargets::default()
    }
}

/// Squares of side 8 around the centres `(x, y)`, then of side 16 around `coarse`: two levels.
fn squares(fine: &[[f32; 2]], coarse: &[[f32; 2]]) -> (Arc<Vec<BoxXyxy>>, [usize; 2]) {
    let around = |&[x, y]: &[f32; 2], half: f32| [x - half, y - half, x + half, y + half];
    let fine_squares = fine.iter().map(|centre| around(centre, 4.0));
    let coarse_squares = coarse.iter().map(|centre| around(centre, 8.0));
    let all = fine_squares.chain(coarse_squares).collect();
    (Arc::new(all), [fine.len(), coarse.len()])
}

#[test]
fn centre_and_box_by_hand() {
    // Centre (20, 20), reach 1.5 · 8 = 12 along each axis: the corner at 11.9 is in, 12 is not.
    let (locations, cells) = squares(&[[20.0, 20.0], [8.1, 31.9], [8.0, 20.0], [20.0, 39.0]], &[]);
    let wide = image(vec![[0.0, 0.0, 40.0, 40.0]]);
    let assignment = assign_locations(locations, &cells, 1.0, &[wide], 1.5);
    assert_eq!(assignment.matched[0], vec![0, 0, BACKGROUND, BACKGROUND]);

    // Within reach of the centre (10, 20), but on a side, outside, and just inside.
    let (locations, cells) = squares(&[[12.0, 20.0], [13.0, 20.0], [11.9, 20.0]], &[]);
    let narrow = image(vec![[8.0, 5.0, 12.0, 35.0]]);
    let assignment = assign_locations(locations, &cells, 1.0, &[narrow], 1.5);
    assert_eq!(assignment.matched[0], vec![BACKGROUND, BACKGROUND, 0]);
}

#[test]
fn levels_share_objects_by_their_farthest_side() {
    let centre = [100.0, 100.0];
    // Fine: below 8 · 8 = 64, with no lower bound; coarse: above 4 · 16 = 64, with no upper bound. At
    // 64 neither takes it.
    for (half, expected) in [
        (2.0, [0, BACKGROUND]),
        (63.0, [0, BACKGROUND]),
        (64.0, [BACKGROUND; 2]),
        (65.0, [BACKGROUND, 0]),
        (1000.0, [BACKGROUND, 0]),
    ] {
        let (locations, cells) = squares(&[centre], &[centre]);
        let [x, y] = centre;
        let targets = [image(vec![[x - half, y - 1.0, x + half, y + 1.0]])];
        let assignment = assign_locations(locations, &cells, 1.0, &targets, 1.5);
        assert_eq!(assignment.matched[0], expected, "{half}");
    }
}

/// Areas of 400 and 397: equal to torchvision's rounding, but not in an image of half as many pixels a
/// side, whose areas stand for four times as many.
#[test]
fn areas_are_rounded_in_pixels_of_the_large_image() {
    let (locations, cells) = squares(&[[20.0, 20.0]], &[]);
    let objects = [image(vec![
        [10.0, 10.0, 30.0, 30.0],
        [10.0, 10.0, 30.0, 29.85],
    ])];
    for (pixel, expected) in [(1.0, 0), (0.5, 1)] {
        let assignment = assign_locations(locations.clone(), &cells, pixel, &objects, 1.5);
        assert_eq!(assignment.matched[0], [expected], "{pixel}");
    }
}

#[test]
fn the_smallest_object_wins_and_of_equals_the_first() {
    let (locations, cells) = squares(&[[20.0, 20.0]], &[]);
    let large = [0.0, 0.0, 40.0, 40.0];
    let small = [10.0, 10.0, 30.0, 30.0];
    for (objects, expected) in [
        (vec![large, small], 1),
        (vec![small, large], 0),
        (vec![large, small, small], 1),
        // 400 and 398 pixels² have one rank in f32.
        (vec![small, [10.0, 10.05, 30.0, 29.95]], 0),
        (vec![small, [10.0, 11.0, 30.0, 29.0]], 1),
    ] {
        let targets = [image(objects.clone())];
        let assignment = assign_locations(locations.clone(), &cells, 1.0, &targets, 1.5);
        assert_eq!(assignment.matched[0], vec![expected], "{objects:?}");
    }
}

#[test]
fn an_image_without_objects_is_background() {
    let (locations, cells) = squares(&[[4.0, 4.0], [12.0, 4.0]], &[[8.0, 8.0]]);
    let targets = [image(vec![]), image(vec![[0.0, 0.0, 16.0, 8.0]])];
    let assignment = assign_locations(locations, &cells, 1.0, &targets, 1.5);
    assert_eq!(assignment.matched[0], vec![BACKGROUND; 3]);
    // Each image by itself.
    assert_eq!(assignment.matched[1], vec![0, 0, BACKGROUND]);
}

#[test]
fn equal_to_torchvision() {
    let golden = Golden::fcos();
    let input_size = golden.sizes("matches.input_size")[0];
    let level_sizes = golden.sizes("matches.level_sizes");
    let locations = AnchorGenerator::new(4, &[1.0], &[1.0], level_sizes.len())
        .anchors(input_size, &level_sizes);
    let cells: Vec<usize> = level_sizes.iter().map(|[h, w]| h * w).collect();
    for case in ["random", "many", "ties", "tiny", "huge"] {
        let targets = [image(golden.boxes(&format!("matches.{case}.boxes")))];
        for radius in [1.5, 2.0, 50.0] {
            let assignment = assign_locations(locations.clone(), &cells, 1.0, &targets, radius);
            assert_eq!(
                assignment.matched[0],
                golden.integers(&format!("matches.{case}.{radius}")),
                "{case} at {radius}"
            );
        }
    }
}
