//! Against Burn's interpolation and addition, and finite differences.

use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn::tensor::{Device, Tensor};

use super::*;
use crate::kernels::testing::{
    assert_threads_change_nothing, check, dot, error, leaf, normal, slopes, tensor, values,
};
use crate::maps::Maps;

/// Sums of a dozen values in another order.
const TOLERANCE: f64 = 3e-7;
/// Of differences of a linear function: sums of some hundred roundings, over the step.
const DIFFERENCE_TOLERANCE: f64 = 1e-6;

/// Coarse and fine `[h, w]`.
const SIZES: [[[usize; 2]; 2]; 8] = [
    [[1, 1], [1, 1]],
    [[1, 1], [4, 3]],
    [[2, 3], [4, 6]],
    [[4, 4], [4, 4]],
    [[5, 7], [13, 9]],
    [[7, 5], [9, 13]],
    [[3, 10], [5, 19]],
    [[8, 1], [15, 2]],
];

fn ours(fine: &Tensor<4>, coarse: &Tensor<4>) -> Tensor<4> {
    let [fine, coarse] = [fine, coarse].map(|map| Maps::from_nchw(map.clone()));
    let (to, from) = (fine.segment(), coarse.segment());
    let y = upsample_add(fine.cells().clone(), coarse.cells().clone(), to, from);
    Maps::new(y, [to]).nchw(0)
}

fn burns(fine: &Tensor<4>, coarse: &Tensor<4>) -> Tensor<4> {
    let [_, _, h, w] = fine.dims();
    let options = InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([h, w]);
    fine.clone() + interpolate(coarse.clone(), options)
}

#[test]
fn value_and_gradients_equal_burns_own() {
    for [coarse, fine] in SIZES {
        for channels in [1, 3, 17] {
            let shape = |[h, w]: [usize; 2]| [2, channels, h, w];
            let random =
                |purpose: &str, size: [usize; 2]| normal(purpose, shape(size).iter().product());
            let f = leaf(&random("fine", fine), shape(fine));
            let c = leaf(&random("coarse", coarse), shape(coarse));
            let case = format!("{coarse:?} to {fine:?}, {channels} channels");
            let y = ours(&f, &c);
            let want = burns(&f, &c);
            // One addition of the same two values.
            assert_eq!(values(y.clone()), values(want.clone()), "{case}");
            let upstream = random("upstream", fine);
            let plain = tensor(&upstream, shape(fine), &Device::flex());
            let gradients = |y: Tensor<4>| {
                let gradients = (y * plain.clone()).sum().backward();
                [&f, &c].map(|leaf| values(leaf.grad(&gradients).unwrap()))
            };
            let [d_fine, d_coarse] = gradients(y);
            let [_, want] = gradients(want);
            assert_eq!(d_fine, upstream, "{case}");
            check(format_args!("{case}"), error(&d_coarse, &want), TOLERANCE);
        }
    }
}

#[test]
fn sources_are_those_of_torch() {
    // floor(i * coarse / fine), by hand.
    let of = |coarse: usize, fine: usize| {
        let row: Vec<f32> = (0..coarse).map(|i| i as f32).collect();
        let y = upsample_add(
            tensor(&vec![0.0; fine], [fine, 1], &Device::flex()),
            tensor(&row, [coarse, 1], &Device::flex()),
            Segment::new(1, 1, fine),
            Segment::new(1, 1, coarse),
        );
        values(y)
    };
    assert_eq!(
        of(5, 13),
        [0., 0., 0., 1., 1., 1., 2., 2., 3., 3., 3., 4., 4.]
    );
    assert_eq!(of(7, 9), [0., 0., 1., 2., 3., 3., 4., 5., 6.]);
}

#[test]
fn gradients_equal_finite_differences() {
    let (to, from, channels) = (Segment::new(2, 5, 4), Segment::new(2, 3, 2), 3);
    let rows = |segment: Segment| [segment.cells(), channels];
    let fine = normal("fine slopes", to.cells() * channels);
    let coarse = normal("coarse slopes", from.cells() * channels);
    let upstream = normal("upstream slopes", fine.len());
    let objective = |fine: &[f32], coarse: &[f32]| {
        let fine = tensor(fine, rows(to), &Device::flex());
        let coarse = tensor(coarse, rows(from), &Device::flex());
        dot(&values(upsample_add(fine, coarse, to, from)), &upstream)
    };
    let all: Vec<usize> = (0..fine.len()).collect();
    let d_fine = slopes(&fine, &all, 1.0, |fine| objective(fine, &coarse));
    let all = &all[..coarse.len()];
    let d_coarse = slopes(&coarse, all, 1.0, |coarse| objective(&fine, coarse));
    let leaves = [leaf(&fine, rows(to)), leaf(&coarse, rows(from))];
    let y = upsample_add(leaves[0].clone(), leaves[1].clone(), to, from);
    let upstream = tensor(&upstream, rows(to), &Device::flex());
    let gradients = (y * upstream).sum().backward();
    for (name, leaf, want) in [
        ("fine", &leaves[0], d_fine),
        ("coarse", &leaves[1], d_coarse),
    ] {
        let error = error(&values(leaf.grad(&gradients).unwrap()), &want);
        check(format_args!("{name}"), error, DIFFERENCE_TOLERANCE);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (to, from, channels) = (Segment::new(3, 19, 22), Segment::new(3, 10, 11), 21);
    let fine = normal("fine threads", to.cells() * channels);
    let coarse = normal("coarse threads", from.cells() * channels);
    assert_threads_change_nothing("upsampling", || {
        let leaves = [
            leaf(&fine, [to.cells(), channels]),
            leaf(&coarse, [from.cells(), channels]),
        ];
        let y = upsample_add(leaves[0].clone(), leaves[1].clone(), to, from);
        let gradients = y.clone().powi_scalar(2).sum().backward();
        let [d_fine, d_coarse] = leaves.map(|leaf| values(leaf.grad(&gradients).unwrap()));
        vec![values(y), d_fine, d_coarse]
    });
}
