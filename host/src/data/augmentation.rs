//! What training draws for an image: mirror, scale, crop.

use crate::config::{ResizeMode, TransformConfig};
use crate::rng::KeyedRng;

/// What happens to one image and its label map beside resizing and normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// Multiplies both extents that the image is resized to; they are rounded, and at least 1.
    pub scale: f64,
    /// After scaling.
    pub crop: Option<Crop>,
    /// Mirrors left to right what the crop left.
    pub flip: bool,
}

/// A part of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    /// `[height, width]` of the result. A smaller image is padded at right and bottom: with the mean
    /// colour (0 after normalisation), its labels with [`super::IGNORE_LABEL`].
    pub size: [usize; 2],
    /// Where it lies along each axis: 0 at the top or left, 1 (exclusive) as far down or right as
    /// the image goes.
    pub place: [f64; 2],
}

impl Augmentation {
    /// Changes nothing: evaluation.
    pub const NONE: Augmentation = Augmentation {
        scale: 1.0,
        crop: None,
        flip: false,
    };

    /// What training on segmentation draws: a function of the arguments alone, each draw of a stream
    /// of its own, so that none depends on whether another is asked for.
    #[must_use]
    pub fn drawn(config: &TransformConfig, seed: u64, epoch: u64, image_id: i64) -> Self {
        let rng = |purpose: &str| {
            // The id's bits serve as a key: negative ids are as good as others.
            KeyedRng::new(purpose, &[seed, epoch, image_id.cast_unsigned()])
        };
        let [low, high] = config.scale_range;
        let place = || {
            let mut rng = rng("crop");
            [rng.uniform(), rng.uniform()]
        };
        Augmentation {
            scale: rng("scale").range(low, high),
            crop: crop_size(config).map(|size| Crop {
                size,
                place: place(),
            }),
            flip: flip_drawn(config.flip_prob, seed, epoch, image_id),
        }
    }
}

/// `[height, width]` of the crop: `crop_size`, or where images of one size are scaled, that size.
fn crop_size(config: &TransformConfig) -> Option<[usize; 2]> {
    let chosen = <[usize; 2]>::try_from(config.crop_size.as_slice()).ok();
    let scaled = config.scale_range != [1.0, 1.0];
    chosen.or((scaled && config.resize == ResizeMode::Fixed).then_some(config.size))
}

/// Whether training mirrors an image: a draw that depends on its arguments alone.
#[must_use]
pub fn flip_drawn(probability: f64, seed: u64, epoch: u64, image_id: i64) -> bool {
    let key = [seed, epoch, image_id.cast_unsigned()];
    KeyedRng::new("flip", &key).uniform() < probability
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::registry::default_config;

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
    fn draws_fill_their_ranges_and_do_not_depend_on_each_other() {
        let mut config = default_config().transform;
        (config.scale_range, config.crop_size) = ([0.5, 2.0], vec![40, 48]);
        let drawn: Vec<Augmentation> = (0..2000)
            .map(|id| Augmentation::drawn(&config, 3, 1, id))
            .collect();
        let scales = || drawn.iter().map(|a| a.scale);
        assert!(scales().all(|scale| (0.5..=2.0).contains(&scale)));
        // The mean of 2000 draws from [0.5, 2] is within five standard errors of 1.25.
        let mean = scales().sum::<f64>() / 2000.0;
        assert!((mean - 1.25).abs() < 5.0 * 0.433 / 2000f64.sqrt(), "{mean}");
        for axis in 0..2 {
            let places = drawn.iter().map(|a| a.crop.unwrap().place[axis]);
            let upper = places.filter(|place| *place >= 0.5).count();
            // Five standard deviations of Binomial(2000, 1/2): 5 * sqrt(500) = 112.
            assert!(upper.abs_diff(1000) <= 112, "axis {axis}: {upper}");
        }
        let (a, b) = (drawn[0], Augmentation::drawn(&config, 3, 2, 0));
        assert!(a.scale != b.scale && a.crop != b.crop, "epochs differ");
        config.scale_range = [1.0, 1.0];
        config.flip_prob = 0.0;
        let plain = Augmentation::drawn(&config, 3, 1, 0);
        assert_eq!(plain.crop, a.crop);
        assert_eq!((plain.scale, plain.flip), (1.0, false));
        config.crop_size.clear();
        assert_eq!(
            Augmentation::drawn(&config, 3, 1, 0),
            Augmentation::NONE,
            "nothing is asked for"
        );
    }

    #[test]
    fn images_of_one_size_that_are_scaled_are_cropped_to_it() {
        let mut config = default_config().transform;
        config.scale_range = [0.5, 2.0];
        assert_eq!(crop_size(&config), Some(config.size));
        config.crop_size = vec![33, 44];
        assert_eq!(crop_size(&config), Some([33, 44]));
        config.crop_size.clear();
        for resize in [ResizeMode::KeepRatio, ResizeMode::None] {
            config.resize = resize;
            assert_eq!(crop_size(&config), None);
        }
    }
}
