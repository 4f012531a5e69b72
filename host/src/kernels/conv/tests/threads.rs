//! Bits on any number of threads.

use super::*;
use crate::kernels::testing::assert_threads_change_nothing;

/// Several tasks of each kind of work.
const SIZES: [[usize; 3]; 3] = [[2, 30, 31], [2, 15, 16], [2, 4, 3]];

#[test]
fn the_number_of_threads_changes_no_bit() {
    let direct = Window::square(5, 1, 2);
    let cases = [
        ("direct", [9, 33], direct, 1),
        ("direct, many columns", [270, 5], Window::square(1, 1, 0), 1),
        ("strided", [17, 18], Window::square(3, 2, 1), 1),
        ("grouped", [12, 18], Window::square(3, 1, 1), 3),
        ("Winograd", [33, 70], Window::square(3, 1, 1), 1),
        ("depthwise", [37, 37], Window::square(3, 1, 1), 37),
        ("strided depthwise", [19, 19], Window::square(3, 2, 1), 19),
    ];
    for (name, channels, window, groups) in cases {
        let mut case = Case::new(&SIZES, channels, window, groups);
        assert_eq!(case.is_winograd(), name == "Winograd");
        let operands = case.operands();
        for relu in [false, true] {
            case.conv.relu = relu;
            assert_threads_change_nothing(name, || {
                let Results { y, dx, dw, db } = on_the_tape(&case, &operands, true);
                vec![y, dx, dw, db]
            });
        }
    }
}
