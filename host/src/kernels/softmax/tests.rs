//! Against f64, by finite differences, on any number of threads.

use burn::tensor::Device;

use super::*;
use crate::kernels::testing::{
    assert_threads_change_nothing, check, dot, error, leaf, normal, slopes, tensor, values,
};

/// `exp` is good to 2e-7, and a sum of f32.
const TOLERANCE: f64 = 1e-6;
const STEP: f32 = 1e-2;

struct Case {
    shape: [usize; 2],
    x: Vec<f32>,
    upstream: Vec<f32>,
}

impl Case {
    fn new(rows: usize, len: usize) -> Self {
        let x = normal("x", rows * len);
        Case {
            shape: [rows, len],
            x: x.into_iter().map(|x| 3.0 * x).collect(),
            upstream: normal("upstream", rows * len),
        }
    }

    /// Output and gradient.
    fn ours(&self) -> [Vec<f32>; 2] {
        let x = leaf(&self.x, self.shape);
        let y = softmax(x.clone());
        let upstream: Tensor<2> = tensor(&self.upstream, self.shape, &Device::flex());
        let gradients = (y.clone() * upstream).sum().backward();
        [values(y), values(x.grad(&gradients).unwrap())]
    }

    fn reference(&self) -> [Vec<f64>; 2] {
        let [_, len] = self.shape;
        let (mut all, mut gradient) = (Vec::new(), Vec::new());
        for (x, dy) in self.x.chunks(len).zip(self.upstream.chunks(len)) {
            let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exps = x.iter().map(|&x| (f64::from(x) - f64::from(top)).exp());
            let exps: Vec<f64> = exps.collect();
            let total: f64 = exps.iter().sum();
            let y: Vec<f64> = exps.iter().map(|e| e / total).collect();
            let inner: f64 = y.iter().zip(dy).map(|(y, &dy)| y * f64::from(dy)).sum();
            gradient.extend(y.iter().zip(dy).map(|(y, &dy)| y * (f64::from(dy) - inner)));
            all.extend(y);
        }
        [all, gradient]
    }
}

#[test]
fn value_and_gradient_are_the_formulas() {
    for [rows, len] in [[1, 2], [5, 15], [3, 16], [7, 50], [40, 197], [3, 20_000]] {
        let case = Case::new(rows, len);
        let names = ["y", "dx"];
        let [y, _] = case.reference();
        for ((name, ours), want) in names.iter().zip(case.ours()).zip(case.reference()) {
            // A gradient is a difference of products: it is as exact as they are, also where little is
            // left of them.
            let products = y.iter().zip(&case.upstream);
            let products: f64 = products.map(|(y, dy)| (y * f64::from(*dy)).powi(2)).sum();
            let norm: f64 = want.iter().map(|w| w * w).sum();
            let left = match *name {
                "dx" => (norm / products).sqrt().min(1.0),
                _ => 1.0,
            };
            let what = format_args!("{rows}x{len} {name}");
            check(what, left * error(&ours, &want), TOLERANCE);
        }
    }
}

#[test]
fn a_single_value_is_one() {
    let case = Case::new(4, 1);
    let [y, dx] = case.ours();
    assert_eq!((y, dx), (vec![1.0; 4], vec![0.0; 4]));
}

#[test]
fn large_values_do_not_overflow_and_nan_stays_in_its_row() {
    let case = Case {
        shape: [3, 3],
        x: vec![1e4, 0.0, -1e4, 1.0, f32::NAN, 2.0, 5.0, 5.0, -1e30],
        upstream: vec![1.0; 9],
    };
    let [y, _] = case.ours();
    assert_eq!(y[0], 1.0);
    assert!(y[1] < 1e-37 && y[2] < 1e-37, "{y:?}");
    assert!(y[3..6].iter().all(|y| y.is_nan()), "{y:?}");
    assert_eq!(y[6..8], [0.5, 0.5]);
}

#[test]
fn the_gradient_matches_finite_differences() {
    let case = Case::new(3, 21);
    let [_, dx] = case.ours();
    let picks: Vec<usize> = (0..63).collect();
    let want = slopes(&case.x, &picks, STEP, |x| {
        let moved = Case {
            x: x.to_vec(),
            ..Case::new(3, 21)
        };
        dot(&moved.ours()[0], &case.upstream)
    });
    check(format_args!("dx"), error(&dx, &want), 5e-4);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let case = Case::new(700, 77);
    assert_threads_change_nothing("softmax", || case.ours().to_vec());
}
