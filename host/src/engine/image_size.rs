//! The size of a run's training images, where it is one.

use crate::config::{Config, ResizeMode, Task, TransformConfig};
use crate::data::ViewSpec;

/// The one size that every training image of a run has as the student sees it, `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedSize {
    /// Without padding.
    pub size: [usize; 2],
    /// As the network sees it.
    pub padded: [usize; 2],
}

impl FixedSize {
    /// Of a run of `config`, whose student wants multiples of `size_divisor`; none where images differ.
    #[must_use]
    pub fn of_training(config: &Config, size_divisor: usize) -> Option<Self> {
        let size = size_of(&config.data.transform, config.task)?;
        Some(FixedSize {
            size,
            padded: size.map(|extent| extent.next_multiple_of(size_divisor)),
        })
    }

    /// `[height, width]` with padding of the same images in a further view. None where they do not fit
    /// into its frame, which the loader refuses.
    #[must_use]
    pub fn seen_in(self, view: Option<&ViewSpec>) -> Option<[usize; 2]> {
        match view {
            Some(view) => view.padded(self.padded, view.size(self.size)).ok(),
            None => Some(self.padded),
        }
    }
}

fn size_of(transform: &TransformConfig, task: Task) -> Option<[usize; 2]> {
    let resized = match transform.resize {
        ResizeMode::Fixed | ResizeMode::CenterCrop => Some(transform.size),
        ResizeMode::KeepRatio | ResizeMode::None => None,
    };
    match task {
        Task::Detection => resized,
        // A crop has its size whatever is left of the image; one of images that are scaled is cut back.
        Task::Segmentation => match transform.crop_size[..] {
            [height, width] => Some([height, width]),
            _ => resized,
        },
        // A random part of an image is resized to it.
        Task::Classification if transform.area_range != [1.0, 1.0] => Some(transform.size),
        Task::Classification => resized,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(config: &Config) -> [Option<[usize; 2]>; 3] {
        [Task::Detection, Task::Segmentation, Task::Classification]
            .map(|task| size_of(&config.data.transform, task))
    }

    #[test]
    fn one_size_is_a_fixed_one_or_that_of_a_crop() {
        let mut config = Config::base();
        let transform = &mut config.data.transform;
        transform.size = [100, 160];
        transform.area_range = [1.0, 1.0];
        let (fixed, crop) = (Some([100, 160]), Some([64, 96]));
        assert_eq!(size(&config), [fixed; 3]);
        config.data.transform.crop_size = vec![64, 96];
        assert_eq!(size(&config), [fixed, crop, fixed]);
        for resize in [ResizeMode::KeepRatio, ResizeMode::None] {
            config.data.transform.resize = resize;
            assert_eq!(size(&config), [None, crop, None]);
        }
        config.data.transform.crop_size.clear();
        config.data.transform.area_range = [0.1, 1.0];
        assert_eq!(size(&config), [None, None, fixed]);
    }

    #[test]
    fn padding_is_the_networks_or_that_of_the_views_frame() {
        let mut config = Config::base();
        config.data.transform.size = [100, 160];
        let fixed = FixedSize::of_training(&config, 32).unwrap();
        assert_eq!((fixed.size, fixed.padded), ([100, 160], [128, 160]));
        assert_eq!(fixed.seen_in(None), Some([128, 160]));
        let view = |frame_scale| ViewSpec {
            scale: [2.0, 2.0],
            mean: [0.0; 3],
            std: [1.0; 3],
            size_divisor: 32,
            frame_scale,
        };
        assert_eq!(fixed.seen_in(Some(&view(None))), Some([224, 320]));
        assert_eq!(fixed.seen_in(Some(&view(Some(2.0)))), Some([256, 320]));
        assert_eq!(fixed.seen_in(Some(&view(Some(1.0)))), None);
    }
}
