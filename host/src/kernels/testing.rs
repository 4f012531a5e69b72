//! What the kernels' tests share: values, errors, finite differences, threads.

use burn::tensor::{Device, Tensor, TensorData};

use crate::rng::KeyedRng;

/// `len` standard normal values of the stream `purpose`.
pub(crate) fn normal(purpose: &str, len: usize) -> Vec<f32> {
    let mut rng = KeyedRng::new(purpose, &[len as u64]);
    (0..len).map(|_| rng.normal() as f32).collect()
}

pub(crate) fn tensor<const D: usize>(
    values: &[f32],
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// A leaf with autodiff.
pub(crate) fn leaf<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    tensor(values, shape, &Device::flex().autodiff()).require_grad()
}

/// Row-major.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.inner().into_data().try_into_vec::<f32>().unwrap()
}

/// `‖got − want‖ / ‖want‖`; a reference of zeros has to be met exactly.
pub(crate) fn error<W: Into<f64> + Copy>(got: &[f32], want: &[W]) -> f64 {
    assert_eq!(got.len(), want.len(), "as many values as the reference");
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&got, &want) in got.iter().zip(want) {
        let want: f64 = want.into();
        difference += (f64::from(got) - want).powi(2);
        norm += want * want;
    }
    if norm == 0.0 && difference == 0.0 {
        return 0.0;
    }
    (difference / norm).sqrt()
}

/// Fails if `error` is not below `tolerance`; NaN is not.
#[track_caller]
pub(crate) fn check(what: std::fmt::Arguments<'_>, error: f64, tolerance: f64) {
    assert!(error < tolerance, "{what}: off by {error:e}");
}

/// `Σ a b`, in f64.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "as many factors as values");
    a.iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum()
}

/// Central differences of `objective` at `values` with respect to those in `picks`.
pub(crate) fn slopes(
    values: &[f32],
    picks: &[usize],
    step: f32,
    mut objective: impl FnMut(&[f32]) -> f64,
) -> Vec<f64> {
    let mut moved = values.to_vec();
    let mut slopes = Vec::with_capacity(picks.len());
    for &i in picks {
        let (above, below) = (values[i] + step, values[i] - step);
        moved[i] = above;
        let high = objective(&moved);
        moved[i] = below;
        let low = objective(&moved);
        moved[i] = values[i];
        slopes.push((high - low) / (f64::from(above) - f64::from(below)));
    }
    slopes
}

/// Runs on 1 to 4 threads and compares all results bit by bit.
pub(crate) fn assert_threads_change_nothing(what: &str, run: impl Fn() -> Vec<Vec<f32>> + Sync) {
    let on = |threads: usize| -> Vec<Vec<u32>> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let results = pool.install(&run);
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
        results.into_iter().map(bits).collect()
    };
    let one = on(1);
    assert!(one.iter().all(|result| !result.is_empty()), "{what}: empty");
    for threads in 2..=4 {
        assert!(on(threads) == one, "{what}: {threads} threads, other bits");
    }
}
