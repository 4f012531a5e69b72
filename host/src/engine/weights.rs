//! The weights of one model: flat tensors in the order of its specs.

use burn::backend::Flex;
use burn::tensor::{Device, Tensor};

use crate::kernels::is_on_host;
use crate::model::{BatchStats, Model, ParamSpec};
use crate::state::{Array, StateDict};

pub use crate::values::{flat_tensor, flat_tensor_on, into_vec};

/// Momentum of running statistics, as torch.nn.BatchNorm2d's default.
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// Parameters and buffers of one model, in the order of [`Model::specs`], flat, f32, on one
/// plain device: the CPU's until [`ModelWeights::on`].
///
/// `clone` shares the values; writing to either copies first.
#[derive(Clone, Debug)]
pub struct ModelWeights {
    specs: Vec<ParamSpec>,
    tensors: Vec<Tensor<1>>,
}

/// A state dict does not hold exactly the arrays of a model.
#[derive(Debug, thiserror::Error)]
#[error(
    "the state does not fit the model: missing [{}], unexpected [{}], wrong shape [{}]; \
     load it with the configuration it was written with",
    missing.join(", "), unexpected.join(", "), describe(mismatched)
)]
pub struct WeightsError {
    /// Names the model has and the state lacks.
    pub missing: Vec<String>,
    /// Names the state has and the model lacks.
    pub unexpected: Vec<String>,
    /// Arrays of another shape.
    pub mismatched: Vec<ShapeMismatch>,
}

/// One array of another shape than the model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Its name.
    pub name: String,
    /// The model's shape.
    pub expected: Vec<usize>,
    /// The state's shape.
    pub got: Vec<usize>,
}

fn describe(mismatched: &[ShapeMismatch]) -> String {
    let parts: Vec<String> = mismatched
        .iter()
        .map(|m| format!("`{}` expected {:?}, got {:?}", m.name, m.expected, m.got))
        .collect();
    parts.join("; ")
}

impl ModelWeights {
    /// Takes every array of `state`; names and shapes must be exactly the model's.
    ///
    /// # Errors
    /// If an array is missing, unexpected, or of another shape; all of them are listed.
    pub fn from_state(model: &dyn Model, state: &StateDict) -> Result<Self, WeightsError> {
        Self::from_specs(model.specs(), state)
    }

    /// As [`ModelWeights::from_state`], for the specs alone.
    ///
    /// # Errors
    /// See [`ModelWeights::from_state`].
    pub fn from_specs(specs: &[ParamSpec], state: &StateDict) -> Result<Self, WeightsError> {
        let mut error = WeightsError {
            missing: Vec::new(),
            unexpected: Vec::new(),
            mismatched: Vec::new(),
        };
        let mut tensors = Vec::with_capacity(specs.len());
        for spec in specs {
            match state.entries.get(&spec.name) {
                None => error.missing.push(spec.name.clone()),
                Some(array) if array.shape != spec.shape => error.mismatched.push(ShapeMismatch {
                    name: spec.name.clone(),
                    expected: spec.shape.clone(),
                    got: array.shape.clone(),
                }),
                Some(array) => tensors.push(flat_tensor(array.data.clone())),
            }
        }
        error.unexpected = state
            .entries
            .keys()
            .filter(|name| !specs.iter().any(|spec| &spec.name == *name))
            .cloned()
            .collect();
        if tensors.len() == specs.len() && error.unexpected.is_empty() {
            Ok(ModelWeights {
                specs: specs.to_vec(),
                tensors,
            })
        } else {
            Err(error)
        }
    }

    /// The same values on a plain `device`.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        let move_one = |tensor: Tensor<1>| {
            if tensor.device() == *device {
                tensor
            } else {
                tensor.to_device(device)
            }
        };
        ModelWeights {
            specs: self.specs,
            tensors: self.tensors.into_iter().map(move_one).collect(),
        }
    }

    /// Where they lie.
    ///
    /// # Panics
    /// If there is none: no model is without weights.
    #[must_use]
    pub fn device(&self) -> Device {
        self.tensors[0].device()
    }

    /// Whether loops over slices work on them, rather than operations on a device.
    #[must_use]
    pub fn are_on_host(&self) -> bool {
        self.tensors.first().is_none_or(is_on_host)
    }

    /// A copy of all arrays under their names.
    #[must_use]
    pub fn to_state(&self) -> StateDict {
        let mut state = StateDict::default();
        for (index, spec) in self.specs.iter().enumerate() {
            let array = Array {
                shape: spec.shape.clone(),
                data: self.with_param(index, <[f32]>::to_vec),
            };
            state.entries.insert(spec.name.clone(), array);
        }
        state
    }

    /// SHA-256 over names, shapes and bits: [`StateDict::hash`] of [`ModelWeights::to_state`].
    #[must_use]
    pub fn hash(&self) -> String {
        self.to_state().hash()
    }

    /// What each tensor is.
    #[must_use]
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// The plain tensors: for a teacher, for evaluation.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor<1>] {
        &self.tensors
    }

    /// True where [`ModelWeights::leaves`] makes a leaf: the spec is trainable, it is no buffer, and
    /// `trainable` says so.
    #[must_use]
    pub fn learns(spec: &ParamSpec, trainable: &dyn Fn(&ParamSpec) -> bool) -> bool {
        spec.trainable && !spec.kind.is_buffer() && trainable(spec)
    }

    /// The tensors for a training pass: autodiff leaves where [`ModelWeights::learns`], plain ones
    /// elsewhere. They share memory with these weights.
    ///
    /// Drop them, and everything computed from them, before [`ModelWeights::with_param_mut`]: a
    /// living leaf is safe, but costs a copy.
    #[must_use]
    pub fn leaves(&self, trainable: &dyn Fn(&ParamSpec) -> bool) -> Vec<Tensor<1>> {
        self.specs
            .iter()
            .zip(&self.tensors)
            .map(|(spec, tensor)| {
                if Self::learns(spec, trainable) {
                    tensor.clone().autodiff().require_grad()
                } else {
                    tensor.clone()
                }
            })
            .collect()
    }

    /// Calls `read` with the values of tensor `index`; on the CPU nothing is copied.
    pub fn with_param<R>(&self, index: usize, read: impl FnOnce(&[f32]) -> R) -> R {
        let tensor = &self.tensors[index];
        let primitive = tensor.clone().try_into_primitive::<Flex>().ok();
        match primitive.as_ref().and_then(|p| p.as_slice::<f32>()) {
            Some(values) => read(values),
            None => read(&into_vec(tensor.clone())),
        }
    }

    /// Calls `write` with the values of tensor `index`: in place where nobody else holds them,
    /// otherwise on a copy that replaces them here alone. On a device this is a way there and back;
    /// see [`ModelWeights::replace`].
    ///
    /// If `write` panics, tensor `index` is left empty and these weights must be dropped.
    pub fn with_param_mut<R>(&mut self, index: usize, write: impl FnOnce(&mut [f32]) -> R) -> R {
        let tensor = std::mem::replace(&mut self.tensors[index], flat_tensor(Vec::new()));
        let device = tensor.device();
        let mut values = into_vec(tensor);
        let result = write(&mut values);
        self.tensors[index] = flat_tensor_on(values, &device);
        result
    }

    /// Puts what `f` makes of tensor `index` in its place.
    pub fn replace(&mut self, index: usize, f: impl FnOnce(Tensor<1>) -> Tensor<1>) {
        let tensor = f(self.tensors[index].clone());
        assert_eq!(
            tensor.dims(),
            self.tensors[index].dims(),
            "one shape for good"
        );
        self.tensors[index] = tensor;
    }

    /// Blends statistics of a training pass into the running ones:
    /// `running = (1 - momentum) * running + momentum * batch`, as PyTorch does it, in f64 on the CPU.
    ///
    /// # Panics
    /// If the statistics belong to another model.
    pub fn blend_batch_stats(&mut self, stats: &[BatchStats], momentum: f64) {
        for stat in stats {
            for (index, batch) in [(stat.mean_index, &stat.mean), (stat.var_index, &stat.var)] {
                if !self.are_on_host() {
                    let batch = batch.clone().mul_scalar(momentum);
                    self.replace(index, |running| running.mul_scalar(1.0 - momentum) + batch);
                    continue;
                }
                let batch = into_vec(batch.clone());
                self.with_param_mut(index, |running| {
                    assert_eq!(
                        running.len(),
                        batch.len(),
                        "statistics have one value a channel"
                    );
                    for (r, &b) in running.iter_mut().zip(&batch) {
                        *r = (momentum * f64::from(b) + (1.0 - momentum) * f64::from(*r)) as f32;
                    }
                });
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernels::with_operations;
    use crate::model::{Init, ParamKind, Part};

    pub(crate) fn spec(name: &str, length: usize, kind: ParamKind, part: Part) -> ParamSpec {
        ParamSpec {
            name: name.into(),
            shape: vec![length],
            kind,
            part,
            init: Init::Constant(0.0),
            trainable: true,
        }
    }

    /// Four tensors of 3 values: a weight, a shift, a running mean and variance.
    pub(crate) fn sample() -> ModelWeights {
        let specs = vec![
            spec("conv.weight", 3, ParamKind::Weight, Part::Backbone),
            spec("norm.bias", 3, ParamKind::NormBias, Part::Neck),
            spec("norm.running_mean", 3, ParamKind::RunningMean, Part::Neck),
            spec("norm.running_var", 3, ParamKind::RunningVar, Part::Neck),
        ];
        let mut state = StateDict::default();
        for (i, spec) in specs.iter().enumerate() {
            let base = i as f32 * 10.0;
            let array = Array {
                shape: spec.shape.clone(),
                data: vec![base + 1.0, base + 2.0, base + 3.0],
            };
            state.entries.insert(spec.name.clone(), array);
        }
        ModelWeights::from_specs(&specs, &state).unwrap()
    }

    #[test]
    fn state_goes_in_and_out() {
        let weights = sample();
        let state = weights.to_state();
        assert_eq!(state.entries["norm.bias"].data, [11.0, 12.0, 13.0]);
        let again = ModelWeights::from_specs(weights.specs(), &state).unwrap();
        assert_eq!(again.hash(), weights.hash());
    }

    #[test]
    fn what_does_not_fit_is_listed() {
        let weights = sample();
        let mut state = weights.to_state();
        let array = state.entries.remove("conv.weight").unwrap();
        state.entries.insert("conv.wieght".into(), array);
        state.entries.get_mut("norm.bias").unwrap().shape = vec![3, 1];
        let error = ModelWeights::from_specs(weights.specs(), &state).unwrap_err();
        assert_eq!(error.missing, ["conv.weight"]);
        assert_eq!(error.unexpected, ["conv.wieght"]);
        assert_eq!(
            error.mismatched,
            [ShapeMismatch {
                name: "norm.bias".into(),
                expected: vec![3],
                got: vec![3, 1]
            }]
        );
        let message = error.to_string();
        assert!(
            message.contains("`norm.bias` expected [3], got [3, 1]"),
            "{message}"
        );
    }

    #[test]
    fn leaves_are_what_learns() {
        let mut weights = sample();
        weights.specs[0].trainable = false;
        let leaves = weights.leaves(&|_| true);
        let grads: Vec<bool> = leaves.iter().map(Tensor::is_require_grad).collect();
        assert_eq!(grads, [false, true, false, false]);
        let none = weights.leaves(&|spec| spec.part == Part::Head);
        assert!(!none.iter().any(Tensor::is_require_grad));
    }

    fn address(weights: &ModelWeights, index: usize) -> usize {
        weights.with_param(index, |values| values.as_ptr() as usize)
    }

    #[test]
    fn an_update_after_a_training_pass_is_in_place() {
        let mut weights = sample();
        let before = address(&weights, 0);
        let leaves = weights.leaves(&|_| true);
        let loss = leaves[0].clone().mul(leaves[1].clone()).sum();
        let mut gradients = loss.backward();
        let gradient = into_vec(leaves[0].grad_remove(&mut gradients).unwrap());
        assert_eq!(gradient, [11.0, 12.0, 13.0]);
        drop((leaves, gradients));
        weights.with_param_mut(0, |values| values[0] = -1.0);
        assert_eq!(address(&weights, 0), before, "nobody else holds the values");
        weights.with_param(0, |values| assert_eq!(values, [-1.0, 2.0, 3.0]));
    }

    #[test]
    fn an_update_never_reaches_another_holder() {
        let mut weights = sample();
        let copy = weights.clone();
        let leaf = weights.leaves(&|_| true).swap_remove(0);
        weights.with_param_mut(0, |values| values.fill(9.0));
        weights.with_param(0, |values| assert_eq!(values, [9.0; 3]));
        copy.with_param(0, |values| assert_eq!(values, [1.0, 2.0, 3.0]));
        assert_eq!(into_vec(leaf.inner()), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn running_statistics_follow_the_batch() {
        let mut weights = sample();
        let stats = BatchStats {
            mean_index: 2,
            var_index: 3,
            mean: flat_tensor(vec![31.0, 22.0, 13.0]),
            var: flat_tensor(vec![1.0, 2.0, 3.0]),
        };
        let mut on_device = weights.clone();
        with_operations(true, || {
            on_device.blend_batch_stats(std::slice::from_ref(&stats), BATCH_NORM_MOMENTUM);
        });
        weights.blend_batch_stats(&[stats], BATCH_NORM_MOMENTUM);
        for (index, expected) in [(2, [22.0; 3]), (3, [28.0, 29.0, 30.0])] {
            on_device.with_param(index, |values| {
                let near = values
                    .iter()
                    .zip(expected)
                    .all(|(v, e)| (v - e).abs() < 1e-5);
                assert!(near, "{values:?}");
            });
        }
        // 0.9 * [21, 22, 23] + 0.1 * [31, 22, 13]; 0.9 * [31, 32, 33] + 0.1 * [1, 2, 3].
        weights.with_param(2, |mean| assert_eq!(mean, [22.0, 22.0, 22.0]));
        weights.with_param(3, |var| assert_eq!(var, [28.0, 29.0, 30.0]));
    }
}
