//! Softmax cross-entropy over pixels.

use burn::tensor::{Tensor, TensorData};

use super::composed;
use crate::data::{Batch, IGNORE_LABEL};
use crate::host_values::HostValues;
use crate::kernels::maps::Segment;
use crate::kernels::{cross_entropy as kernel, is_for_kernels};
use crate::known_gradient::with_known_gradient;

/// Mean cross-entropy over the labelled pixels of a batch: PyTorch's `cross_entropy(ignore_index = 255)`
/// of logits that `interpolate(mode = "bilinear", align_corners = False)` brought to the size of the
/// network input.
///
/// # Shapes
/// - `logits`: `[N, K, h, w]`, f32; `batch.label_maps`: `[N, H, W]`
/// - result: `[1]`, nats, the mean over all labelled pixels of the batch
///
/// # Gradients
/// With respect to `logits`. Where no pixel is labelled the loss is 0 and so is its gradient.
///
/// # Panics
/// If the batch has no label maps, or a label that is neither below `K` nor [`IGNORE_LABEL`]: data sets
/// check what they load.
#[must_use]
pub fn cross_entropy(logits: &Tensor<4>, batch: &Batch) -> Tensor<1> {
    let [n, k, h, w] = logits.dims();
    let [images, _, height, width] = batch.shape;
    let labels = &batch.label_maps;
    assert_eq!(n, images, "logits of another batch");
    assert_eq!(
        labels.len(),
        n * height * width,
        "the batch has no label for each of its pixels"
    );
    let labelled = count_labelled(labels, k);
    if !is_for_kernels(logits) {
        return composed::cross_entropy(logits, labels, [height, width], labelled);
    }
    // As the classifier wrote them: classes side by side.
    let logits = logits.clone().permute([0, 2, 3, 1]);
    let values = HostValues::of(&logits);
    let grid = Segment::new(n, h, w);
    let (value, gradient) = kernel::cross_entropy(grid, values.as_slice(), labels, [height, width]);
    let device = logits.device().inner();
    let value = Tensor::from_data(TensorData::from([value]), &device);
    let gradient = Tensor::from_data(TensorData::new(gradient, logits.dims()), &device);
    with_known_gradient(logits, value, gradient)
}

/// # Panics
/// On a label that is no class.
fn count_labelled(labels: &[u8], classes: usize) -> usize {
    let mut counts = [0_usize; 256];
    for &label in labels {
        counts[usize::from(label)] += 1;
    }
    let ignored = usize::from(IGNORE_LABEL);
    for (label, &count) in counts.iter().enumerate() {
        let is_class = label < classes || label == ignored || count == 0;
        assert!(
            is_class,
            "label {label} is on {count} pixels, but the model has {classes} classes; a data set gives \
             0 to {} or {ignored} for `not labelled`",
            classes - 1
        );
    }
    labels.len() - counts[ignored]
}
