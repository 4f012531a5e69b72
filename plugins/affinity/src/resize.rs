//! Maps brought to the size of another.

use kd_plugin::burn::tensor::Tensor;
use kd_plugin::burn::tensor::module::adaptive_avg_pool2d;
use kd_plugin::resize_bilinear;

/// Height and width.
#[must_use]
pub fn size(map: &Tensor<4>) -> [usize; 2] {
    let [_, _, height, width] = map.dims();
    [height, width]
}

/// Averages of areas (`torch.nn.functional.adaptive_avg_pool2d`); the map itself if it fits.
#[must_use]
pub fn averaged(map: Tensor<4>, to: [usize; 2]) -> Tensor<4> {
    if size(&map) == to {
        return map;
    }
    adaptive_avg_pool2d(map, to)
}

/// [`averaged`] where both sides shrink to a half or less, else [`resize_bilinear`].
#[must_use]
pub fn averaged_or_bilinear(map: Tensor<4>, to: [usize; 2]) -> Tensor<4> {
    let [height, width] = size(&map);
    if height >= 2 * to[0] && width >= 2 * to[1] {
        averaged(map, to)
    } else {
        resize_bilinear(map, to)
    }
}
