//! The loss of classifiers.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, TensorData};

/// Mean softmax cross-entropy: PyTorch's `cross_entropy`.
///
/// # Shapes
/// - `logits`: `[N, K]`; `labels`: `N` classes below `K`
/// - result: `[1]`, nats, the mean over the images
///
/// # Gradients
/// With respect to `logits`.
///
/// # Panics
/// If there is not a label for each image, or one that is no class: data sets check what they load.
#[must_use]
pub fn cross_entropy(logits: &Tensor<2>, labels: &[usize]) -> Tensor<1> {
    let [images, classes] = logits.dims();
    assert_eq!(labels.len(), images, "a label for each image of the batch");
    let mut weights = vec![0.0f32; images * classes];
    for (row, &label) in weights.chunks_exact_mut(classes).zip(labels) {
        assert!(label < classes, "label {label} of {classes} classes");
        row[label] = -1.0 / images as f32;
    }
    let device = logits.device().inner();
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [images, classes]), &device);
    let weights = match logits.device().is_autodiff() {
        true => Tensor::from_inner(weights),
        false => weights,
    };
    (log_softmax(logits.clone(), 1) * weights).sum()
}

#[cfg(test)]
mod tests;
