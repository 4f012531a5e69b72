//! Bits on any number of threads.

use super::*;
use crate::kernels::testing::assert_threads_change_nothing;

/// Several tasks of each kind of work.
const SIZES: [[usize; 3]; 3] = [[2, 30, 31], [2, 15, 16], [2, 4, 3]];

/// Forward and all gradients, with and without ReLU.
fn assert_same_bits(channels: [usize; 2], window: Window, groups: usize, is_winograd: bool) {
    let mut case = Case::new(&SIZES, channels, window, groups);
    assert_eq!(case.is_winograd(), is_winograd);
    let operands = case.operands();
    for relu in [false, true] {
        case.conv.relu = relu;
        assert_threads_change_nothing(&format!("{case:?}"), || {
            let Results { y, dx, dw, db } = on_the_tape(&case, &operands, true);
            vec![y, dx, dw, db]
        });
    }
}

#[test]
fn direct_convolution_gives_the_same_bits() {
    assert_same_bits([9, 33], Window::square(5, 1, 2), 1, false);
    assert_same_bits([17, 18], Window::square(3, 2, 1), 1, false);
    assert_same_bits([12, 18], Window::square(3, 1, 1), 3, false);
    // More columns of the weight gradient than a block has.
    assert_same_bits([270, 5], Window::square(1, 1, 0), 1, false);
}

#[test]
fn winograd_gives_the_same_bits() {
    assert_same_bits([33, 70], Window::square(3, 1, 1), 1, true);
    assert_same_bits([16, 16], Window::square(3, 1, 1), 1, true);
}

#[test]
fn depthwise_convolution_gives_the_same_bits() {
    assert_same_bits([37; 2], Window::square(3, 1, 1), 37, false);
    assert_same_bits([19; 2], Window::square(3, 2, 1), 19, false);
}
