//! Against PyTorch's values, and slopes.

use std::path::Path;

use super::*;
use crate::kernels::testing::{error, leaf, values};
use crate::state::StateDict;

/// Sums of a few f32 terms in another order.
const TOLERANCE: f64 = 1e-6;

fn golden() -> StateDict {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/classification/cross_entropy.safetensors");
    StateDict::load(&path).unwrap()
}

#[test]
fn value_and_gradient_are_pytorchs() {
    let golden = golden();
    for case in ["spec", "random", "extreme"] {
        let entry = |name: &str| &golden.entries[&format!("{case}/{name}")];
        let logits = entry("logits");
        let labels: Vec<usize> = entry("labels").data.iter().map(|&l| l as usize).collect();
        let shape = [logits.shape[0], logits.shape[1]];
        let leaf = leaf(&logits.data, shape);
        let loss = cross_entropy(&leaf, &labels);
        let gradients = (loss.clone() * 3.0).backward();
        let gradient: Vec<f32> = entry("gradient").data.iter().map(|g| 3.0 * g).collect();
        let close = |ours: &[f32], theirs: &[f32]| {
            let distance = error(ours, theirs);
            assert!(distance < TOLERANCE, "{case}: {distance}");
        };
        close(&values(loss), &entry("loss").data);
        close(&values(leaf.grad(&gradients).unwrap()), &gradient);
    }
}

#[test]
#[should_panic(expected = "label 3 of 3 classes")]
fn a_label_that_is_no_class_is_a_bug() {
    let _ = cross_entropy(&leaf(&[0.0; 3], [1, 3]), &[3]);
}
