//! Against Burn's convolution on `[N, C, H, W]`, over a matrix of extents.

use burn::tensor::module::conv2d as burn_conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, activation};

use super::*;
use crate::kernels::testing::{check, error};
use crate::maps::Maps;

/// Both sum in f32, in other orders: 1.2e-6 is the largest measured, of Winograd's algorithm.
const TOLERANCE: f64 = 2.5e-6;
/// Results are rounded to 8 significant bits, which costs at most 2^-8 of each.
const BF16_TOLERANCE: f64 = 1.0 / 256.0;

/// A pyramid of two images that Winograd's algorithm takes.
const PYRAMID: [[usize; 3]; 5] = [[2, 12, 10], [2, 6, 5], [2, 3, 3], [2, 2, 2], [2, 1, 1]];
/// Smaller than what pays for Winograd's algorithm.
const PAIR: [[usize; 3]; 2] = [[2, 5, 7], [1, 4, 3]];

fn window(
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
) -> Window {
    Window {
        kernel,
        stride,
        padding,
        dilation,
    }
}

/// `[n, c, h, w, o, k, stride, padding, dilation]`
const SQUARE: [[usize; 9]; 17] = [
    [2, 8, 9, 11, 16, 3, 1, 1, 1],
    [1, 3, 33, 30, 16, 7, 2, 3, 1],
    [3, 16, 8, 8, 32, 1, 1, 0, 1],
    [2, 16, 9, 7, 8, 1, 2, 0, 1],
    [2, 8, 16, 16, 8, 3, 2, 1, 1],
    [1, 40, 5, 6, 24, 3, 1, 1, 1],
    [2, 4, 12, 12, 6, 3, 1, 2, 2],
    [1, 8, 1, 1, 8, 3, 1, 1, 1],
    [1, 8, 2, 3, 8, 3, 2, 1, 1],
    [5, 1, 7, 7, 1, 3, 1, 0, 1],
    [1, 64, 20, 20, 64, 3, 1, 1, 1],
    [2, 33, 10, 10, 36, 3, 1, 1, 1],
    // Dilation 3; a kernel larger than the map; cells that no kernel sees; padding around 1×1.
    [2, 5, 11, 9, 7, 3, 1, 3, 3],
    [2, 17, 1, 1, 5, 5, 1, 2, 1],
    [2, 6, 8, 9, 5, 2, 3, 0, 1],
    [1, 5, 4, 3, 3, 1, 1, 1, 1],
    [1, 5, 41, 40, 6, 4, 1, 1, 1],
];

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = SQUARE
        .iter()
        .map(|&[n, c, h, w, o, k, stride, padding, dilation]| {
            let window = window([k; 2], [stride; 2], [padding; 2], [dilation; 2]);
            Case::new(&[[n, h, w]], [c, o], window, 1)
        })
        .collect();
    let mut add = |sizes: &[[usize; 3]], channels, window, groups| {
        cases.push(Case::new(sizes, channels, window, groups));
    };
    let one = [1; 2];
    // Rectangles, and strides, paddings and dilations that differ between the axes.
    add(&PAIR, [5, 6], window([1, 7], one, [0, 3], one), 1);
    add(&PAIR, [6, 5], window([7, 1], one, [3, 0], one), 1);
    add(&PAIR, [3, 17], window([5, 3], one, [2, 1], one), 1);
    add(&PAIR, [7, 9], window([3, 3], [2, 1], one, one), 1);
    add(&PAIR, [7, 9], window([3, 3], [1, 3], one, one), 1);
    add(&PAIR, [4, 5], window([3, 3], one, [0, 2], one), 1);
    add(&PAIR, [4, 5], window([3, 3], one, [1, 3], [1, 3]), 1);
    add(&PAIR, [4, 5], window([2, 3], [2, 1], [2, 1], [3, 1]), 1);
    // Groups.
    add(&PAIR, [6, 4], Window::square(3, 1, 1), 2);
    add(&PAIR, [8, 12], Window::square(3, 2, 1), 4);
    add(&PAIR, [34, 18], Window::square(1, 1, 0), 2);
    add(&PAIR, [8, 4], window([3, 1], one, [2, 0], [2, 1]), 4);
    add(&PYRAMID, [36, 34], Window::square(3, 1, 1), 2);
    // Depthwise.
    add(&PYRAMID, [17, 17], Window::square(3, 1, 1), 17);
    add(&PYRAMID, [33, 33], Window::square(3, 2, 1), 33);
    add(&PAIR, [8, 8], window([3, 3], one, [2, 2], [2, 2]), 8);
    add(&PAIR, [91, 91], window([5, 3], [1, 2], [2, 0], one), 91);
    add(&PAIR, [48, 48], window([3, 3], one, [4, 4], [4, 4]), 48);
    add(&PAIR, [48, 48], window([3, 3], [2, 2], [2, 2], [2, 2]), 48);
    add(&PAIR, [2, 2], Window::square(2, 3, 1), 2);
    // Channels that do not fill registers, in all sizes at once.
    for channels in [
        [1, 1],
        [3, 5],
        [5, 17],
        [17, 33],
        [33, 36],
        [36, 91],
        [91, 3],
    ] {
        add(&PYRAMID, channels, Window::square(3, 1, 1), 1);
        add(&PAIR, channels, Window::square(1, 1, 0), 1);
        add(&PAIR, channels, Window::square(1, 2, 0), 1);
        add(&PAIR, channels, Window::square(3, 2, 1), 1);
    }
    // More channels than one block of the weight gradient has columns.
    add(&PAIR, [300, 6], Window::square(3, 2, 1), 1);
    add(&PAIR, [300, 7], Window::square(1, 1, 0), 1);
    add(&PYRAMID, [16, 260], Window::square(3, 1, 1), 1);
    cases
}

/// The maps of `values` `[cells, channels]` as leaves `[N, C, H, W]`.
fn nchw(values: &[f32], segments: &[Segment], channels: usize) -> Vec<Tensor<4>> {
    let cells: Tensor<2> = tensor(values, [cells(segments), channels], &Device::flex());
    let maps = Maps::new(cells, segments);
    let autodiff = Device::flex().autodiff();
    (0..segments.len())
        .map(|level| {
            let map = Tensor::from_data(maps.nchw(level).into_data(), &autodiff);
            map.require_grad()
        })
        .collect()
}

/// As the kernels order them.
fn packed(maps: &[Tensor<4>]) -> Vec<f32> {
    values(Maps::pack_nchw(maps).cells().clone())
}

/// `case` by Burn's convolution, map by map. The gradient passes where `ours` is positive, so that
/// values within rounding of 0 may fall to either side.
fn burns(case: &Case, operands: &Operands, bias: bool, ours: &Results) -> Results {
    let conv = &case.conv;
    let weight = leaf(&operands.weight, case.weight_shape());
    let bias = bias.then(|| leaf(&operands.bias, [case.o]));
    let maps = nchw(&operands.x, &conv.input, case.c);
    let gated: Vec<f32> = operands
        .upstream
        .iter()
        .zip(&ours.y)
        .map(|(&g, &y)| if conv.relu && y <= 0.0 { 0.0 } else { g })
        .collect();
    let upstream = nchw(&gated, &conv.output(), case.o);
    let Window {
        stride,
        padding,
        dilation,
        ..
    } = conv.window;
    let results: Vec<Tensor<4>> = maps
        .iter()
        .map(|map| {
            let options = ConvOptions::new(stride, padding, dilation, conv.groups);
            burn_conv2d(map.clone(), weight.clone(), bias.clone(), options)
        })
        .collect();
    let gradients = results
        .iter()
        .zip(upstream)
        .map(|(y, upstream)| (y.clone() * upstream.inner()).sum())
        .reduce(|a, b| a + b)
        .unwrap()
        .backward();
    let relu = |y: Tensor<4>| if conv.relu { activation::relu(y) } else { y };
    let dx: Vec<Tensor<4>> = maps
        .iter()
        .map(|map| map.grad(&gradients).unwrap())
        .collect();
    let y: Vec<Tensor<4>> = results.into_iter().map(|y| relu(y.inner())).collect();
    Results {
        y: packed(&y),
        dx: packed(&dx),
        dw: values(weight.grad(&gradients).unwrap()),
        db: bias.map_or_else(Vec::new, |bias| values(bias.grad(&gradients).unwrap())),
    }
}

#[test]
fn forward_and_gradients_equal_burns_own() {
    let cases = cases();
    let of_winograd = cases.iter().filter(|case| case.is_winograd()).count();
    assert!((5..10).contains(&of_winograd), "{of_winograd}");
    for mut case in cases {
        let operands = case.operands();
        for (bias, relu) in [(false, false), (true, false), (false, true), (true, true)] {
            case.conv.relu = relu;
            let ours = on_the_tape(&case, &operands, bias);
            let theirs = burns(&case, &operands, bias, &ours);
            for (name, got, want) in [
                ("y", ours.y, theirs.y),
                ("dx", ours.dx, theirs.dx),
                ("dw", ours.dw, theirs.dw),
                ("dbias", ours.db, theirs.db),
            ] {
                let what = format_args!("{case:?}, bias {bias}: {name}");
                check(what, error(&got, &want), TOLERANCE);
            }
        }
    }
}

fn narrow<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    let plain: Tensor<D> = tensor(values, shape, &Device::flex());
    plain.cast(DType::BF16).autodiff().require_grad()
}

fn wide<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    values(tensor.cast(DType::F32))
}

#[test]
fn bf16_is_taken_and_given_back() {
    // Direct, Winograd and depthwise.
    for (channels, groups) in [([5, 7], 1), ([17, 16], 1), ([9, 9], 9)] {
        let mut case = Case::new(&PYRAMID, channels, Window::square(3, 1, 1), groups);
        case.conv.relu = true;
        assert_eq!(case.is_winograd(), channels == [17, 16]);
        let mut operands = case.operands();
        // Numbers that bf16 has: only results are rounded.
        let coarse = |values: &mut Vec<f32>| {
            for value in values {
                *value = f32::from_bits(value.to_bits() & 0xffff_0000);
            }
        };
        coarse(&mut operands.x);
        coarse(&mut operands.weight);
        coarse(&mut operands.bias);
        coarse(&mut operands.upstream);
        let want = on_the_tape(&case, &operands, true);

        let x = narrow(&operands.x, case.input_shape());
        let weight = narrow(&operands.weight, case.weight_shape());
        let bias = narrow(&operands.bias, [case.o]);
        let y = conv2d(
            x.clone(),
            weight.clone(),
            Some(bias.clone()),
            case.conv.clone(),
        );
        assert_eq!(y.dtype(), DType::BF16);
        let upstream: Tensor<2> = tensor(&operands.upstream, y.dims(), &Device::flex());
        let gradients = (y.clone() * upstream.cast(DType::BF16)).sum().backward();
        for (name, got, want) in [
            ("y", wide(y), want.y),
            ("dx", wide(x.grad(&gradients).unwrap()), want.dx),
            ("dw", wide(weight.grad(&gradients).unwrap()), want.dw),
            ("dbias", wide(bias.grad(&gradients).unwrap()), want.db),
        ] {
            let what = format_args!("{channels:?}: {name}");
            check(what, error(&got, &want), BF16_TOLERANCE);
        }
    }
}
