//! Against PyTorch, Burn's operations and finite differences.

use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::*;
use crate::kernels::testing::{
    assert_threads_change_nothing, check, dot, error, leaf, normal, slopes, tensor, values,
};
use crate::kernels::with_operations;
use crate::maps::Maps;
use crate::model::ops;
use crate::state::StateDict;

/// Against f64: weights, products and short sums in f32.
const TOLERANCE: f64 = 3e-7;
/// Of differences of a linear function: sums of some hundred roundings, over the step.
const DIFFERENCE_TOLERANCE: f64 = 1e-6;

fn run(x: &Tensor<4>, size: [usize; 2], scale: f64) -> Tensor<4> {
    ops::enlarge(&Maps::from_nchw(x.clone()), size, scale).nchw(0)
}

/// `tests/golden/model/make_enlarge_golden.py`
#[test]
fn value_and_gradient_agree_with_torch() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../tests/golden/model/enlarge.safetensors");
    let golden = StateDict::load(&path).unwrap();
    for case in 0..9 {
        let entry = |what: &str| &golden.entries[&format!("{case}/{what}")];
        let shape = |what: &str| <[usize; 4]>::try_from(entry(what).shape.clone()).unwrap();
        let scale = f64::from(entry("scale").data[0]);
        let [_, _, height, width] = shape("y");
        for operations in [false, true] {
            with_operations(operations, || {
                let x = leaf(&entry("x").data, shape("x"));
                let y = run(&x, [height, width], scale);
                let what = format_args!("case {case}, operations {operations}");
                let got = values(y.clone());
                check(what, error(&got, &entry("y").data), TOLERANCE);
                let upstream = tensor(&entry("upstream").data, shape("y"), &Device::flex());
                let gradients = (y * upstream).sum().backward();
                let dx = values(x.grad(&gradients).unwrap());
                check(what, error(&dx, &entry("dx").data), TOLERANCE);
            });
        }
    }
}

#[test]
fn a_peak_stays_at_its_pixel() {
    for scale in [1.5, 2.0, 2.5, 3.0, 4.0] {
        let (coarse, fine) = (7, (7.0 * scale) as usize);
        for cell in 0..coarse {
            // Cells of stride s stand for pixels i · s of their images.
            let peak = cell as f64 * scale;
            if peak.fract() != 0.0 {
                continue;
            }
            let mut x = vec![0.0; coarse];
            x[cell] = 1.0;
            let x = tensor(&x, [1, 1, 1, coarse], &Device::flex());
            let y = values(run(&x, [1, fine], scale));
            let highest = y.iter().position(|v| *v == 1.0).unwrap();
            assert_eq!(highest as f64, peak, "cell {cell}, scale {scale}: {y:?}");
            let others = y.iter().enumerate().filter(|(_, v)| **v == 1.0);
            // The last cell is read beyond its place too.
            assert!(others.count() == 1 || cell == coarse - 1, "{y:?}");
        }
    }
}

#[test]
fn the_same_grid_is_read_as_it_is() {
    let x = normal("same", 2 * 3 * 5 * 4);
    let map = tensor(&x, [2, 3, 5, 4], &Device::flex());
    for operations in [false, true] {
        let same = with_operations(operations, || values(run(&map, [5, 4], 1.0)));
        assert_eq!(same, x);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let (from, to, channels) = (Segment::new(2, 3, 2), Segment::new(2, 5, 4), 3);
    let shape = Enlargement {
        from,
        to,
        scale: 1.7,
    };
    let x = normal("enlarge slopes", from.cells() * channels);
    let upstream = normal("enlarge upstream", to.cells() * channels);
    let rows = [from.cells(), channels];
    let objective = |x: &[f32]| {
        let x = tensor(x, rows, &Device::flex());
        dot(&values(enlarge(x, shape)), &upstream)
    };
    let all: Vec<usize> = (0..x.len()).collect();
    let want = slopes(&x, &all, 1.0, objective);
    let leaf = leaf(&x, rows);
    let upstream = tensor(&upstream, [to.cells(), channels], &Device::flex());
    let gradients = (enlarge(leaf.clone(), shape) * upstream).sum().backward();
    let dx = values(leaf.grad(&gradients).unwrap());
    check(format_args!("x"), error(&dx, &want), DIFFERENCE_TOLERANCE);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (from, to, channels) = (Segment::new(3, 10, 11), Segment::new(3, 25, 27), 21);
    let shape = Enlargement {
        from,
        to,
        scale: 2.5,
    };
    let x = normal("enlarge threads", from.cells() * channels);
    assert_threads_change_nothing("enlargement", || {
        let leaf = leaf(&x, [from.cells(), channels]);
        let y = enlarge(leaf.clone(), shape);
        let gradients = y.clone().powi_scalar(2).sum().backward();
        vec![values(y), values(leaf.grad(&gradients).unwrap())]
    });
}
