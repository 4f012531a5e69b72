//! What is shown of one tap: the student's map, what it is compared with, the difference.

use super::feature::{FeatureMap, Grid};
use super::heat::Scene;
use super::sheet::{Tile, sheet, tile_size};
use crate::data::RgbPixels;
use crate::engine::restored::Observed;
use crate::model::TapSpec;

/// One picture of a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum View {
    /// The student's map.
    Student,
    /// The method's map in its place.
    Map,
    /// The teacher's map of the same name.
    Teacher,
    /// The method's map, or else the teacher's, minus the student's, each standardised.
    Difference,
}

impl View {
    /// As in file names and captions.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            View::Student => "student",
            View::Map => "map",
            View::Teacher => "teacher",
            View::Difference => "difference",
        }
    }
}

/// One tap on one image.
#[derive(Clone, Debug)]
pub struct Level {
    /// The tap's name.
    pub tap: String,
    /// What there is to see, in the order of the sheet's columns; a sentence where two maps cannot be
    /// compared.
    pub views: Vec<(View, Result<Grid, String>)>,
    /// Correlation of the student's map with the method's and the teacher's; none where it has no
    /// meaning.
    pub correlations: Vec<(View, Option<f64>)>,
}

impl Level {
    /// Looks at `tap` of the student; `teacher` is the teacher's tap of the same name with the size of
    /// the teacher's image, and `image_size` the student's: `[height, width]` of the network input
    /// without padding.
    ///
    /// # Panics
    /// If the tap was not observed.
    #[must_use]
    pub fn new(
        observed: &Observed,
        tap: &TapSpec,
        teacher: Option<&(TapSpec, [usize; 2])>,
        image_size: [usize; 2],
    ) -> Self {
        let name = &tap.name;
        let student = FeatureMap::new(&observed.student[name], tap.stride, image_size);
        let mut others = Vec::new();
        if let Some(map) = observed.maps.get(name) {
            others.push((View::Map, FeatureMap::new(map, tap.stride, image_size)));
        }
        if let (Some(map), Some((spec, size))) = (observed.teacher.get(name), teacher) {
            let map = FeatureMap::new(map, spec.stride, *size);
            others.push((View::Teacher, map.over(*size, image_size)));
        }
        let mut views = vec![(View::Student, Ok(student.norm()))];
        let mut correlations = Vec::new();
        for (view, map) in &others {
            views.push((*view, Ok(map.norm())));
            let comparable = map.shape() == student.shape();
            let correlation = comparable.then(|| student.correlation(map)).flatten();
            correlations.push((*view, correlation));
        }
        if let Some((_, other)) = others.first() {
            let difference = if other.shape() != student.shape() {
                Err(apart(student.shape(), other.shape()))
            } else if student.shape()[1..] == [1, 1] {
                // Standardised, every map of one cell is 0.
                Err("one cell".into())
            } else {
                Ok(other.difference(&student))
            };
            views.push((View::Difference, difference));
        }
        Level {
            tap: name.clone(),
            views,
            correlations,
        }
    }
}

fn apart(student: [usize; 3], other: [usize; 3]) -> String {
    if student[0] == other[0] {
        format!("{:?} and {:?} cells", &student[1..], &other[1..])
    } else {
        format!("{} and {} channels", student[0], other[0])
    }
}

/// All levels of an image on one sheet: a row a level, a column a view.
#[must_use]
pub fn contact_sheet(scene: &Scene, levels: &[Level]) -> RgbPixels {
    let tile = tile_size(scene.size());
    let scene = scene.resized(tile);
    let mut columns: Vec<View> = Vec::new();
    for (view, _) in levels.iter().flat_map(|level| &level.views) {
        if !columns.contains(view) {
            columns.push(*view);
        }
    }
    columns.sort_unstable();
    let place = |level: &Level, column: &View| {
        let title = format!("{} {}", level.tap, column.name());
        match level.views.iter().find(|(view, _)| view == column) {
            Some((_, Ok(grid))) => {
                let [low, high] = grid.range().map(short);
                Tile {
                    caption: [title, format!("{low} to {high}")],
                    picture: Some(scene.overlay(grid)),
                }
            }
            Some((_, Err(reason))) => Tile {
                caption: [title, reason.clone()],
                picture: None,
            },
            None => Tile {
                caption: [title, "none".into()],
                picture: None,
            },
        }
    };
    let rows: Vec<Vec<Tile>> = levels
        .iter()
        .map(|level| columns.iter().map(|column| place(level, column)).collect())
        .collect();
    sheet(&rows, tile)
}

/// A number in three digits.
fn short(value: f32) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".into()
    } else if (1e-3..1e4).contains(&size) {
        let digits = (2.0 - size.log10().floor()).max(0.0) as usize;
        format!("{value:.digits$}")
    } else {
        format!("{value:.2e}")
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;

    fn tap(name: &str) -> TapSpec {
        TapSpec {
            name: name.into(),
            channels: 2,
            stride: 16,
        }
    }

    fn map(channels: usize, scale: f32) -> Tensor<4> {
        let values = Tensor::<1>::from_data([0.0, 1.0, 2.0, 5.0], &Device::flex());
        (values * scale)
            .reshape([1, 1, 2, 2])
            .repeat_dim(1, channels)
    }

    fn observed() -> Observed {
        let of = |maps: Vec<(&str, Tensor<4>)>| {
            let named = maps.into_iter().map(|(name, map)| (name.to_owned(), map));
            named.collect()
        };
        Observed {
            student: of(vec![
                ("a", map(2, 1.0)),
                ("b", map(2, 1.0)),
                ("c", map(2, 1.0)),
            ]),
            maps: of(vec![("a", map(2, -1.0))]),
            teacher: of(vec![("a", map(2, 3.0)), ("b", map(3, 1.0))]),
        }
    }

    #[test]
    fn the_student_is_compared_with_the_map_first_and_then_with_the_teacher() {
        let level = |name: &str| {
            let level = Level::new(
                &observed(),
                &tap(name),
                Some(&(tap(name), [32, 32])),
                [32, 32],
            );
            let views: Vec<(View, bool)> =
                level.views.iter().map(|(v, g)| (*v, g.is_ok())).collect();
            (views, level.correlations)
        };
        let (views, correlations) = level("a");
        assert_eq!(
            views,
            [View::Student, View::Map, View::Teacher, View::Difference].map(|v| (v, true))
        );
        let signs: Vec<f64> = correlations
            .iter()
            .map(|(_, r)| r.unwrap().round())
            .collect();
        assert_eq!(signs, [-1.0, 1.0]);
        let (views, correlations) = level("b");
        assert_eq!(views.last(), Some(&(View::Difference, false)));
        assert_eq!(correlations, [(View::Teacher, None)]);
        let (views, correlations) = level("c");
        assert_eq!(views, [(View::Student, true)]);
        assert!(correlations.is_empty());
    }

    #[test]
    fn numbers_have_three_digits() {
        let numbers = [
            0.0, 0.012_345, 1.0, -12.345, 123.45, 1234.5, 123_456.0, 1e-5,
        ];
        let shown = numbers.map(short);
        let expected = [
            "0", "0.0123", "1.00", "-12.3", "123", "1234", "1.23e5", "1.00e-5",
        ];
        assert_eq!(shown, expected);
    }
}
