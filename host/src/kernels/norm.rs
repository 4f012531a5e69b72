//! Batch normalisation of channels-last maps as one operation, with residual and activation.

pub(super) mod kernel;

#[cfg(test)]
mod tests;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use super::activation::Activation;
use super::flex::{contiguous, own_values, owned, tensor, values};
use super::maps::{Shared, filled};
use super::simd::Level;

/// Added to variances: torch's default.
pub const EPSILON: f64 = 1e-5;

/// The operation as the tape sees it.
#[backend_extension(Flex, Autodiff)]
pub trait NormOps: Backend {
    /// `activation(gamma (x - mean) / sqrt(var + eps) + beta + residual)`, with `moments` `[2, C]` the mean
    /// and biased variance of `x`; a `residual` without elements adds nothing.
    fn maps_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self>;
}

/// Mean and variance, outside the tape.
#[backend_extension(Flex)]
pub trait MomentOps: Backend {
    /// `[2, C]`: mean and biased variance over the cells of `x` `[cells, C]`.
    fn maps_moments(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Forward and gradients on plain tensors.
pub trait NormKernels: Backend {
    /// As [`NormOps::maps_batch_norm`].
    fn forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self>;

    /// Gradients at `x`, `gamma`, `beta` and, if `residual`, at the residual.
    fn gradients(
        saved: Saved<Self>,
        gradient: FloatTensor<Self>,
        residual: bool,
    ) -> NormGradients<Self>;
}

/// What the backward pass needs.
#[derive(Debug)]
pub struct Saved<B: Backend> {
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    moments: FloatTensor<B>,
    /// The output, where there is an activation.
    y: Option<FloatTensor<B>>,
    /// The activation's largest result.
    bound: f32,
}

impl<B: Backend> Clone for Saved<B> {
    fn clone(&self) -> Self {
        Saved {
            x: self.x.clone(),
            gamma: self.gamma.clone(),
            moments: self.moments.clone(),
            y: self.y.clone(),
            bound: self.bound,
        }
    }
}

/// Gradients of one normalisation.
#[derive(Debug)]
pub struct NormGradients<B: Backend> {
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    residual: Option<FloatTensor<B>>,
}

/// `1 / sqrt(var + eps)`, in f64 as the sums.
fn inverse_deviations(moments: &[f32]) -> Vec<f64> {
    let (_, var) = moments.split_at(moments.len() / 2);
    var.iter()
        .map(|&v| 1.0 / (f64::from(v) + EPSILON).sqrt())
        .collect()
}

impl MomentOps for Flex {
    fn maps_moments(x: FlexTensor) -> FlexTensor {
        let x = contiguous(x);
        let channels = x.shape()[1];
        let moments = kernel::moments(Level::best(), values(&x), channels);
        let mut both = moments.mean;
        both.extend(moments.var);
        tensor(both, &[2, channels])
    }
}

impl NormKernels for Flex {
    fn forward(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        moments: FlexTensor,
        residual: FlexTensor,
        activation: Activation,
    ) -> FlexTensor {
        let (x, residual) = (contiguous(x), contiguous(residual));
        let (gamma, beta, moments) = (contiguous(gamma), contiguous(beta), contiguous(moments));
        let moments = values(&moments);
        let (scale, shift): (Vec<f32>, Vec<f32>) = inverse_deviations(moments)
            .iter()
            .zip(values(&gamma))
            .zip(values(&beta))
            .zip(moments)
            .map(|(((inverse, &gamma), &beta), &mean)| {
                let scale = f64::from(gamma) * inverse;
                (
                    scale as f32,
                    (f64::from(beta) - scale * f64::from(mean)) as f32,
                )
            })
            .unzip();
        let input = values(&x);
        let write = |y: Shared| {
            let residual = Some(values(&residual)).filter(|values| !values.is_empty());
            let affine = [&scale[..], &shift];
            kernel::apply(Level::best(), input, affine, residual, activation, y);
        };
        // SAFETY: the kernel writes every value.
        let y = unsafe { filled(input.len(), write) };
        tensor(y, &[x.shape()[0], x.shape()[1]])
    }

    fn gradients(saved: Saved<Flex>, gradient: FlexTensor, residual: bool) -> NormGradients<Flex> {
        let level = Level::best();
        let mut gradient = contiguous(gradient);
        let (x, y) = (contiguous(saved.x), saved.y.map(contiguous));
        let (gamma, moments) = (contiguous(saved.gamma), contiguous(saved.moments));
        let (x, moments) = (values(&x), values(&moments));
        let gate = y.as_ref().map(|y| kernel::Gate {
            y: values(y),
            bound: saved.bound,
        });
        let [cells, channels] = [gradient.shape()[0], gradient.shape()[1]];
        let mean = &moments[..channels];
        let shape = [cells, channels];

        // With a residual the gated gradient is wanted for itself; else it is gated twice.
        let gate_once = residual && gate.is_some();
        let centred = Some((x, mean));
        let (sums, gate) = if gate_once {
            gradient = owned(gradient);
            let own = own_values(&mut gradient).expect("it was made our own");
            let own = Shared::new(own);
            let sums = kernel::gradient_sums(level, own, gate, centred, channels, Some(own));
            (sums, None)
        } else {
            let dy = Shared::reading(values(&gradient));
            (
                kernel::gradient_sums(level, dy, gate, centred, channels, None),
                gate,
            )
        };

        let inverse = inverse_deviations(moments);
        let mut factors = [const { Vec::<f32>::new() }; 3];
        let (mut d_gamma, mut d_beta) = (Vec::new(), Vec::new());
        for channel in 0..channels {
            let (g, gxhat) = (sums.g[channel], sums.gx[channel] * inverse[channel]);
            d_gamma.push(gxhat as f32);
            d_beta.push(g as f32);
            // a (g − Σg/M − (x − mean) inverse Σgx̂/M), as a g + b x + c.
            let a = f64::from(values(&gamma)[channel]) * inverse[channel];
            let b = -a * inverse[channel] * gxhat / cells as f64;
            let c = -a * g / cells as f64 - b * f64::from(mean[channel]);
            for (factors, value) in factors.iter_mut().zip([a, b, c]) {
                factors.push(value as f32);
            }
        }
        let [a, b, c] = &factors;
        let factors = [&a[..], &b[..], &c[..]];
        let in_place = match own_values(&mut gradient) {
            Some(own) if !residual => {
                let own = Shared::new(own);
                kernel::input_gradient(level, own, gate, x, factors, own);
                true
            }
            _ => false,
        };
        let (dx, d_residual) = if in_place {
            (gradient, None)
        } else {
            let dy = Shared::reading(values(&gradient));
            let write = |dx| kernel::input_gradient(level, dy, gate, x, factors, dx);
            // SAFETY: the kernel writes every value.
            let dx = unsafe { filled(x.len(), write) };
            (tensor(dx, &shape), residual.then_some(gradient))
        };
        NormGradients {
            x: dx,
            gamma: tensor(d_gamma, &[channels]),
            beta: tensor(d_beta, &[channels]),
            residual: d_residual,
        }
    }
}

impl NormOps for Flex {
    fn maps_batch_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        moments: FlexTensor,
        residual: FlexTensor,
        activation: Activation,
    ) -> FlexTensor {
        <Flex as NormKernels>::forward(x, gamma, beta, moments, residual, activation)
    }
}

#[derive(Debug)]
struct NormBackward;

impl<B: Backend + NormKernels> Backward<B, 4> for NormBackward {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Saved<B>, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let residual = ops.parents[3].is_some();
        let found = B::gradients(ops.state, gradient, residual);
        let found = [
            Some(found.x),
            Some(found.gamma),
            Some(found.beta),
            found.residual,
        ];
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: Backend + NormOps + NormKernels, C: CheckpointStrategy> NormOps for Autodiff<B, C> {
    fn maps_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node(), residual.node()];
        let (x, gamma) = (x.into_primitive(), gamma.into_primitive());
        let (beta, moments) = (beta.into_primitive(), moments.into_primitive());
        let y = <B as NormKernels>::forward(
            x.clone(),
            gamma.clone(),
            beta,
            moments.clone(),
            residual.into_primitive(),
            activation,
        );
        let saved = Saved {
            x,
            gamma,
            moments,
            y: (activation != Activation::None).then(|| y.clone()),
            bound: activation.bound(),
        };
        match NormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

fn packed_moments(x: &Tensor<2>) -> Tensor<2> {
    let plain = x.clone().without_autodiff();
    Tensor::from_dispatch(<Dispatch as MomentOps>::maps_moments(plain.into_dispatch()))
}

/// A normalised map and the statistics that normalised it.
#[derive(Clone, Debug)]
pub struct Normalized {
    /// `[cells, C]`.
    pub output: Tensor<2>,
    /// `[C]`, plain.
    pub mean: Tensor<1>,
    /// `[C]`, plain, biased.
    pub var: Tensor<1>,
}

/// Batch normalisation (arXiv 1502.03167) by the statistics of `x`, plus `residual`, then `activation`.
///
/// # Shapes
/// - `x`, `residual`: `[cells, C]`; `gamma`, `beta`: `[C]`
///
/// # Gradients
/// With respect to `x` (through its statistics), `gamma`, `beta` and `residual`.
#[must_use]
pub fn batch_norm(
    x: Tensor<2>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    residual: Option<Tensor<2>>,
    activation: Activation,
) -> Normalized {
    let both = packed_moments(&x);
    let [_, channels] = both.dims();
    let [mean, var] = [0, 1].map(|row| both.clone().narrow(0, row, 1).reshape([channels]));
    let none = || Tensor::zeros([0, channels], &x.device().inner());
    let residual = residual.unwrap_or_else(none);
    let output = Tensor::from_dispatch(<Dispatch as NormOps>::maps_batch_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        both.into_dispatch(),
        residual.into_dispatch(),
        activation,
    ));
    Normalized { output, mean, var }
}
