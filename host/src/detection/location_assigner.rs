//! Ground truth matched to locations by centre, extent and area, as torchvision's FCOS.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::{Assignment, BACKGROUND};
use crate::boxes::{self, BoxXyxy};
use crate::data::ImageTargets;

/// The farthest side of an object that a level answers for lies between these many sides of its
/// squares away.
const LEVEL_RANGE: Range<f32> = 4.0..8.0;

/// torchvision ranks objects by `1e8 − area` and takes the largest. In f32 that number has steps of 8,
/// so that areas a few pixels² apart may tie, and an object of 1e8 pixels² matches nothing.
const LARGEST_AREA: f32 = 1e8;
/// Ranks below it are no match.
const LOWEST_RANK: f32 = 1e-5;

/// Locations of one task, at least.
const MIN_LOCATIONS: usize = 1024;

/// Matches every location to at most one object of its image.
///
/// A location, the centre of its square in `locations`, takes an object if
/// - it lies nearer to the object's centre than `center_sampling_radius` sides of the square, along
///   each axis;
/// - it lies inside the object's box;
/// - the farthest side of the box is more than 4 and less than 8 sides of the square away; the finest
///   level has no lower bound, the coarsest no upper one.
///
/// Of several the smallest by area, of equal areas (to torchvision's rounding: 8 pixels²) the first. A
/// location without any is [`BACKGROUND`]; none is ignored.
///
/// # Shapes
/// - `level_cells`: locations of each level, finest first; their sum is the number of `locations`.
///
/// # Units
/// Boxes in pixels of the network input. `pixel` is the side of a pixel of the image that areas are
/// rounded in: 1, or less where the locations are those of a larger image.
///
/// # Determinism
/// f32 in torchvision's order of operations; the result does not depend on the number of threads.
///
/// # Panics
/// If the levels are not those of the locations.
#[must_use]
pub fn assign_locations(
    locations: Arc<Vec<BoxXyxy>>,
    level_cells: &[usize],
    pixel: f32,
    targets: &[ImageTargets],
    center_sampling_radius: f32,
) -> Assignment {
    let count: usize = level_cells.iter().sum();
    assert_eq!(locations.len(), count, "a location for each cell");
    let coarsest = level_cells.last().map_or(0, |cells| count - cells);
    let finest = level_cells.first().copied().unwrap_or(0);
    Assignment::new(locations, targets, |locations, objects| {
        let objects: Vec<Object> = objects.iter().map(|&b| Object::new(b, pixel)).collect();
        locations
            .par_iter()
            .enumerate()
            .with_min_len(MIN_LOCATIONS)
            .map(|(number, &square)| {
                let side = square[2] - square[0];
                let location = Location {
                    centre: boxes::centre(square),
                    reach: center_sampling_radius * side,
                    at_least: if number < finest {
                        0.0
                    } else {
                        LEVEL_RANGE.start * side
                    },
                    at_most: if number >= coarsest {
                        f32::INFINITY
                    } else {
                        LEVEL_RANGE.end * side
                    },
                };
                location.best(&objects, pixel)
            })
            .collect()
    })
}

struct Object {
    box_xyxy: BoxXyxy,
    centre: [f32; 2],
    /// Larger for smaller objects.
    rank: f32,
}

impl Object {
    fn new(box_xyxy: BoxXyxy, pixel: f32) -> Self {
        Object {
            box_xyxy,
            centre: boxes::centre(box_xyxy),
            rank: LARGEST_AREA * (pixel * pixel) - boxes::area(box_xyxy),
        }
    }
}

struct Location {
    centre: [f32; 2],
    /// Objects whose centre is not nearer do not count, along either axis.
    reach: f32,
    /// Objects whose farthest side is nearer do not count,
    at_least: f32,
    /// nor do those whose farthest side is farther; at these distances neither.
    at_most: f32,
}

impl Location {
    fn takes(&self, object: &Object) -> bool {
        let [x, y] = self.centre;
        let off = (x - object.centre[0])
            .abs()
            .max((y - object.centre[1]).abs());
        let [x1, y1, x2, y2] = object.box_xyxy;
        let distances = [x - x1, y - y1, x2 - x, y2 - y];
        let nearest = distances.into_iter().fold(f32::INFINITY, f32::min);
        let farthest = distances.into_iter().fold(f32::NEG_INFINITY, f32::max);
        off < self.reach && nearest > 0.0 && farthest > self.at_least && farthest < self.at_most
    }

    fn best(&self, objects: &[Object], pixel: f32) -> i32 {
        let (mut best, mut rank) = (BACKGROUND, 0.0);
        for (number, object) in (0_i32..).zip(objects) {
            if object.rank > rank && self.takes(object) {
                (best, rank) = (number, object.rank);
            }
        }
        match rank < LOWEST_RANK * (pixel * pixel) {
            true => BACKGROUND,
            false => best,
        }
    }
}

#[cfg(test)]
mod tests;
