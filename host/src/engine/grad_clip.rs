//! Clipping of gradients, as torch.nn.utils.clip_grad_norm_ and clip_grad_value_.

use rayon::prelude::*;

mod of_values;

pub use of_values::{clip, norm};

/// Values summed by one task. A constant, so that the order of additions, and with it every bit of
/// the norm, does not depend on the number of threads.
const CHUNK: usize = 1 << 14;
/// Independent partial sums within a chunk, so that the compiler can use vector registers.
const LANES: usize = 8;
/// torch's guard against division by zero.
const EPSILON: f64 = 1e-6;

/// A gradient holds a NaN or an infinity.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "the gradient of `{name}` is {value} at element {index}; lower `train.lr` or set \
     `train.grad_clip_norm`, and look at the loss terms of the last steps"
)]
pub struct NonFiniteGradient {
    /// The first such tensor, in the order given.
    pub name: String,
    /// Its first such element.
    pub index: usize,
    /// The element.
    pub value: f32,
}

/// L2 norm over all gradients together, accumulated in f64.
///
/// # Errors
/// If an element is not finite.
pub fn global_norm(gradients: &[(&str, &[f32])]) -> Result<f64, NonFiniteGradient> {
    let total: f64 = gradients
        .iter()
        .map(|(_, values)| sum_of_squares(values))
        .sum();
    // The square of a finite f32 and any sum of them are finite in f64.
    if total.is_finite() {
        return Ok(total.sqrt());
    }
    for (name, values) in gradients {
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(NonFiniteGradient {
                name: (*name).to_owned(),
                index,
                value: values[index],
            });
        }
    }
    unreachable!("a sum of squares of finite f32 values is finite in f64")
}

/// What gradients of norm `norm` are multiplied by: `max_norm / (norm + 1e-6)`, at most 1.
/// `max_norm` 0 means no clipping.
#[must_use]
pub fn clip_coefficient(norm: f64, max_norm: f64) -> f64 {
    if max_norm == 0.0 {
        return 1.0;
    }
    (max_norm / (norm + EPSILON)).min(1.0)
}

/// Scales all gradients so that their global norm is at most `max_norm` (0: leaves them alone).
/// Returns the norm before.
///
/// # Errors
/// If an element is not finite; nothing is changed then.
pub fn clip_global_norm(
    gradients: &mut [(&str, &mut [f32])],
    max_norm: f64,
) -> Result<f64, NonFiniteGradient> {
    let norm = global_norm(&views(gradients))?;
    clip_known_norm(gradients, norm, max_norm);
    Ok(norm)
}

/// Gradients that are about to be clipped, to be looked at.
#[must_use]
pub fn views<'a>(gradients: &'a [(&'a str, &mut [f32])]) -> Vec<(&'a str, &'a [f32])> {
    gradients.iter().map(|(name, g)| (*name, &**g)).collect()
}

/// [`clip_global_norm`] of gradients whose `norm` is known.
pub fn clip_known_norm(gradients: &mut [(&str, &mut [f32])], norm: f64, max_norm: f64) {
    let coefficient = clip_coefficient(norm, max_norm);
    if coefficient < 1.0 {
        for (_, values) in gradients {
            scale(values, coefficient as f32);
        }
    }
}

/// Clips every element to `-limit..=limit`, as torch.nn.utils.clip_grad_value_.
pub fn clip_values(gradients: &mut [(&str, &mut [f32])], limit: f32) {
    for (_, values) in gradients {
        values
            .par_chunks_mut(CHUNK)
            .for_each(|chunk| chunk.iter_mut().for_each(|v| *v = v.clamp(-limit, limit)));
    }
}

/// Multiplies `values` by `factor`.
pub fn scale(values: &mut [f32], factor: f32) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| {
        for value in chunk {
            *value *= factor;
        }
    });
}

fn sum_of_squares(values: &[f32]) -> f64 {
    let partial: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| {
            let mut lanes = [0.0f64; LANES];
            let mut blocks = chunk.chunks_exact(LANES);
            for block in &mut blocks {
                for (lane, &value) in lanes.iter_mut().zip(block) {
                    *lane += f64::from(value) * f64::from(value);
                }
            }
            let rest: f64 = blocks
                .remainder()
                .iter()
                .map(|&value| f64::from(value) * f64::from(value))
                .sum();
            lanes.iter().sum::<f64>() + rest
        })
        .collect();
    partial.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::KeyedRng;

    fn noise(length: usize) -> Vec<f32> {
        let mut rng = KeyedRng::new("gradient", &[length as u64]);
        (0..length).map(|_| rng.normal() as f32).collect()
    }

    #[test]
    fn the_norm_is_that_of_all_tensors_together() {
        // 2² + 3² + 6² = 7².
        let norm = global_norm(&[("a", &[2.0, -3.0]), ("empty", &[]), ("b", &[6.0])]).unwrap();
        assert_eq!(norm, 7.0);
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        let (a, b) = (noise(100_003), noise(17));
        let norm_with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| global_norm(&[("a", &a), ("b", &b)]).unwrap())
        };
        let one = norm_with(1);
        assert_eq!(one.to_bits(), norm_with(2).to_bits());
        assert_eq!(one.to_bits(), norm_with(5).to_bits());
        let plain: f64 = a.iter().chain(&b).map(|&v| f64::from(v).powi(2)).sum();
        // Orders of summation differ by a few roundings of f64.
        assert!((one / plain.sqrt() - 1.0).abs() < 1e-13);
    }

    #[test]
    fn clipping_is_torchs() {
        let (mut a, mut b) = (vec![2.0f32, -3.0], vec![6.0f32]);
        let norm = clip_global_norm(&mut [("a", &mut a), ("b", &mut b)], 3.5).unwrap();
        assert_eq!(norm, 7.0);
        // torch.nn.utils.clip_grad_norm_ on the same values gives [1.0, -1.5], [3.0] up to its 1e-6:
        // the coefficient is 3.5 / 7.000001.
        let c = 3.5f32 / 7.000_001;
        assert_eq!((a, b), (vec![2.0 * c, -3.0 * c], vec![6.0 * c]));
    }

    #[test]
    fn small_gradients_and_no_limit_change_nothing() {
        for limit in [7.1, 0.0] {
            let mut a = vec![2.0f32, -3.0, 6.0];
            assert_eq!(
                clip_global_norm(&mut [("a", &mut a)], limit).unwrap(),
                7.0,
                "limit {limit}"
            );
            assert_eq!(a, [2.0, -3.0, 6.0]);
        }
    }

    #[test]
    fn a_bad_value_is_named_and_nothing_is_changed() {
        let (mut good, mut bad) = (vec![1.0f32; 4], noise(40_000));
        bad[39_999] = f32::NAN;
        let error = clip_global_norm(
            &mut [
                ("head.weight", &mut good),
                ("backbone.conv1.weight", &mut bad),
            ],
            0.1,
        )
        .unwrap_err();
        assert_eq!(
            (error.name.as_str(), error.index),
            ("backbone.conv1.weight", 39_999)
        );
        assert!(error.value.is_nan());
        assert_eq!(good, [1.0; 4]);
    }

    #[test]
    fn huge_finite_gradients_have_a_norm() {
        let norm = global_norm(&[("a", &[f32::MAX, f32::MAX])]).unwrap();
        assert!((norm / (f64::from(f32::MAX) * 2f64.sqrt()) - 1.0).abs() < 1e-15);
    }
}
