//! A network beside PyTorch's values of it: taps of both modes, running statistics, gradients.

use std::collections::BTreeMap;

use burn::tensor::Device;

use super::*;
use crate::kernels::testing::dot;
use crate::model::{Forward, weights};

/// f32 convolutions sum in another order than torch's: some 1e-7 a layer, over 50 layers, and a
/// normalisation by the statistics of two values (a pooled branch) amplifies it.
const TOLERANCE: f64 = 2e-5;
/// Gradients pass every layer twice.
const GRADIENT_TOLERANCE: f64 = 2e-4;
/// What rounding leaves of a gradient that vanishes, against the largest of all gradients.
const VANISHING: f64 = 1e-5;

/// A model, its weights and what PyTorch gives for them.
///
/// Entries of the reference: `eval/<tap>`, `train/<tap>`, `after/<name>` (running statistics after one
/// pass), `grad/<name>` (of mean(logits²) while training, exactly 0 where it vanishes). An entry may hold
/// the leading rows alone.
pub(super) struct Reference {
    pub(super) entries: StateDict,
    pub(super) image: Tensor<4>,
    pub(super) model: Box<dyn Model>,
    weights: Vec<Tensor<1>>,
}

impl Reference {
    /// `file` has `state`, all the weights, and `image`; `entries` is compared with.
    pub(super) fn new(
        model: Box<dyn Model>,
        file: &StateDict,
        state: &StateDict,
        entries: StateDict,
    ) -> Self {
        let device = Device::flex();
        let mut filled = StateDict::default();
        weights::load_into(&mut filled, model.as_ref(), state)
            .unwrap()
            .strict()
            .unwrap();
        Reference {
            image: map(&file.entries["image"], &device),
            weights: weights::tensors(model.as_ref(), &filled, &device).unwrap(),
            entries,
            model,
        }
    }

    fn forward(&self, training: bool) -> Forward {
        let request = request(training, &all_taps(self.model.as_ref()), false);
        self.model
            .forward(&self.weights, self.image.clone(), &request)
    }

    fn compare(&self, mode: &str, taps: &BTreeMap<String, Tensor<4>>) {
        let reference = below(&self.entries, mode);
        // All taps but `image`, which is the input.
        assert_eq!(reference.entries.len(), self.model.taps().len() - 1);
        for (name, expected) in &reference.entries {
            let tap = &taps[name];
            assert_eq!(tap.dims()[1..], expected.shape[1..], "{name}");
            let error = relative_error(&leading(values(tap.clone()), expected), &expected.data);
            assert!(
                error <= TOLERANCE,
                "{mode}/{name}: relative error {error:e}"
            );
        }
    }

    /// Taps of a pass by running statistics.
    pub(super) fn check_evaluation(&self) {
        let forward = self.forward(false);
        self.compare("eval", &forward.taps);
        assert!(forward.batch_stats.is_empty());
    }

    /// Taps of a pass by the batch's statistics, and the running ones after it.
    pub(super) fn check_training(&self) {
        let forward = self.forward(true);
        self.compare("train", &forward.taps);
        let specs = self.model.specs();
        let buffers = specs.iter().filter(|spec| spec.kind.is_buffer()).count();
        assert_eq!(2 * forward.batch_stats.len(), buffers);
        for stats in forward.batch_stats {
            for (index, new) in [(stats.mean_index, stats.mean), (stats.var_index, stats.var)] {
                // torch's momentum: 0.1 of the new statistics.
                let running = self.weights[index].clone() * 0.9 + new * 0.1;
                let name = &specs[index].name;
                let expected = &self.entries.entries[&format!("after/{name}")];
                let error = relative_error(&values(running), &expected.data);
                assert!(error <= TOLERANCE, "{name}: relative error {error:e}");
            }
        }
    }

    /// Gradients of every parameter where `objective` is mean(logits²); gives how many do not vanish.
    pub(super) fn check_gradients(&self, objective: impl Fn(Forward) -> Tensor<1>) -> usize {
        let model = self.model.as_ref();
        let leaves = student_weights(model, self.weights.clone());
        let forward = model.forward(&leaves, self.image.clone(), &request(true, &[], false));
        let gradients = objective(forward).backward();
        let norm = |values: &[f32]| dot(values, values).sqrt();
        let reference = below(&self.entries, "grad");
        let largest = reference.entries.values().map(|array| norm(&array.data));
        let largest = largest.fold(0.0, f64::max);
        let mut compared = 0;
        for (spec, leaf) in model.specs().iter().zip(&leaves) {
            if !spec.trainable {
                assert!(spec.kind.is_buffer(), "{}", spec.name);
                continue;
            }
            let expected = &reference.entries[&spec.name];
            let gradient = leading(values(leaf.grad(&gradients).unwrap()), expected);
            if expected.data.iter().all(|&g| g == 0.0) {
                let rest = norm(&gradient) / largest;
                assert!(rest <= VANISHING, "{}: {rest:e} is not nothing", spec.name);
                continue;
            }
            compared += 1;
            let error = relative_error(&gradient, &expected.data);
            assert!(
                error <= GRADIENT_TOLERANCE,
                "{}: relative error {error:e}",
                spec.name
            );
        }
        compared
    }
}

/// The rows of `values` that `expected` holds.
fn leading(mut values: Vec<f32>, expected: &Array) -> Vec<f32> {
    assert!(values.len() >= expected.data.len());
    values.truncate(expected.data.len());
    values
}

/// Shape of every parameter and buffer as `64x3x7x7`.
pub(super) fn shapes(model: &dyn Model) -> BTreeMap<String, String> {
    let shapes = model.specs().iter().map(|spec| {
        let extents: Vec<String> = spec.shape.iter().map(ToString::to_string).collect();
        (spec.name.clone(), extents.join("x"))
    });
    let shapes: BTreeMap<String, String> = shapes.collect();
    assert_eq!(shapes.len(), model.specs().len(), "a name stands twice");
    shapes
}

/// What `keys.json` in `folder` lists for `model`.
pub(super) fn listed_shapes(folder: &str, model: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(golden_path(&format!("{folder}/keys.json"))).unwrap();
    let keys: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(keys[model].clone()).unwrap()
}
