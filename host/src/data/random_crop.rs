//! A part of a picture of random area and shape: torchvision's `RandomResizedCrop` (after
//! arXiv 1409.4842, section 6).

use super::Part;
use crate::config::TransformConfig;
use crate::rng::KeyedRng;

/// So often a part is drawn before the largest in the middle is taken.
const TRIES: usize = 10;

/// The part that training on classification takes of a picture of `[height, width]`: a function of the
/// arguments alone.
pub(super) fn drawn(
    config: &TransformConfig,
    size: [usize; 2],
    [seed, epoch]: [u64; 2],
    image_id: i64,
) -> Part {
    let mut rng = KeyedRng::new("area crop", &[seed, epoch, image_id.cast_unsigned()]);
    part(size, config.area_range, config.aspect_range, || {
        rng.uniform()
    })
}

/// As torchvision's `RandomResizedCrop.get_params` finds a part of a picture of `size`: its share of the
/// area from `areas`, its width over height from `aspects`, uniform in the logarithm; up to ten times until
/// it fits, and then anywhere. Where none fits, the largest part in the middle with an aspect within
/// `aspects`. `uniform` gives numbers from `[0, 1)`: area and aspect of each try, then top and left.
fn part(
    size: [usize; 2],
    areas: [f64; 2],
    aspects: [f64; 2],
    mut uniform: impl FnMut() -> f64,
) -> Part {
    let [height, width] = size;
    let area = height as f64 * width as f64;
    let logarithms = aspects.map(f64::ln);
    for _ in 0..TRIES {
        let target = area * (areas[0] + (areas[1] - areas[0]) * uniform());
        let aspect = (logarithms[0] + (logarithms[1] - logarithms[0]) * uniform()).exp();
        let wanted = [(target / aspect).sqrt(), (target * aspect).sqrt()];
        // Python's `round` goes to the even of two that are as near.
        let wanted = wanted.map(|extent| extent.round_ties_even() as usize);
        if wanted[0] > 0 && wanted[0] <= height && wanted[1] > 0 && wanted[1] <= width {
            let place = [uniform(), uniform()];
            let corner = [0, 1].map(|axis| {
                let slack = size[axis] - wanted[axis];
                ((place[axis] * (slack + 1) as f64) as usize).min(slack)
            });
            return Part {
                corner,
                size: wanted,
            };
        }
    }
    middle(size, aspects)
}

/// The largest part in the middle whose width over height is within `aspects`.
fn middle([height, width]: [usize; 2], aspects: [f64; 2]) -> Part {
    let aspect = width as f64 / height as f64;
    let extent = |exact: f64, limit: usize| (exact.round_ties_even() as usize).clamp(1, limit);
    let size = if aspect < aspects[0] {
        [extent(width as f64 / aspects[0], height), width]
    } else if aspect > aspects[1] {
        [height, extent(height as f64 * aspects[1], width)]
    } else {
        [height, width]
    };
    Part {
        corner: [(height - size[0]) / 2, (width - size[1]) / 2],
        size,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::data::registry::default_config;

    /// Made by `tests/golden/data/make_class_crops.py`.
    const GOLDEN: &str = include_str!("../../../tests/golden/data/class_crops.json");

    #[derive(Deserialize)]
    struct Golden {
        parts: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        size: [usize; 2],
        areas: [f64; 2],
        aspects: [f64; 2],
        /// What torchvision's generator gave, as numbers from `[0, 1)`.
        draws: Vec<f64>,
        corner: [usize; 2],
        part: [usize; 2],
    }

    #[test]
    fn parts_are_torchvisions_for_the_same_draws() {
        let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
        assert!(golden.parts.len() >= 100);
        let mut fell_back = 0;
        for case in golden.parts {
            let mut draws = case.draws.iter();
            let found = part(case.size, case.areas, case.aspects, || {
                *draws.next().unwrap()
            });
            let expected = Part {
                corner: case.corner,
                size: case.part,
            };
            assert_eq!(found, expected, "{:?}", case.size);
            assert!(draws.next().is_none(), "every draw is used");
            fell_back += usize::from(case.draws.len() == 2 * TRIES);
        }
        assert!(fell_back >= 5, "the middle is taken too");
    }

    #[test]
    fn draws_depend_on_their_key_and_fill_the_ranges() {
        let mut config = default_config().transform;
        config.area_range = [0.08, 1.0];
        let of = |epoch: u64, id: i64| drawn(&config, [100, 100], [3, epoch], id);
        assert_eq!(of(1, 5), of(1, 5));
        assert_ne!(of(1, 5), of(2, 5));
        let areas = (0..2000).map(|id| of(0, id).size.iter().product::<usize>() as f64 / 1e4);
        let areas: Vec<f64> = areas.collect();
        // Rounding of extents changes an area by up to a fiftieth.
        assert!(areas.iter().all(|area| (0.07..=1.0).contains(area)));
        assert!(areas.iter().any(|area| *area < 0.12) && areas.iter().any(|area| *area > 0.9));
    }
}
