//! Against an integral in f64, by finite differences, on any number of threads.

use burn::tensor::Device;

use super::*;
use crate::kernels::testing::{
    assert_threads_change_nothing, check, error, leaf, normal, slopes, tensor, values,
};

/// The approximation's 4.5e-7 and roundings, on values of magnitude 1.
const TOLERANCE: f64 = 1e-6;
/// Of one value, absolute.
const WORST: f64 = 2e-6;
const STEP: f32 = 1e-2;

/// `Φ(x) - 1/2` by Simpson's rule on the density, with steps so small that f64's rounding is what is left.
fn above_half(x: f64) -> f64 {
    let steps = 2000;
    let h = x / f64::from(steps);
    let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let inner: f64 = (1..steps)
        .map(|i| density(h * f64::from(i)) * if i % 2 == 1 { 4.0 } else { 2.0 })
        .sum();
    h / 3.0 * (density(0.0) + inner + density(x))
}

/// Value and slope.
fn reference(x: f32) -> [f64; 2] {
    let x = f64::from(x);
    let below = 0.5 + above_half(x);
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    [x * below, below + x * density]
}

/// Value, and the gradient for an upstream of ones.
fn ours(x: &[f32]) -> [Vec<f32>; 2] {
    let leaf = leaf(x, [x.len()]);
    let y = gelu(leaf.clone());
    let gradients = y.clone().sum().backward();
    [values(y), values(leaf.grad(&gradients).unwrap())]
}

#[test]
fn value_and_slope_are_those_of_the_normal_distribution() {
    let x: Vec<f32> = (-900..=900).map(|i| i as f32 / 100.0).collect();
    let [y, slope] = ours(&x);
    let want: Vec<[f64; 2]> = x.iter().map(|&x| reference(x)).collect();
    for (which, ours) in [y, slope].into_iter().enumerate() {
        let want: Vec<f64> = want.iter().map(|want| want[which]).collect();
        check(format_args!("{which}"), error(&ours, &want), TOLERANCE);
        for (i, (ours, want)) in ours.iter().zip(want).enumerate() {
            let off = (f64::from(*ours) - want).abs();
            assert!(off < WORST, "{which} at {}: off by {off:e}", x[i]);
        }
    }
}

#[test]
fn far_values_are_the_identity_or_nothing() {
    let [y, slope] = ours(&[-3e38, -60.0, 0.0, 60.0, 3e38]);
    assert_eq!(y, [0.0, 0.0, 0.0, 60.0, 3e38]);
    assert_eq!(slope, [0.0, 0.0, 0.5, 1.0, 1.0]);
}

#[test]
fn nan_stays() {
    let [y, slope] = ours(&[f32::NAN, 1.0]);
    assert!(y[0].is_nan() && slope[0].is_nan() && y[1].is_finite());
}

#[test]
fn slopes_match_finite_differences() {
    let x = normal("x", 40);
    let [_, slope] = ours(&x);
    let picks: Vec<usize> = (0..40).collect();
    let want = slopes(&x, &picks, STEP, |x| {
        ours(x)[0].iter().map(|&y| f64::from(y)).sum()
    });
    check(format_args!("slope"), error(&slope, &want), 1e-4);
}

#[test]
fn a_plain_tensor_has_the_same_values() {
    let x = normal("x", 333);
    let plain = gelu(tensor(&x, [333], &Device::flex()));
    assert_eq!(
        plain.into_data().try_into_vec::<f32>().unwrap(),
        ours(&x)[0]
    );
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let x = normal("x", 5 * CHUNK + 17);
    assert_threads_change_nothing("GELU", || ours(&x).to_vec());
}
