//! The same updates as operations on a device: weights and state never leave it.

use burn::tensor::Tensor;

use super::{Algorithm, Optimizer, Slot};
use crate::values::Values;

impl Optimizer {
    /// [`Optimizer::update`] for a parameter on a device: the updated parameter.
    ///
    /// # Shapes
    /// `param` and `grad` equal, plain.
    ///
    /// # Panics
    /// As [`Optimizer::update`].
    #[must_use]
    pub fn updated(
        &mut self,
        name: &str,
        param: Tensor<1>,
        grad: Tensor<1>,
        lr: f64,
        weight_decay: f64,
    ) -> Tensor<1> {
        assert_eq!(
            param.dims(),
            grad.dims(),
            "`{name}` and its gradient have one length"
        );
        let algorithm = self.algorithm;
        let slot = self.slot(name, param.dims()[0]);
        match algorithm {
            Algorithm::Sgd { momentum } => sgd(slot, param, grad, momentum, lr, weight_decay),
            Algorithm::AdamW { betas, eps } => {
                adamw(slot, param, grad, betas, eps, lr, weight_decay)
            }
        }
    }
}

fn sgd(
    slot: &mut Slot,
    param: Tensor<1>,
    grad: Tensor<1>,
    momentum: f64,
    lr: f64,
    weight_decay: f64,
) -> Tensor<1> {
    let mut step = grad;
    if weight_decay != 0.0 {
        step = step + param.clone().mul_scalar(weight_decay);
    }
    if !slot.first.is_empty() {
        // The first buffer is the gradient itself.
        if slot.steps > 1 {
            let buffer = slot.first.to_tensor(&param.device());
            step = buffer.mul_scalar(momentum) + step;
        }
        slot.first = Values::Device(step.clone());
    }
    param - step.mul_scalar(lr)
}

fn adamw(
    slot: &mut Slot,
    param: Tensor<1>,
    grad: Tensor<1>,
    [beta1, beta2]: [f64; 2],
    eps: f64,
    lr: f64,
    weight_decay: f64,
) -> Tensor<1> {
    let steps = slot.steps as f64;
    let device = param.device();
    let (m, v) = (
        slot.first.to_tensor(&device),
        slot.second.to_tensor(&device),
    );
    let m = m.clone() + (grad.clone() - m).mul_scalar(1.0 - beta1);
    let v = v.mul_scalar(beta2) + (grad.clone() * grad).mul_scalar(1.0 - beta2);
    slot.first = Values::Device(m.clone());
    slot.second = Values::Device(v.clone());
    let step_size = lr / (1.0 - beta1.powf(steps));
    let correction = (1.0 - beta2.powf(steps)).sqrt();
    let denominator = v.sqrt().div_scalar(correction).add_scalar(eps);
    param.mul_scalar(1.0 - lr * weight_decay) - (m / denominator).mul_scalar(step_size)
}
