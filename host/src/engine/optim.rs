//! SGD with momentum and AdamW over named flat parameters, with torch.optim's arithmetic.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::config::{OptimizerKind, TrainConfig};
use crate::state::{Array, StateDict};

use crate::values::Values;

mod groups;
mod method;
mod on_device;
mod pretrain;

pub use groups::{ParamGroup, ParamGroups};
pub use method::{MethodOptimizer, method_param};
pub use pretrain::PretrainOptimizer;

/// Values updated by one task. Updates are elementwise, so this cannot change a bit.
const CHUNK: usize = 1 << 15;

/// The update rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    /// `torch.optim.SGD`: dampening 0, no Nesterov, decay added to the gradient.
    Sgd {
        /// Decay of the buffer; 0: no buffer.
        momentum: f64,
    },
    /// `torch.optim.AdamW` (arXiv 1711.05101): decoupled decay, bias correction, no AMSGrad.
    AdamW {
        /// Decay rates of the two moments.
        betas: [f64; 2],
        /// Added to the denominator after bias correction.
        eps: f64,
    },
}

impl Algorithm {
    /// What `config` asks for.
    #[must_use]
    pub fn from_config(config: &TrainConfig) -> Self {
        match config.optimizer {
            OptimizerKind::Sgd => Algorithm::Sgd {
                momentum: config.momentum,
            },
            OptimizerKind::Adamw => Algorithm::AdamW {
                betas: config.betas,
                eps: config.eps,
            },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Algorithm::Sgd { .. } => "sgd",
            Algorithm::AdamW { .. } => "adamw",
        }
    }
}

/// An optimizer's file does not fit.
#[derive(Debug, thiserror::Error)]
pub enum OptimizerError {
    /// Written by another algorithm.
    #[error(
        "the optimizer state is of `{got}`, the configuration asks for `{expected}`; resume with \
         the configuration of the run"
    )]
    Algorithm {
        /// As configured.
        expected: &'static str,
        /// In the file; empty if it does not say.
        got: String,
    },
    /// A tensor has another length than its parameter.
    #[error("optimizer state `{name}` has {got} values, its parameter has {expected}")]
    Length {
        /// The tensor.
        name: String,
        /// Length of the parameter.
        expected: usize,
        /// Length of the state.
        got: usize,
    },
    /// A tensor belongs to no parameter.
    #[error("optimizer state `{name}` belongs to no parameter of this run")]
    Unknown {
        /// The tensor.
        name: String,
    },
    /// A parameter's state is not whole.
    #[error("the optimizer state lacks `{name}`; the file is not a whole checkpoint")]
    Missing {
        /// The tensor or the key of the header.
        name: String,
    },
}

/// State of one parameter.
#[derive(Clone, Debug, PartialEq)]
struct Slot {
    /// Updates of this parameter: a part that was frozen has fewer than the others, as in torch.
    steps: u64,
    /// The optimizer's step that made the last update.
    last: u64,
    /// SGD's buffer (empty without momentum) or the first moment.
    first: Values,
    /// AdamW's second moment; empty for SGD.
    second: Values,
}

/// An optimizer over named flat parameters. Parameters join at their first update; their state lies
/// where they do.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    algorithm: Algorithm,
    steps: u64,
    slots: BTreeMap<String, Slot>,
}

impl Optimizer {
    /// Without any state.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Optimizer {
            algorithm,
            steps: 0,
            slots: BTreeMap::new(),
        }
    }

    /// Steps begun so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Begins a step, in which every parameter may be updated once.
    pub fn begin_step(&mut self) {
        self.steps += 1;
    }

    /// Updates `param` in one pass over memory, at learning rate `lr` (the group's scale included).
    /// Arithmetic is f32 as torch's; scalars are computed in f64 first.
    ///
    /// # Panics
    /// If lengths differ, no step was begun, or `name` was already updated in this step.
    pub fn update(
        &mut self,
        name: &str,
        param: &mut [f32],
        grad: &[f32],
        lr: f64,
        weight_decay: f64,
    ) {
        assert_eq!(
            param.len(),
            grad.len(),
            "`{name}` and its gradient have one length"
        );
        let algorithm = self.algorithm;
        let slot = self.slot(name, param.len());
        match algorithm {
            Algorithm::Sgd { momentum } => sgd(slot, param, grad, momentum, lr, weight_decay),
            Algorithm::AdamW { betas, eps } => {
                adamw(slot, param, grad, betas, eps, lr, weight_decay);
            }
        }
    }

    /// The slot of `name` for its update in this step, new or old.
    fn slot(&mut self, name: &str, len: usize) -> &mut Slot {
        if !self.slots.contains_key(name) {
            let fresh = Slot {
                steps: 0,
                last: 0,
                first: Values::Host(match self.algorithm {
                    Algorithm::Sgd { momentum: 0.0 } => Vec::new(),
                    _ => vec![0.0; len],
                }),
                second: Values::Host(match self.algorithm {
                    Algorithm::Sgd { .. } => Vec::new(),
                    Algorithm::AdamW { .. } => vec![0.0; len],
                }),
            };
            self.slots.insert(name.to_owned(), fresh);
        }
        let slot = self
            .slots
            .get_mut(name)
            .expect("the slot was just made sure of");
        assert!(
            slot.last < self.steps,
            "`{name}` is updated once a step, after `begin_step`"
        );
        slot.last = self.steps;
        slot.steps += 1;
        slot
    }

    /// The state as arrays: `momentum.<name>`, or `exp_avg.<name>` and `exp_avg_sq.<name>`; counts
    /// of updates in the header as `step` and `step.<name>`.
    #[must_use]
    pub fn to_state(&self) -> StateDict {
        let mut state = StateDict::default();
        let metadata = &mut state.metadata;
        metadata.insert("algorithm".into(), self.algorithm.name().into());
        metadata.insert("step".into(), self.steps.to_string());
        for (name, slot) in &self.slots {
            metadata.insert(format!("step.{name}"), slot.steps.to_string());
            for (prefix, values) in self.prefixes().iter().zip([&slot.first, &slot.second]) {
                let array = Array {
                    shape: vec![values.len()],
                    data: values.to_vec(),
                };
                state.entries.insert(format!("{prefix}.{name}"), array);
            }
        }
        state
    }

    /// Takes over what [`Optimizer::to_state`] gave. `lengths` holds every parameter of the run,
    /// those of the method included; parameters without state start afresh, as they did then.
    ///
    /// # Errors
    /// If the state is another algorithm's, is not whole, or does not fit a parameter; the optimizer
    /// is unchanged then.
    pub fn load_state(
        &mut self,
        state: &StateDict,
        lengths: &BTreeMap<String, usize>,
    ) -> Result<(), OptimizerError> {
        let got = state.metadata.get("algorithm").cloned().unwrap_or_default();
        if got != self.algorithm.name() {
            return Err(OptimizerError::Algorithm {
                expected: self.algorithm.name(),
                got,
            });
        }
        let count = |key: &str| -> Result<u64, OptimizerError> {
            let text = state.metadata.get(key);
            text.and_then(|text| text.parse().ok())
                .ok_or_else(|| OptimizerError::Missing { name: key.into() })
        };
        let steps = count("step")?;
        let mut slots = BTreeMap::new();
        for key in state.metadata.keys() {
            let Some(name) = key.strip_prefix("step.") else {
                continue;
            };
            let Some(&expected) = lengths.get(name) else {
                return Err(OptimizerError::Unknown { name: name.into() });
            };
            let mut values = Vec::new();
            for prefix in self.prefixes() {
                let key = format!("{prefix}.{name}");
                let Some(array) = state.entries.get(&key) else {
                    return Err(OptimizerError::Missing { name: key });
                };
                if array.data.len() != expected {
                    return Err(OptimizerError::Length {
                        name: key,
                        expected,
                        got: array.data.len(),
                    });
                }
                values.push(array.data.clone());
            }
            let mut values = values.into_iter();
            let slot = Slot {
                steps: count(key)?,
                // A checkpoint lies between two steps: any parameter may be updated in the next.
                last: 0,
                first: Values::Host(values.next().unwrap_or_default()),
                second: Values::Host(values.next().unwrap_or_default()),
            };
            slots.insert(name.to_owned(), slot);
        }
        for key in state.entries.keys() {
            let owner = self
                .prefixes()
                .iter()
                .find_map(|prefix| key.strip_prefix(prefix)?.strip_prefix('.'));
            if !owner.is_some_and(|owner| slots.contains_key(owner)) {
                return Err(OptimizerError::Unknown { name: key.clone() });
            }
        }
        self.steps = steps;
        self.slots = slots;
        Ok(())
    }

    /// Names of the arrays kept per parameter.
    fn prefixes(&self) -> &'static [&'static str] {
        match self.algorithm {
            Algorithm::Sgd { momentum: 0.0 } => &[],
            Algorithm::Sgd { .. } => &["momentum"],
            Algorithm::AdamW { .. } => &["exp_avg", "exp_avg_sq"],
        }
    }
}

fn sgd(
    slot: &mut Slot,
    param: &mut [f32],
    grad: &[f32],
    momentum: f64,
    lr: f64,
    weight_decay: f64,
) {
    let (m, lr, decay) = (momentum as f32, lr as f32, weight_decay as f32);
    if slot.first.is_empty() {
        let chunks = param.par_chunks_mut(CHUNK).zip(grad.par_chunks(CHUNK));
        chunks.for_each(|(param, grad)| {
            for (p, &g) in param.iter_mut().zip(grad) {
                *p -= lr * (g + decay * *p);
            }
        });
        return;
    }
    // The first buffer is the gradient itself, not (1 - dampening) of it. With dampening 0 and a
    // buffer of zeros both are the same, except that 0 * m + g turns -0 into 0.
    let first = slot.steps == 1;
    let chunks = param
        .par_chunks_mut(CHUNK)
        .zip(grad.par_chunks(CHUNK))
        .zip(slot.first.as_mut_slice().par_chunks_mut(CHUNK));
    chunks.for_each(|((param, grad), buffer)| {
        for ((p, &g), b) in param.iter_mut().zip(grad).zip(buffer) {
            let g = g + decay * *p;
            *b = if first { g } else { m * *b + g };
            *p -= lr * *b;
        }
    });
}

fn adamw(
    slot: &mut Slot,
    param: &mut [f32],
    grad: &[f32],
    [beta1, beta2]: [f64; 2],
    eps: f64,
    lr: f64,
    weight_decay: f64,
) {
    let steps = slot.steps as f64;
    let keep = (1.0 - lr * weight_decay) as f32;
    let blend = (1.0 - beta1) as f32;
    let (decay2, blend2) = (beta2 as f32, (1.0 - beta2) as f32);
    let step_size = (lr / (1.0 - beta1.powf(steps))) as f32;
    let correction2 = (1.0 - beta2.powf(steps)).sqrt() as f32;
    let eps = eps as f32;
    let chunks = param
        .par_chunks_mut(CHUNK)
        .zip(grad.par_chunks(CHUNK))
        .zip(slot.first.as_mut_slice().par_chunks_mut(CHUNK))
        .zip(slot.second.as_mut_slice().par_chunks_mut(CHUNK));
    chunks.for_each(|(((param, grad), exp_avg), exp_avg_sq)| {
        for (((p, &g), m), v) in param.iter_mut().zip(grad).zip(exp_avg).zip(exp_avg_sq) {
            *m += blend * (g - *m);
            *v = decay2 * *v + blend2 * g * g;
            let denominator = v.sqrt() / correction2 + eps;
            *p = *p * keep - step_size * (*m / denominator);
        }
    });
}

#[cfg(test)]
mod tests;
