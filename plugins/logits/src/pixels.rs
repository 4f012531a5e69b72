//! Logits of a segmenter: every cell of its grid is a location.

use kd_plugin::burn::tensor::Tensor;
use kd_plugin::{Divergence, Inputs, MethodError, Outputs, Taps, resize_bilinear};

use super::{Config, Kl, Locations, Reduction};

const TAP: &str = "logits";

/// Whether the student is a segmenter.
pub(super) fn predicts(taps: &Taps) -> bool {
    taps.student(TAP).is_ok()
}

pub(super) fn check(config: &Config, taps: &Taps) -> Result<(), MethodError> {
    let classes = [
        taps.student(TAP)?.channels()?,
        taps.teacher(TAP)?.channels()?,
    ];
    let refused = if config.kl == Kl::Bernoulli {
        "`kl = \"bernoulli\"` is for sigmoid heads; a segmenter's classes exclude each other: leave \
         `kl` at \"auto\""
    } else if config.reduction == Reduction::Foreground {
        "`reduction = \"foreground\"` is for detectors: a segmenter has no background of its own; \
         take \"mean\" or \"batch\""
    } else if config.locations != Locations::All || config.include_ignored {
        "`locations` and `include_ignored` choose among a detector's anchors; a segmenter's pixels \
         all count: leave them at their defaults"
    } else if classes[0] != classes[1] {
        return Err(MethodError::shape(format!(
            "`{TAP}`: {} classes in the student, {} in the teacher; take a teacher of the same classes",
            classes[0], classes[1]
        )));
    } else {
        return Ok(());
    };
    Err(MethodError::config(refused))
}

/// The student's logits are brought to the teacher's grid bilinearly, where the two differ.
pub(super) fn forward(config: &Config, inputs: &Inputs<'_>) -> Result<Outputs, MethodError> {
    let teacher = inputs.teacher(TAP)?;
    let [images, classes, height, width] = teacher.dims();
    let student = resize_bilinear(inputs.student(TAP)?, [height, width]);
    let rows = |map: Tensor<4>| -> Tensor<3> {
        map.permute([0, 2, 3, 1])
            .reshape([images, height * width, classes])
    };
    let kl = Divergence::Softmax.kl(rows(student), rows(teacher), config.temperature);
    let total = kl.sum();
    let pixels = (images * height * width) as f64;
    let loss = match config.reduction {
        Reduction::Batch => total.clone() / images as f64,
        _ => total.clone() / pixels,
    };
    Ok(Outputs::new()
        .loss("loss_kd", loss)
        .metric("mean_kl", total.detach() / pixels))
}
