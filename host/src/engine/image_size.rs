//! The size of a run's training images, where it is one.

use crate::config::{DataConfig, Task};

/// The size that all training images of a run have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSize {
    /// `[height, width]` without padding.
    pub size: [usize; 2],
    /// As the network sees them.
    pub padded: [usize; 2],
}

impl ImageSize {
    /// Of a network whose inputs are padded to multiples of `size_divisor`; none where images differ.
    #[must_use]
    pub fn of_training(data: &DataConfig, task: Task, size_divisor: usize) -> Option<Self> {
        let size = size_of(data, task)?;
        Some(ImageSize {
            size,
            padded: size.map(|extent| extent.next_multiple_of(size_divisor)),
        })
    }
}

fn size_of(data: &DataConfig, task: Task) -> Option<[usize; 2]> {
    let transform = &data.transform;
    let fixed = transform.one_size();
    match task {
        Task::Detection => fixed,
        // A crop has its size whatever is left of the image; one of images that are scaled is cut back.
        Task::Segmentation => match transform.crop_size[..] {
            [height, width] => Some([height, width]),
            _ => fixed,
        },
        // A random part is brought to the size.
        Task::Classification => match transform.area_range {
            [1.0, 1.0] => fixed,
            _ => Some(transform.size),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ResizeMode};

    #[test]
    fn one_size_is_a_fixed_one_or_that_of_a_crop() {
        let mut data = Config::base().data;
        data.transform.size = [100, 160];
        let of = |data: &DataConfig| {
            let tasks = [Task::Detection, Task::Segmentation, Task::Classification];
            tasks.map(|task| size_of(data, task))
        };
        assert_eq!(of(&data), [Some([100, 160]); 3]);
        data.transform.crop_size = vec![64, 96];
        let cropped = [Some([100, 160]), Some([64, 96]), Some([100, 160])];
        assert_eq!(of(&data), cropped);
        for resize in [ResizeMode::KeepRatio, ResizeMode::None] {
            data.transform.resize = resize;
            assert_eq!(of(&data), [None, Some([64, 96]), None]);
        }
        data.transform.area_range = [0.5, 1.0];
        assert_eq!(of(&data)[2], Some([100, 160]));
        data.transform.resize = ResizeMode::Fixed;
        let padded = ImageSize::of_training(&data, Task::Detection, 32).unwrap();
        assert_eq!((padded.size, padded.padded), ([100, 160], [128, 160]));
    }
}
