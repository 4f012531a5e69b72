//! Checks of a model's table before anything is built from it.

use super::ModelError;
use crate::config::ModelConfig;

/// Backbone stages that `trainable_layers` can count: four stages and the stem.
const LAYERS: usize = 5;

/// # Errors
/// On the first key whose value makes no sense.
pub(super) fn validate(config: &ModelConfig, num_classes: usize) -> Result<(), ModelError> {
    if num_classes == 0 {
        return Err(ModelError::NoClasses);
    }
    for (key, value) in [
        ("tiny_width", config.tiny_width),
        ("fpn_channels", config.fpn_channels),
        ("head_convs", config.head_convs),
        ("anchor_base_size", config.anchor_base_size),
        ("topk_candidates", config.topk_candidates),
        ("detections_per_image", config.detections_per_image),
        ("fcos.norm_groups", config.fcos.norm_groups),
        ("deeplab.aspp_channels", config.deeplab.aspp_channels),
    ] {
        require(key, value >= 1, || {
            format!("got {value}, expected 1 or more")
        })?;
    }
    require(
        "tiny_blocks",
        config.tiny_blocks.iter().all(|&n| n >= 1),
        || {
            format!(
                "got {:?}, expected 1 or more for each of the four stages",
                config.tiny_blocks
            )
        },
    )?;
    let scale = config.pyramid_scale;
    require("pyramid_scale", scale.is_finite() && scale > 0.0, || {
        format!("got {scale}, expected more than 0")
    })?;
    require(
        "trainable_layers",
        config.trainable_layers <= LAYERS,
        || format!("got {}, expected 0 to {LAYERS}", config.trainable_layers),
    )?;
    for (key, values) in [
        ("anchor_scales", &config.anchor_scales),
        ("anchor_ratios", &config.anchor_ratios),
    ] {
        let positive = values.iter().all(|v| v.is_finite() && *v > 0.0);
        require(key, positive && !values.is_empty(), || {
            format!("got {values:?}, expected at least one positive number")
        })?;
    }
    for (key, value) in [
        ("box_loss_weight", config.box_loss_weight),
        ("focal_gamma", config.focal_gamma),
    ] {
        require(key, value.is_finite() && value >= 0.0, || {
            format!("got {value}, expected 0 or more")
        })?;
    }
    for (key, value) in [
        ("focal_alpha", config.focal_alpha),
        ("fg_iou_threshold", config.fg_iou_threshold),
        ("bg_iou_threshold", config.bg_iou_threshold),
        ("score_threshold", config.score_threshold),
        ("nms_threshold", config.nms_threshold),
    ] {
        require(key, (0.0..=1.0).contains(&value), || {
            format!("got {value}, expected 0 to 1")
        })?;
    }
    let base_size = config.fcos.base_size;
    // Half of 1 is rounded to 0: the squares of the finest level would be empty.
    require("fcos.base_size", base_size >= 2, || {
        format!("got {base_size}, expected 2 or more")
    })?;
    let radius = config.fcos.center_sampling_radius;
    require(
        "fcos.center_sampling_radius",
        radius.is_finite() && radius > 0.0,
        || format!("got {radius}, expected a positive number"),
    )?;
    require(
        "mobilenet_width",
        config.mobilenet_width.is_finite() && config.mobilenet_width > 0.0,
        || format!("got {}, expected a positive number", config.mobilenet_width),
    )?;
    let rates = config.deeplab.atrous_rates;
    require("deeplab.atrous_rates", !rates.contains(&0), || {
        format!("got {rates:?}, expected 1 or more for each of the three convolutions")
    })?;
    let stride = config.deeplab.output_stride;
    require(
        "deeplab.output_stride",
        [4, 8, 16].contains(&stride),
        || format!("got {stride}, expected 16, 8 or 4"),
    )?;
    let (bg, fg) = (config.bg_iou_threshold, config.fg_iou_threshold);
    require("bg_iou_threshold", bg <= fg, || {
        format!("got {bg}, expected at most `fg_iou_threshold`, which is {fg}")
    })
}

/// # Errors
/// On `key`, if the rule does not hold.
pub(super) fn require(
    key: &'static str,
    holds: bool,
    reason: impl FnOnce() -> String,
) -> Result<(), ModelError> {
    if holds {
        return Ok(());
    }
    Err(ModelError::Config {
        key,
        reason: reason(),
    })
}
