//! Group normalisation: the kernels and the operations of other devices do the same.

use burn::tensor::Device;

use crate::kernels::testing::{check, error, leaf, normal, tensor, values};
use crate::kernels::with_operations;
use crate::maps::{Maps, Segment};
use crate::model::ops;

/// Two ways to sum in f32.
const TOLERANCE: f64 = 2e-6;

#[test]
fn both_forms_agree() {
    let segments = [
        Segment::new(2, 9, 7),
        Segment::new(2, 3, 2),
        Segment::new(2, 1, 1),
    ];
    let shape = [2 * (63 + 6 + 1), 12];
    let len = shape[0] * shape[1];
    for (groups, relu) in [(1, false), (4, true), (12, true)] {
        let run = |on_operations: bool| {
            with_operations(on_operations, || {
                let x = leaf(&normal("x", len), shape);
                let gamma = leaf(&normal("gamma", 12), [12]);
                let beta = leaf(&normal("beta", 12), [12]);
                let maps = Maps::new(x.clone(), segments);
                let y = ops::group_norm(&maps, gamma.clone(), beta.clone(), groups, relu);
                assert_eq!(y.segments(), maps.segments());
                let upstream = tensor(&normal("upstream", len), shape, &Device::flex());
                let gradients = (y.cells().clone() * upstream).sum().backward();
                [
                    values(y.cells().clone()),
                    values(x.grad(&gradients).unwrap()),
                    values(gamma.grad(&gradients).unwrap()),
                    values(beta.grad(&gradients).unwrap()),
                ]
            })
        };
        for (kernels, operations) in run(false).iter().zip(&run(true)) {
            let what = format_args!("{groups} groups, relu {relu}");
            check(what, error(operations, kernels), TOLERANCE);
        }
    }
}

#[test]
#[should_panic(expected = "5 groups do not divide 12 channels")]
fn groups_divide_the_channels() {
    let x = tensor(&[0.0; 12], [1, 12], &Device::flex());
    let one = || tensor(&[1.0; 12], [12], &Device::flex());
    let maps = Maps::new(x, [Segment::new(1, 1, 1)]);
    let _ = ops::group_norm(&maps, one(), one(), 5, false);
}
