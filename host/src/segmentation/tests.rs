//! The loss and label maps: both forms against each other, edge cases, threads.

use std::path::Path;

use burn::tensor::Device;

use super::*;
use crate::data::{Batch, IGNORE_LABEL};
use crate::kernels::testing::{
    assert_threads_change_nothing, check, error, leaf, normal, slopes, tensor, values,
};
use crate::kernels::with_operations;
use crate::rng::KeyedRng;
use crate::state::{Array, StateDict};

/// Both forms sum in f32, in other orders.
const TOLERANCE: f64 = 2e-6;

/// `[N, K, h, w]` and `[H, W]`: enlarged by whole and broken factors, shrunk, one cell, many bands.
const CASES: [([usize; 4], [usize; 2]); 7] = [
    ([2, 3, 4, 5], [16, 20]),
    ([1, 11, 5, 4], [33, 29]),
    ([2, 21, 3, 3], [7, 8]),
    ([2, 8, 1, 1], [5, 6]),
    ([1, 2, 6, 9], [4, 5]),
    ([2, 1, 3, 2], [6, 4]),
    ([2, 19, 23, 40], [180, 320]),
];

fn batch(n: usize, [height, width]: [usize; 2], label_maps: Vec<u8>) -> Batch {
    Batch {
        images: vec![],
        shape: [n, 3, height, width],
        targets: vec![],
        label_maps,
        ..Batch::default()
    }
}

/// A quarter of the pixels is not labelled.
fn labels(len: usize, classes: usize) -> Vec<u8> {
    let mut rng = KeyedRng::new("label maps", &[len as u64]);
    (0..len)
        .map(|_| match rng.below(4) {
            0 => IGNORE_LABEL,
            _ => rng.below(classes) as u8,
        })
        .collect()
}

fn loss_and_gradient(logits: &[f32], shape: [usize; 4], batch: &Batch) -> [Vec<f32>; 2] {
    let leaf = leaf(logits, shape);
    let loss = cross_entropy(&leaf, batch);
    // Not 1, so that the upstream gradient counts.
    let gradients = (loss.clone() * 3.0).backward();
    [values(loss), values(leaf.grad(&gradients).unwrap())]
}

#[test]
fn the_kernel_equals_the_composed_form() {
    for (shape @ [n, k, ..], size) in CASES {
        let mut logits = normal("logits", shape.iter().product());
        // From certain to wrong.
        logits.iter_mut().for_each(|logit| *logit *= 4.0);
        let batch = batch(n, size, labels(n * size[0] * size[1], k));
        let [loss, gradient] = loss_and_gradient(&logits, shape, &batch);
        let [want, want_gradient] =
            with_operations(true, || loss_and_gradient(&logits, shape, &batch));
        let what = format_args!("{shape:?} to {size:?}");
        check(what, error(&loss, &want), TOLERANCE);
        check(what, error(&gradient, &want_gradient), TOLERANCE);
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let (shape, size) = ([2, 3, 2, 3], [7, 9]);
    let batch = batch(2, size, labels(2 * 63, 3));
    let logits = normal("slopes", shape.iter().product());
    let all: Vec<usize> = (0..logits.len()).collect();
    let want = slopes(&logits, &all, 3e-2, |logits| {
        let logits = tensor(logits, shape, &Device::flex());
        3.0 * f64::from(values(cross_entropy(&logits, &batch))[0])
    });
    let [_, gradient] = loss_and_gradient(&logits, shape, &batch);
    // f32 rounding of the loss over the step, and the step's square.
    check(format_args!("logits"), error(&gradient, &want), 1e-3);
}

#[test]
fn without_labelled_pixels_loss_and_gradient_are_nothing() {
    let (shape, size) = ([2, 3, 2, 2], [8, 8]);
    let batch = batch(2, size, vec![IGNORE_LABEL; 128]);
    let logits = normal("unlabelled", 24);
    for operations in [false, true] {
        let [loss, gradient] =
            with_operations(operations, || loss_and_gradient(&logits, shape, &batch));
        assert_eq!(loss, [0.0]);
        assert!(gradient.iter().all(|&g| g == 0.0), "{gradient:?}");
    }
}

#[test]
fn large_logits_give_finite_losses_and_broken_ones_are_not_hidden() {
    let (shape, size) = ([1, 3, 1, 1], [2, 2]);
    let batch = batch(1, size, vec![2; 4]);
    let [loss, gradient] = loss_and_gradient(&[1e4, -1e4, 0.0], shape, &batch);
    assert_eq!(loss, [1e4]);
    assert_eq!([gradient[0], gradient[2]], [3.0, -3.0]);
    // The kernel's exponential ends at the last number before subnormal ones.
    assert!((0.0..1e-37).contains(&gradient[1]), "{gradient:?}");
    for broken in [f32::NAN, f32::INFINITY] {
        let [loss, _] = loss_and_gradient(&[broken, 0.0, 1.0], shape, &batch);
        assert!(!loss[0].is_finite(), "{broken}");
    }
}

#[test]
#[should_panic(expected = "label 3 is on 2 pixels, but the model has 3 classes")]
fn a_label_that_is_no_class_is_refused() {
    let batch = batch(1, [2, 2], vec![0, 3, 3, IGNORE_LABEL]);
    let logits = tensor(&[0.0; 3], [1, 3, 1, 1], &Device::flex());
    let _ = cross_entropy(&logits, &batch);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (shape @ [n, k, ..], size) = CASES[6];
    let logits = normal("threads", shape.iter().product());
    let batch = batch(n, size, labels(n * size[0] * size[1], k));
    assert_threads_change_nothing("cross-entropy", || {
        loss_and_gradient(&logits, shape, &batch).to_vec()
    });
}

#[test]
fn label_maps_are_cut_and_mirrored_back() {
    // Class 1 on the left half of the input, class 0 on the right; the last quarter is padding.
    let cells: Vec<f32> = [[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]].concat();
    let logits = tensor(&cells, [1, 2, 1, 4], &Device::flex());
    let view = View {
        input_size: [4, 16],
        size: [3, 12],
        original_size: [3, 12],
        flipped: false,
    };
    let map = label_map(&logits, 0, &view);
    assert_eq!(map.size, [3, 12]);
    let row = [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0];
    assert_eq!(map.data, [row, row, row].concat());
    let flipped = label_map(
        &logits,
        0,
        &View {
            flipped: true,
            ..view
        },
    );
    let mut mirrored = row;
    mirrored.reverse();
    assert_eq!(flipped.data[..12], mirrored);
}

fn golden() -> StateDict {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("../tests/golden/segmentation/pixels.safetensors");
    StateDict::load(&path).unwrap()
}

fn bytes(array: &Array) -> Vec<u8> {
    array.data.iter().map(|&label| label as u8).collect()
}

fn shape(array: &Array) -> [usize; 4] {
    array.shape.clone().try_into().unwrap()
}

/// Against PyTorch in f64: `tests/golden/segmentation/make_segmentation_golden.py`.
#[test]
fn loss_and_gradient_agree_with_torch() {
    let golden = golden();
    for case in 0..4 {
        let entry = |what: &str| &golden.entries[&format!("loss/{case}/{what}")];
        let (logits, labels) = (entry("logits"), entry("labels"));
        let [n, height, width]: [usize; 3] = labels.shape.clone().try_into().unwrap();
        let batch = batch(n, [height, width], bytes(labels));
        let ignored = batch.label_maps.iter().filter(|&&l| l == IGNORE_LABEL);
        assert!(ignored.count() > 0);
        for operations in [false, true] {
            let [loss, gradient] = with_operations(operations, || {
                loss_and_gradient(&logits.data, shape(logits), &batch)
            });
            let gradient: Vec<f32> = gradient.iter().map(|g| g / 3.0).collect();
            let what = format_args!("case {case}, operations {operations}");
            check(what, error(&loss, &entry("value").data), TOLERANCE);
            check(what, error(&gradient, &entry("gradient").data), TOLERANCE);
        }
    }
}

#[test]
fn label_maps_agree_with_torch() {
    let golden = golden();
    for case in 0..4 {
        let entry = |what: &str| &golden.entries[&format!("map/{case}/{what}")];
        let (logits, view) = (entry("logits"), bytes(entry("view")));
        let size = |at: usize| [usize::from(view[at]), usize::from(view[at + 1])];
        let view = View {
            input_size: size(0),
            size: size(2),
            original_size: size(4),
            flipped: view[6] == 1,
        };
        let want = bytes(entry("labels"));
        let [height, width] = view.original_size;
        let tensor = tensor(&logits.data, shape(logits), &Device::flex());
        for (index, want) in want.chunks_exact(height * width).enumerate() {
            let map = label_map(&tensor, index, &view);
            assert_eq!(map.size, view.original_size);
            // The reference has no two classes within rounding of each other.
            assert_eq!(map.data, want, "case {case}, image {index}");
        }
    }
}
