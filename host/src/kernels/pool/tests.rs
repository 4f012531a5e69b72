//! Against Burn's pooling, finite differences, and by hand at ties and NaN.

use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};

use super::*;
use crate::kernels::maps::Shared;
use crate::kernels::testing::{
    assert_threads_change_nothing, check, dot, error, leaf, normal, slopes, tensor, values,
};
use crate::maps::Maps;

/// Sums of at most four values in another order.
const TOLERANCE: f64 = 2e-7;
/// Of differences: the pooled values' rounding over the step.
const DIFFERENCE_TOLERANCE: f64 = 1e-7;

const SIZES: [[usize; 3]; 9] = [
    [2, 1, 1],
    [1, 1, 6],
    [2, 5, 1],
    [1, 2, 2],
    [2, 3, 3],
    [2, 7, 4],
    [1, 8, 8],
    [3, 9, 12],
    [1, 33, 31],
];

/// A map in channels-last order and its size.
fn pool_of(x: &Tensor<4>) -> Tensor<4> {
    let maps = Maps::from_nchw(x.clone());
    let (y, segment) = max_pool(maps.cells().clone(), maps.segment());
    Maps::new(y, [segment]).nchw(0)
}

fn burns(x: &Tensor<4>) -> Tensor<4> {
    let options = MaxPoolOptions::new([3, 3])
        .with_stride([2, 2])
        .with_padding([1, 1]);
    max_pool2d(x.clone(), options)
}

#[test]
fn value_and_gradient_equal_burns_own() {
    for [n, h, w] in SIZES {
        for channels in [1, 3, 17, 64] {
            let shape = [n, channels, h, w];
            let x = leaf(&normal("pool", shape.iter().product()), shape);
            let (ours, theirs) = (pool_of(&x), burns(&x));
            assert_eq!(ours.dims(), theirs.dims(), "{shape:?}");
            assert_eq!(
                values(ours.clone()),
                values(theirs.clone()),
                "{shape:?}: the same values are picked"
            );
            let dims = ours.dims();
            let upstream = normal("pool upstream", dims.iter().product());
            let upstream = tensor(&upstream, dims, &Device::flex());
            let gradient = |y: Tensor<4>| {
                let gradients = (y * upstream.clone()).sum().backward();
                values(x.grad(&gradients).unwrap())
            };
            let error = error(&gradient(ours), &gradient(theirs));
            check(format_args!("{shape:?}"), error, TOLERANCE);
        }
    }
}

/// `x` is a 3×3 map of one channel; the gradient at it if all four outputs have gradient 1.
fn three_by_three(x: [f32; 9]) -> (Vec<f32>, Vec<f32>) {
    let x = leaf(&x, [1, 1, 3, 3]);
    let y = pool_of(&x);
    let gradients = y.clone().sum().backward();
    (values(y), values(x.grad(&gradients).unwrap()))
}

#[test]
fn of_equal_values_the_first_gets_the_gradient() {
    // Windows start at (-1, -1), (-1, 1), (1, -1), (1, 1): their first cells are 0, 1, 3 and 4.
    let (y, dx) = three_by_three([2.0; 9]);
    assert_eq!(y, [2.0; 4]);
    assert_eq!(dx, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    // Nothing is larger than what a window starts from, and the gradient still finds a cell.
    let (y, dx) = three_by_three([f32::NEG_INFINITY; 9]);
    assert_eq!(y, [f32::NEG_INFINITY; 4]);
    assert_eq!(dx, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    // The middle is seen by all four.
    let (_, dx) = three_by_three([0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(dx, [0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn not_a_number_is_passed_on() {
    // In the lower right corner: one window sees it, before larger and after smaller values.
    let mut x = [1.0, 2.0, 3.0, 4.0, 9.0, 6.0, 7.0, 8.0, f32::NAN];
    let (y, dx) = three_by_three(x);
    assert_eq!(y[..3], [9.0, 9.0, 9.0]);
    assert!(y[3].is_nan());
    assert_eq!(dx, [0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0]);
    // First of its window: nothing after it wins.
    x.swap(0, 8);
    let (y, dx) = three_by_three(x);
    assert!(y[0].is_nan());
    assert_eq!(dx[0], 1.0);
}

#[test]
fn gradient_equals_finite_differences() {
    /// Values are a permutation of multiples of it: the step changes no order.
    const SPACING: f32 = 0.25;
    const STEP: f32 = 0.0625;
    let [n, h, w, channels] = [2, 5, 4, 3];
    let len = n * h * w * channels;
    // 7 and 120 have no common divisor.
    let x: Vec<f32> = (0..len).map(|i| (i * 7 % len) as f32 * SPACING).collect();
    let segment = Segment::new(n, h, w);
    let pooled = |x: Tensor<2>| max_pool(x, segment).0;
    let upstream = normal("pool slopes", output_len(segment, channels));
    let rows = [segment.cells(), channels];
    let all: Vec<usize> = (0..len).collect();
    let want = slopes(&x, &all, STEP, |x| {
        let y = pooled(tensor(x, rows, &Device::flex()));
        dot(&values(y), &upstream)
    });
    let x = leaf(&x, rows);
    let y = pooled(x.clone());
    let upstream = tensor(&upstream, y.dims(), &Device::flex());
    let gradients = (y * upstream).sum().backward();
    let error = error(&values(x.grad(&gradients).unwrap()), &want);
    check(format_args!("dx"), error, DIFFERENCE_TOLERANCE);
}

fn output_len(segment: Segment, channels: usize) -> usize {
    kernel::output(segment).cells() * channels
}

/// Pooled values, places and the gradient for the pooled values themselves.
fn at_level(level: Level, x: &[f32], segment: Segment, channels: usize) -> Vec<Vec<f32>> {
    let len = output_len(segment, channels);
    let (mut y, mut place) = (vec![f32::NAN; len], vec![f32::NAN; len]);
    let to = [Shared::new(&mut y), Shared::new(&mut place)];
    kernel::max_pool(level, x, segment, channels, to);
    let mut dx = vec![f32::NAN; x.len()];
    let to = Shared::new(&mut dx);
    kernel::input_gradient(level, [&y, &place], segment, channels, to);
    vec![y, place, dx]
}

#[test]
fn levels_agree_to_the_bit() {
    for [n, h, w] in SIZES {
        for channels in [1, 7, 16, 37] {
            let segment = Segment::new(n, h, w);
            let x = normal("pool levels", segment.cells() * channels);
            let plain = at_level(Level::Portable, &x, segment, channels);
            for level in Level::available() {
                assert_eq!(at_level(level, &x, segment, channels), plain, "{level:?}");
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let segment = Segment::new(3, 21, 18);
    let x = normal("pool threads", segment.cells() * 19);
    assert_threads_change_nothing("pool", || at_level(Level::best(), &x, segment, 19));
}
