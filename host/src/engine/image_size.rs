//! The size of a run's training images, where it is one.

use crate::config::{DataConfig, ResizeMode, Task};

/// `[height, width]` of every training image without padding; none where images differ.
#[must_use]
pub fn of_training(data: &DataConfig, task: Task) -> Option<[usize; 2]> {
    let transform = &data.transform;
    let fixed = (transform.resize == ResizeMode::Fixed).then_some(transform.size);
    match task {
        Task::Detection => fixed,
        // A crop has its size whatever is left of the image; one of images that are scaled is cut back.
        Task::Segmentation => match transform.crop_size[..] {
            [height, width] => Some([height, width]),
            _ => fixed,
        },
    }
}

/// `size` as a network of this divisor sees it.
#[must_use]
pub fn padded(size: [usize; 2], divisor: usize) -> [usize; 2] {
    size.map(|extent| extent.next_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn one_size_is_a_fixed_one_or_that_of_a_crop() {
        let mut data = Config::base().data;
        data.transform.size = [100, 160];
        let of = |data: &DataConfig| {
            [Task::Detection, Task::Segmentation].map(|task| of_training(data, task))
        };
        assert_eq!(of(&data), [Some([100, 160]); 2]);
        data.transform.crop_size = vec![64, 96];
        assert_eq!(of(&data), [Some([100, 160]), Some([64, 96])]);
        for resize in [ResizeMode::KeepRatio, ResizeMode::None] {
            data.transform.resize = resize;
            assert_eq!(of(&data), [None, Some([64, 96])]);
        }
        data.transform.crop_size.clear();
        assert_eq!(of(&data), [None; 2]);
        assert_eq!(padded([100, 160], 32), [128, 160]);
    }
}
