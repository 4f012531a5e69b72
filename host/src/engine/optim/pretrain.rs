//! The optimizer of a phase of a method alone.

use std::collections::BTreeMap;

use crate::distill::Distiller;
use crate::distill::schedule::PretrainPhase;
use crate::state::StateDict;
use crate::values::Values;

use super::groups::decay_by_rank;
use super::{Algorithm, Optimizer, OptimizerError};

/// SGD by a phase's own recipe; nothing of the run's optimizers is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct PretrainOptimizer {
    optimizer: Optimizer,
    weight_decay: f64,
}

impl PretrainOptimizer {
    /// Without momentum yet.
    #[must_use]
    pub fn new(phase: &PretrainPhase) -> Self {
        let momentum = phase.recipe.momentum;
        PretrainOptimizer {
            optimizer: Optimizer::new(Algorithm::Sgd { momentum }),
            weight_decay: phase.recipe.weight_decay,
        }
    }

    /// Begins a step, in which every parameter may be updated once.
    pub fn begin_step(&mut self) {
        self.optimizer.begin_step();
    }

    /// Updates the `index`-th parameter of a method, which optimizers call `name`. Vectors and scalars
    /// do not decay: a plan does not say what a parameter is, and biases and norms have these ranks.
    pub fn update(
        &mut self,
        distiller: &mut Distiller,
        index: usize,
        name: &str,
        gradient: &Values,
        lr: f64,
    ) {
        let shape = distiller.param_shapes().nth(index);
        let shape = shape.expect("a gradient has its parameter");
        let decay = decay_by_rank(shape, self.weight_decay, 0.0);
        match gradient {
            Values::Host(gradient) => {
                let param = &mut distiller.params_mut()[index].data;
                self.optimizer.update(name, param, gradient, lr, decay);
            }
            Values::Device(gradient) => distiller.replace_param(index, |param| {
                self.optimizer
                    .updated(name, param, gradient.clone(), lr, decay)
            }),
        }
    }

    /// See [`Optimizer::to_state`].
    #[must_use]
    pub fn to_state(&self) -> StateDict {
        self.optimizer.to_state()
    }

    /// See [`Optimizer::load_state`].
    ///
    /// # Errors
    /// As there.
    pub fn load_state(
        &mut self,
        state: &StateDict,
        lengths: &BTreeMap<String, usize>,
    ) -> Result<(), OptimizerError> {
        self.optimizer.load_state(state, lengths)
    }
}
