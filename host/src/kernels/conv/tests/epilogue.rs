//! ReLU and the gradient that comes to it, where they could go wrong.

use burn::tensor::Device;

use super::*;

const SIZES: [[usize; 3]; 2] = [[4, 9, 8], [4, 4, 3]];

/// One convolution for each algorithm, with ReLU.
fn cases() -> [Case; 3] {
    [([5, 7], 1), ([17, 16], 1), ([9, 9], 9)].map(|(channels, groups)| {
        let mut case = Case::new(&SIZES, channels, Window::square(3, 1, 1), groups);
        case.conv.relu = true;
        assert_eq!(case.is_winograd(), channels == [17, 16]);
        case
    })
}

#[test]
fn a_gradient_that_others_want_too_stays_as_it_was() {
    for case in cases() {
        let operands = case.operands();
        let x = leaf(&operands.x, case.input_shape());
        let weight = leaf(&operands.weight, case.weight_shape());
        let bias = leaf(&operands.bias, [case.o]);
        let other = leaf(&vec![0.0; operands.upstream.len()], case.output_shape());
        let y = conv2d(x.clone(), weight, Some(bias), case.conv.clone()) + other.clone();
        let upstream = tensor(&operands.upstream, y.dims(), &Device::flex());
        let gradients = (y * upstream).sum().backward();
        assert_eq!(values(other.grad(&gradients).unwrap()), operands.upstream);
        let alone = on_the_tape(&case, &operands, true);
        assert_eq!(values(x.grad(&gradients).unwrap()), alone.dx);
    }
}

/// ReLU must not make a number of it: the loss would then hide that a run diverged.
#[test]
fn not_a_number_passes_relu() {
    for case in cases() {
        let mut operands = case.operands();
        let (clean, cells) = (on_the_tape(&case, &operands, true), case.input_shape()[0]);
        // The last cell of all: nothing but its map's corner sees it.
        operands.x[(cells - 1) * case.c] = f32::NAN;
        let broken = on_the_tape(&case, &operands, true);
        let last = &broken.y[(cells - 1) * case.o..];
        assert!(last[0].is_nan(), "{case:?}: {last:?}");
        let first = 9 * 8 * case.o;
        assert_eq!(broken.y[..first], clean.y[..first], "another image");
        assert!(broken.dw.iter().any(|dw| dw.is_nan()), "{case:?}");

        // A gradient passes where the output is no number.
        operands = case.operands();
        operands.bias[0] = f32::NAN;
        let broken = on_the_tape(&case, &operands, true);
        let sum: f32 = operands.upstream.iter().step_by(case.o).sum();
        assert!((broken.db[0] - sum).abs() < 1e-3 * sum.abs(), "{case:?}");
    }
}
