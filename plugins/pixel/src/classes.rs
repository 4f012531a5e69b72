//! Prediction distillation of classifiers and segmenters: an image, or a cell of its grid, is a sample.

use kd_plugin::burn::tensor::Tensor;
use kd_plugin::{Divergence, Inputs, MethodError, Taps, resize_bilinear};

use crate::padding::{Frame, mask};
use crate::task::LOGITS;

/// # Errors
/// If the classes of both are not as many.
pub fn check(taps: &Taps) -> Result<(), MethodError> {
    let classes = [
        taps.student(LOGITS)?.channels()?,
        taps.teacher(LOGITS)?.channels()?,
    ];
    if classes[0] == classes[1] {
        return Ok(());
    }
    Err(MethodError::shape(format!(
        "`{LOGITS}`: {} classes in the student, {} in the teacher; take a teacher of the same classes, or \
         set `kd = \"off\"`",
        classes[0], classes[1]
    )))
}

/// `loss_kd`, mean over samples of `T² KL(teacher ‖ student)` at the temperature `T`, and the share of
/// samples to which both give the same class.
///
/// A segmenter's student logits are brought to the teacher's grid (bilinear, half-pixel centres, as for
/// its own loss); cells of padding do not count.
///
/// # Errors
/// If a tap is missing.
pub fn loss(
    inputs: &Inputs<'_>,
    temperature: f64,
    frame: Option<&Frame>,
) -> Result<(Tensor<1>, Tensor<1>), MethodError> {
    let teacher = inputs.teacher(LOGITS)?;
    let [n, classes, h, w] = teacher.dims();
    let student = resize_bilinear(inputs.student(LOGITS)?, [h, w]);
    let mask: Tensor<2> = mask(frame, &teacher).reshape([n, h * w]);
    let rows =
        |map: Tensor<4>| -> Tensor<3> { map.permute([0, 2, 3, 1]).reshape([n, h * w, classes]) };
    let (student, teacher) = (rows(student), rows(teacher));
    let best = |logits: &Tensor<3>| logits.clone().detach().argmax(2);
    let agree: Tensor<2> = best(&student).equal(best(&teacher)).float().squeeze_dim(2);
    let kl = Divergence::Softmax.kl(student, teacher, temperature);
    let count = mask.clone().sum().clamp_min(1.0);
    Ok((
        (kl * mask.clone()).sum() / count.clone(),
        (agree * mask).sum() / count,
    ))
}
