//! Exponential moving average of a detector's weights, for evaluation and export.

use burn::tensor::Device;

use super::weights::{ModelWeights, WeightsError};
use crate::model::ParamSpec;
use crate::state::StateDict;

/// An average of the weights over past steps.
///
/// After step `n` (counted from 0): parameters become `d · average + (1 - d) · weights` with
/// `d = min(decay, (1 + n) / (10 + n))`, so that the first steps do not hang on to the random
/// start; buffers are copied, since they are averages already.
#[derive(Clone, Debug)]
pub struct Ema {
    weights: ModelWeights,
    decay: f64,
    updates: u64,
}

/// A saved average cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum EmaError {
    /// Arrays of another detector.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The header does not say how many updates were made.
    #[error("the averaged weights lack the header entry `updates`; the file is not a checkpoint's")]
    Updates,
}

impl Ema {
    /// Starts at `weights` (shared until the first update). `decay` is in `(0, 1)`.
    #[must_use]
    pub fn new(weights: &ModelWeights, decay: f64) -> Self {
        Ema {
            weights: weights.clone(),
            decay,
            updates: 0,
        }
    }

    /// The same average on a plain `device`.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        Ema {
            weights: self.weights.on(device),
            ..self
        }
    }

    /// The averaged weights.
    #[must_use]
    pub fn weights(&self) -> &ModelWeights {
        &self.weights
    }

    /// The decay that was asked for.
    #[must_use]
    pub fn decay(&self) -> f64 {
        self.decay
    }

    /// The decay of the next update: `min(decay, (1 + n) / (10 + n))`.
    #[must_use]
    pub fn next_decay(&self) -> f64 {
        let n = self.updates as f64;
        self.decay.min((1.0 + n) / (10.0 + n))
    }

    /// Takes in the weights after an optimizer step.
    pub fn update(&mut self, weights: &ModelWeights) {
        let blend = (1.0 - self.next_decay()) as f32;
        for (index, spec) in weights.specs().iter().enumerate() {
            if !weights.are_on_host() {
                let new = weights.tensors()[index].clone();
                self.weights.replace(index, |average| match spec.kind {
                    kind if kind.is_buffer() => new,
                    _ => average.clone() + (new - average).mul_scalar(blend),
                });
                continue;
            }
            weights.with_param(index, |new| {
                self.weights.with_param_mut(index, |average| {
                    if spec.kind.is_buffer() {
                        average.copy_from_slice(new);
                        return;
                    }
                    for (a, &n) in average.iter_mut().zip(new) {
                        *a += blend * (n - *a);
                    }
                });
            });
        }
        self.updates += 1;
    }

    /// The averaged weights under the detector's names; the count of updates in the header.
    #[must_use]
    pub fn to_state(&self) -> StateDict {
        let mut state = self.weights.to_state();
        let updates = self.updates.to_string();
        state.metadata.insert("updates".into(), updates);
        state
    }

    /// Takes over what [`Ema::to_state`] gave.
    ///
    /// # Errors
    /// If the state is another detector's or has no count of updates.
    pub fn from_state(
        specs: &[ParamSpec],
        state: &StateDict,
        decay: f64,
    ) -> Result<Self, EmaError> {
        let updates = state.metadata.get("updates");
        Ok(Ema {
            weights: ModelWeights::from_specs(specs, state)?,
            decay,
            updates: updates
                .and_then(|text| text.parse().ok())
                .ok_or(EmaError::Updates)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::weights::tests::sample;
    use crate::kernels::with_operations;

    #[test]
    fn parameters_are_averaged_and_buffers_copied() {
        let mut weights = sample();
        let mut ema = Ema::new(&weights, 0.999);
        weights.with_param_mut(0, |values| values.copy_from_slice(&[11.0, 2.0, 3.0]));
        weights.with_param_mut(2, |values| values.fill(7.0));
        assert_eq!(ema.next_decay(), 0.1);
        ema.update(&weights);
        // 0.1 * 1 + 0.9 * 11 = 10.
        ema.weights().with_param(0, |values| {
            assert!((values[0] - 10.0).abs() < 1e-6, "{values:?}");
            assert_eq!(values[1..], [2.0, 3.0]);
        });
        ema.weights()
            .with_param(2, |values| assert_eq!(values, [7.0; 3]));
        weights.with_param(0, |values| assert_eq!(values, [11.0, 2.0, 3.0]));
        // n = 1: 2 / 11.
        assert_eq!(ema.next_decay(), 2.0 / 11.0);
    }

    #[test]
    fn on_a_device_it_is_the_same() {
        let train = || {
            let mut weights = sample();
            let mut ema = Ema::new(&weights, 0.9);
            for value in [0.3, 0.7, 0.1] {
                weights.with_param_mut(0, |values| values.fill(value));
                weights.with_param_mut(2, |values| values.fill(value));
                ema.update(&weights);
            }
            ema.to_state()
        };
        let (host, device) = (train(), with_operations(true, train));
        assert_eq!(host.metadata, device.metadata);
        for (name, array) in &host.entries {
            for (a, b) in array.data.iter().zip(&device.entries[name].data) {
                assert!((a - b).abs() <= 1e-6 * a.abs(), "{name}: {a} {b}");
            }
        }
    }

    #[test]
    fn decay_warms_up_to_its_value() {
        let weights = sample();
        let mut ema = Ema::new(&weights, 0.5);
        for _ in 0..20 {
            ema.update(&weights);
        }
        assert_eq!(ema.next_decay(), 0.5);
    }

    #[test]
    fn a_saved_average_goes_on_bit_for_bit() {
        let mut weights = sample();
        let mut ema = Ema::new(&weights, 0.9);
        let mut train = |ema: &mut Ema, value: f32| {
            weights.with_param_mut(1, |values| values.fill(value));
            ema.update(&weights);
        };
        train(&mut ema, 0.3);
        let state = ema.to_state();
        let mut again = Ema::from_state(sample().specs(), &state, 0.9).unwrap();
        for value in [0.7, 0.1] {
            train(&mut ema, value);
        }
        for value in [0.7, 0.1] {
            train(&mut again, value);
        }
        assert_eq!(ema.to_state(), again.to_state());
        let bare = StateDict {
            entries: state.entries,
            ..StateDict::default()
        };
        let error = Ema::from_state(sample().specs(), &bare, 0.9).unwrap_err();
        assert!(matches!(error, EmaError::Updates));
    }
}
