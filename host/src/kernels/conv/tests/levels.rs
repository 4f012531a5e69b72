//! Every algorithm at every level of vector instructions, against f64.

use super::reference::{Reference, reference};
use super::*;
use crate::kernels::conv::direct::Epilogue;
use crate::kernels::maps::{Channels, Shared};
use crate::kernels::simd::Level;
use crate::kernels::testing::{check, error};

/// f32 sums, one rounding a term: 2.5e-7 measured for 150 terms, 8.4e-7 for 2300.
const DIRECT_TOLERANCE: f64 = 1.5e-6;
/// Winograd's transforms cost a few times a plain sum: 0.9e-6 measured for single tiles, 1.5e-6 for
/// deep sums, 2.3e-6 for a weight gradient over 340 tiles (plain: 0.5e-6).
const WINOGRAD_TOLERANCE: f64 = 4e-6;

const PYRAMID: [[usize; 3]; 5] = [[2, 13, 10], [2, 7, 5], [2, 4, 3], [2, 2, 2], [2, 1, 1]];

/// One algorithm's three results at one level; outputs start as NaN.
type Algorithm = fn(Level, &Case, &Operands) -> [Vec<f32>; 3];

fn empty(case: &Case) -> [Vec<f32>; 3] {
    let nan = |extents: &[usize]| vec![f32::NAN; extents.iter().product()];
    [
        nan(&case.output_shape()),
        nan(&case.input_shape()),
        nan(&case.weight_shape()),
    ]
}

fn winograd(level: Level, case: &Case, operands: &Operands) -> [Vec<f32>; 3] {
    let [mut y, mut dx, mut dw] = empty(case);
    let (input, channels) = (&case.conv.input, [case.o, case.c]);
    let Operands {
        x,
        weight,
        upstream,
        ..
    } = operands;
    let convolve = |from: &[f32], transposed: bool, to: &mut [f32]| {
        let (none, to) = (Epilogue::NONE, Shared::new(to));
        winograd::convolve(level, input, from, weight, channels, transposed, none, to);
    };
    convolve(x, false, &mut y);
    convolve(upstream, true, &mut dx);
    winograd::weight_gradient(level, input, x, upstream, channels, &mut dw);
    [y, dx, dw]
}

fn direct(level: Level, case: &Case, operands: &Operands) -> [Vec<f32>; 3] {
    let [mut y, mut dx, mut dw] = empty(case);
    let (window, input) = (&case.conv.window, &case.conv.input);
    let (inputs, outputs) = (Channels::all(case.c), Channels::all(case.o));
    let Operands {
        x,
        weight,
        upstream,
        ..
    } = operands;
    let to = (Shared::new(&mut y), outputs);
    direct::forward(
        level,
        window,
        input,
        (x, inputs),
        weight,
        Epilogue::NONE,
        to,
    );
    let to = (Shared::new(&mut dx), inputs);
    direct::input_gradient(level, window, input, (upstream, outputs), weight, to);
    let from = ((&x[..], inputs), (&upstream[..], outputs));
    weight_gradient::weight_gradient(level, window, input, from.0, from.1, &mut dw);
    [y, dx, dw]
}

fn depthwise(level: Level, case: &Case, operands: &Operands) -> [Vec<f32>; 3] {
    let [mut y, mut dx, mut dw] = empty(case);
    let (window, input) = (&case.conv.window, &case.conv.input);
    let Operands {
        x,
        weight,
        upstream,
        ..
    } = operands;
    let to = Shared::new(&mut y);
    depthwise::forward(level, window, input, x, weight, Epilogue::NONE, to);
    let to = Shared::new(&mut dx);
    depthwise::input_gradient(level, window, input, upstream, weight, to);
    depthwise::weight_gradient(level, window, input, [x, upstream], case.c, &mut dw);
    [y, dx, dw]
}

fn compare(case: &Case, algorithms: &[(Algorithm, f64)]) {
    let operands = case.operands();
    let Reference { y, dx, dw } = reference(case, &operands);
    for level in Level::available() {
        for &(algorithm, tolerance) in algorithms {
            let results = algorithm(level, case, &operands);
            for (name, got, want) in [
                ("y", &results[0], &y),
                ("dx", &results[1], &dx),
                ("dw", &results[2], &dw),
            ] {
                let what = format_args!("{level:?}, {case:?}: {name}");
                check(what, error(got, want), tolerance);
            }
        }
    }
}

/// Winograd's algorithm and the plain sum on a 3×3 convolution.
const BOTH: [(Algorithm, f64); 2] = [(winograd, WINOGRAD_TOLERANCE), (direct, DIRECT_TOLERANCE)];

#[test]
fn every_small_size_equals_double_precision() {
    // Tiles are cut in every way; a map by itself, so that none hides in the norm of others.
    for (h, w) in (1..=9).flat_map(|h| (1..=9).map(move |w| (h, w))) {
        for channels in [[16, 17], [17, 16]] {
            let case = Case::new(&[[1, h, w]], channels, Window::square(3, 1, 1), 1);
            compare(&case, &BOTH);
        }
    }
}

#[test]
fn pyramids_equal_double_precision() {
    // More channels than a task finishes together, and sums as deep as a detector's.
    for channels in [[16, 16], [17, 40], [40, 17], [40, 70], [260, 33], [33, 260]] {
        let case = Case::new(&PYRAMID, channels, Window::square(3, 1, 1), 1);
        compare(&case, &BOTH);
    }
}

#[test]
fn many_tiles_equal_double_precision() {
    // The weight gradient sums over several rounds of tiles.
    let case = Case::new(&[[1, 70, 75]], [16, 17], Window::square(3, 1, 1), 1);
    compare(&case, &BOTH);
}

#[test]
fn other_windows_equal_double_precision() {
    let windows = [
        Window::square(1, 1, 0),
        Window::square(1, 2, 0),
        Window::square(3, 2, 1),
        Window::square(7, 2, 3),
        Window {
            kernel: [2, 3],
            stride: [3, 1],
            padding: [1, 2],
            dilation: [1, 2],
        },
    ];
    for window in windows {
        for channels in [[3, 17], [33, 5]] {
            let case = Case::new(&PYRAMID, channels, window, 1);
            compare(&case, &[(direct, DIRECT_TOLERANCE)]);
        }
        // Whole taps and parts of one as columns of the weight gradient.
        if window.taps() < 10 {
            let case = Case::new(&PYRAMID, [270, 19], window, 1);
            compare(&case, &[(direct, DIRECT_TOLERANCE)]);
        }
        for channels in [2, 16, 37] {
            let case = Case::new(&PYRAMID, [channels; 2], window, channels);
            compare(&case, &[(depthwise, DIRECT_TOLERANCE)]);
        }
    }
}

#[test]
fn few_channels_read_in_place_give_the_bits_of_gathered_columns() {
    let windows = [
        Window::square(7, 2, 3),
        Window::square(3, 1, 1),
        Window {
            kernel: [5, 3],
            stride: [1, 3],
            padding: [2, 0],
            dilation: [2, 1],
        },
    ];
    for window in windows {
        for [c, o] in [[1, 5], [3, 64], [5, 33]] {
            // Rows of more than one task; kernels larger than a map alone.
            let case = Case::new(&[[2, 30, 21], [1, 9, 100]], [c, o], window, 1);
            assert!(narrow::applies(&window, c));
            let Operands {
                x, weight, bias, ..
            } = case.operands();
            for (level, relu) in Level::available()
                .into_iter()
                .flat_map(|l| [(l, false), (l, true)])
            {
                let epilogue = Epilogue {
                    bias: relu.then_some(&bias[..]),
                    relu,
                };
                let (input, cells) = (&case.conv.input, case.output_shape()[0]);
                let [mut ours, mut gathered] = [(); 2].map(|()| vec![f32::NAN; cells * o]);
                let to = (Shared::new(&mut ours), o);
                narrow::forward(level, &window, input, (&x, c), &weight, epilogue, to);
                let to = (Shared::new(&mut gathered), Channels::all(o));
                let from = (&x[..], Channels::all(c));
                direct::forward(level, &window, input, from, &weight, epilogue, to);
                assert!(ours == gathered, "{level:?}, {case:?}, relu {relu}");
            }
        }
    }
}
