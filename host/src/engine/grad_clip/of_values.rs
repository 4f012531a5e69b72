//! Clipping of gradients wherever they lie; from a device one number a tensor comes back.

use burn::tensor::Tensor;

use super::{NonFiniteGradient, clip_coefficient, clip_values, global_norm, scale};
use crate::values::{Values, into_vec};

/// [`global_norm`] of gradients, of which each may lie on the CPU or on a device.
///
/// # Errors
/// If an element is not finite.
pub fn norm(gradients: &[(&str, &mut Values)]) -> Result<f64, NonFiniteGradient> {
    let (mut host, mut device) = (Vec::new(), Vec::new());
    for (name, values) in gradients {
        match &**values {
            Values::Host(values) => host.push((*name, values.as_slice())),
            Values::Device(tensor) => device.push((*name, tensor)),
        }
    }
    let host = global_norm(&host)?;
    match device.is_empty() {
        true => Ok(host),
        false => Ok(host.hypot(norm_on_device(&device)?)),
    }
}

/// As [`norm`]; sums of squares are f32, tensor by tensor, and read back together.
fn norm_on_device(gradients: &[(&str, &Tensor<1>)]) -> Result<f64, NonFiniteGradient> {
    let squares = gradients.iter().map(|(_, g)| {
        let gradient = (*g).clone();
        (gradient.clone() * gradient).sum()
    });
    let squares = into_vec(Tensor::cat(squares.collect(), 0));
    let mut total = 0.0;
    for ((name, gradient), square) in gradients.iter().zip(squares) {
        total += if square.is_finite() {
            f64::from(square)
        } else {
            // Either an element is bad, which is named then, or the sum is too large for f32.
            let values = into_vec((*gradient).clone());
            global_norm(&[(name, &values)])?.powi(2)
        };
    }
    Ok(total.sqrt())
}

/// Clips every element to `-max_value..=max_value`, then scales so that the norm is at most
/// `max_norm`; 0 turns either off. `norm` is that of the gradients as they come.
///
/// # Errors
/// If an element is not finite.
pub fn clip(
    gradients: &mut [(&str, &mut Values)],
    mut norm: f64,
    max_value: f64,
    max_norm: f64,
) -> Result<(), NonFiniteGradient> {
    if max_value > 0.0 {
        for (name, values) in gradients.iter_mut() {
            match &mut **values {
                Values::Host(values) => clip_values(&mut [(*name, values)], max_value as f32),
                Values::Device(tensor) => {
                    *tensor = tensor.clone().clamp(-max_value, max_value);
                }
            }
        }
        norm = self::norm(gradients)?;
    }
    let coefficient = clip_coefficient(norm, max_norm);
    if coefficient < 1.0 {
        for (_, values) in gradients {
            match &mut **values {
                Values::Host(values) => scale(values, coefficient as f32),
                Values::Device(tensor) => *tensor = tensor.clone().mul_scalar(coefficient),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::KeyedRng;
    use crate::values::flat_tensor;

    /// 40 000 squares summed in f32 on one side, in f64 on the other: the rounding depends on how many
    /// lanes the processor sums in, and was seen up to 2e-6.
    const TOLERANCE: f64 = 1e-5;

    /// The same gradients on the CPU and as tensors.
    fn both(gradients: &[Vec<f32>]) -> [Vec<Values>; 2] {
        let host = gradients.iter().cloned().map(Values::Host);
        let device = gradients.iter().cloned().map(flat_tensor);
        [host.collect(), device.map(Values::Device).collect()]
    }

    fn named(gradients: &mut [Values]) -> Vec<(&str, &mut Values)> {
        ["a", "b"].into_iter().zip(gradients).collect()
    }

    #[test]
    fn both_places_give_the_same_norm_and_the_same_gradients() {
        let mut rng = KeyedRng::new("gradient", &[1]);
        let mut noise = |len: usize| (0..len).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
        let gradients = [noise(40_000), noise(7)];
        for limits in [[0.0, 0.0], [0.0, 3.5], [0.5, 0.0], [0.5, 3.5]] {
            let results = both(&gradients).map(|mut gradients| {
                let mut named = named(&mut gradients);
                let norm = norm(&named).unwrap();
                clip(&mut named, norm, limits[0], limits[1]).unwrap();
                let after = self::norm(&named).unwrap();
                let values: Vec<Vec<f32>> = gradients.iter().map(Values::to_vec).collect();
                (norm, after, values)
            });
            let [host, device] = &results;
            assert!((host.0 / device.0 - 1.0).abs() < TOLERANCE, "{limits:?}");
            assert!((host.1 / device.1 - 1.0).abs() < TOLERANCE, "{limits:?}");
            for (host, device) in host.2.iter().flatten().zip(device.2.iter().flatten()) {
                assert!(
                    f64::from((host - device).abs()) <= TOLERANCE * f64::from(host.abs()),
                    "{limits:?}"
                );
            }
        }
    }

    #[test]
    fn a_bad_value_on_a_device_is_named_and_a_huge_norm_is_not_one() {
        let mut gradients = [
            Values::Device(flat_tensor(vec![1.0, 2.0])),
            Values::Device(flat_tensor(vec![0.0, f32::NAN])),
        ];
        let error = norm(&named(&mut gradients)).unwrap_err();
        assert_eq!((error.name.as_str(), error.index), ("b", 1));
        gradients[1] = Values::Device(flat_tensor(vec![f32::MAX, f32::MAX]));
        let norm = norm(&named(&mut gradients)).unwrap();
        assert!((norm / (f64::from(f32::MAX) * 2f64.sqrt()) - 1.0).abs() < 1e-6);
    }
}
