//! The loss in Burn's operations: for devices other than the CPU, and what the kernel is tested against.

use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::data::IGNORE_LABEL;
use crate::kernels::bilinear::Axis;

/// As [`super::cross_entropy`], with `labelled` pixels among `labels` `[N, H, W]`.
pub(super) fn cross_entropy(
    logits: &Tensor<4>,
    labels: &[u8],
    [height, width]: [usize; 2],
    labelled: usize,
) -> Tensor<1> {
    let [n, _, h, w] = logits.dims();
    let device = logits.device().inner();
    let rows = matrix(&Axis::new(height, h)).to_device(&device);
    let columns = matrix(&Axis::new(width, w)).to_device(&device);
    // [H, h] × [N, K, h, w] × [w, W]: each axis of the grid by itself.
    let large = rows
        .unsqueeze::<4>()
        .matmul(logits.clone().matmul(columns.transpose().unsqueeze::<4>()));
    let shape = [n, 1, height, width];
    let indices = labels.iter().map(|&label| {
        let class = if label == IGNORE_LABEL { 0 } else { label };
        i64::from(class)
    });
    let indices = TensorData::new(indices.collect::<Vec<i64>>(), shape);
    let indices = Tensor::<4, Int>::from_data(indices, &device);
    // Each labelled pixel's share of the mean.
    let share = 1.0 / labelled.max(1) as f32;
    let weights = labels
        .iter()
        .map(|&label| if label == IGNORE_LABEL { 0.0 } else { share });
    let weights = TensorData::new(weights.collect::<Vec<f32>>(), shape);
    let weights = Tensor::<4>::from_data(weights, &device);
    let picked = activation::log_softmax(large, 1).gather(1, indices);
    (picked * weights).sum().neg()
}

/// `[fine, coarse]`: the rows that make the fine axis of the coarse one.
fn matrix(axis: &Axis) -> Tensor<2> {
    let mut values = vec![0.0; axis.taps.len() * axis.coarse];
    for (row, tap) in values.chunks_exact_mut(axis.coarse).zip(&axis.taps) {
        row[tap.low] += 1.0 - tap.weight;
        row[tap.high] += tap.weight;
    }
    let data = TensorData::new(values, [axis.taps.len(), axis.coarse]);
    Tensor::from_data(data, &burn::tensor::Device::flex())
}
