//! A trained model on image files.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};

use crate::data::{Record, RgbPixels, Transform, decode};
use crate::detection::Detections;
use crate::model::{ForwardRequest, Output};

use super::EngineError;
use super::export::Trained;

/// Detections on one file, in pixels of the file; computed where the weights lie.
///
/// # Errors
/// If the file is not a readable image.
pub fn predict(model: &Trained, path: &Path) -> Result<(Arc<RgbPixels>, Detections), EngineError> {
    let pixels = decode(path)?;
    let record = Record {
        image_id: 0,
        source: path.display().to_string(),
        size: pixels.size,
        objects: Vec::new(),
    };
    let transform = Transform::new(&model.transform)?;
    let sample = transform.apply(&record, &pixels, false);
    let [height, width] = sample.meta.size;
    let divisor = model.model.size_divisor();
    let [padded_h, padded_w] = [height, width].map(|side| side.next_multiple_of(divisor));
    let mut input = vec![0.0f32; 3 * padded_h * padded_w];
    for (row, values) in sample.image.chunks_exact(width).enumerate() {
        let (plane, y) = (row / height, row % height);
        let start = (plane * padded_h + y) * padded_w;
        input[start..start + width].copy_from_slice(values);
    }
    let images = TensorData::new(input, [1, 3, padded_h, padded_w]);
    let images = Tensor::<4>::from_data(images, &model.weights.device());
    let request = ForwardRequest {
        training: false,
        taps: Vec::new(),
        stop_at_taps: false,
    };
    let output = model
        .model
        .forward(model.weights.tensors(), images, &request)
        .output;
    let (Some(detector), Some(Output::Detection(head))) = (model.model.as_detector(), output)
    else {
        todo!()
    };
    let found = detector.detect(&head, [padded_h, padded_w], &[[height, width]]);
    let mut detections = found.into_iter().next().unwrap_or_default();
    for bbox in &mut detections.boxes_xyxy {
        *bbox = sample.meta.to_original(*bbox);
    }
    Ok((Arc::new(pixels), detections))
}
