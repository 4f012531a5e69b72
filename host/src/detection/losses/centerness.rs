//! How central the foreground locations are in their objects: binary cross-entropy on a logit.

use burn::tensor::{Tensor, TensorData, activation};

use super::boxes::{Foreground, connected_zero};
use crate::boxes::BoxXyxy;
use crate::detection::BoxCoder;
use crate::known_gradient::with_known_gradient;
use crate::maps::Maps;

/// Cross-entropy of the foreground, weighted; see [`super::fcos_losses`].
pub(super) fn centerness_loss(centerness: &Maps, foreground: &Foreground) -> Tensor<1> {
    let all = centerness.cells();
    if foreground.is_empty() {
        return connected_zero(all);
    }
    let logits = foreground.select::<1>(all); // [F, 1]
    let device = all.device().inner();
    let column = |values: Vec<f32>| {
        let shape = [values.len(), 1];
        Tensor::<2>::from_data(TensorData::new(values, shape), &device)
    };
    let targets = column(foreground.pairs().map(|(o, a)| target(o, a)).collect());
    let weights = column(foreground.weights().to_vec());
    let z = logits.clone().inner();
    // max(z, 0) − t z + ln(1 + exp(−|z|)): finite for logits of any size.
    let softplus = z.clone().clamp_min(0.0) + z.clone().abs().neg().exp().log1p();
    let value = ((softplus - targets.clone() * z.clone()) * weights.clone()).sum();
    // Of the formula as it stands, the derivative at 0 would miss the half of the sigmoid.
    let gradient = (activation::sigmoid(z) - targets) * weights;
    with_known_gradient(logits, value, gradient)
}

/// `ln(1 + exp(z))`, finite for `z` of any size.
pub(in crate::detection) fn softplus(z: f32) -> f32 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

/// Cross-entropy of one location's `logit`, as [`centerness_loss`] without weight.
pub(in crate::detection) fn centerness_of_location(
    logit: f32,
    object: BoxXyxy,
    location: BoxXyxy,
) -> f32 {
    softplus(logit) - target(object, location) * logit
}

/// `√(min(l, r) / max(l, r) · min(t, b) / max(t, b))` of the distances from the centre of a location's
/// square to the sides of its object: 1 in the middle, 0 at a side.
pub(super) fn target(object: BoxXyxy, location: BoxXyxy) -> f32 {
    let [left, top, right, bottom] = BoxCoder::EdgeDistances.encode(object, location);
    let evenness = |a: f32, b: f32| a.min(b) / a.max(b);
    (evenness(left, right) * evenness(top, bottom)).sqrt()
}
