//! A trained model on image files.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};

use crate::data::{LabelMap, Record, RgbPixels, Transform, decode};
use crate::detection::Detections;
use crate::device::wait_for;
use crate::host_values::HostValues;
use crate::model::Output;
use crate::segmentation::{View, label_map};

use super::EngineError;
use super::evaluate::FULL_PASS;
use super::export::Trained;

/// What a model says of an image, in pixels of its file.
#[derive(Clone, Debug)]
pub enum Predicted {
    /// Boxes, scores, classes.
    Detections(Detections),
    /// A class for every pixel.
    Labels(LabelMap),
    /// Probability of each class, in label order.
    Classes(Vec<f32>),
}

/// What a model says of a file, and what it took.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The image as it was decoded.
    pub pixels: Arc<RgbPixels>,
    /// What the model says of it.
    pub predicted: Predicted,
    /// `[height, width]` of the network's input, padding included.
    pub input_size: [usize; 2],
    /// Seconds.
    pub times: PredictTimes,
}

/// Seconds from a decoded image to what the model says of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct PredictTimes {
    /// Resizing, normalising, padding.
    pub prepare: f64,
    /// The network.
    pub network: f64,
    /// From its output to boxes after suppression, labels of the file's pixels, or probabilities.
    pub answer: f64,
}

/// Prediction for one file; computed where the weights lie.
///
/// # Errors
/// If the file is not a readable image, or the device fails.
pub fn predict(model: &Trained, path: &Path) -> Result<Prediction, EngineError> {
    let pixels = decode(path)?;
    let record = Record {
        image_id: 0,
        source: path.display().to_string(),
        size: pixels.size,
        objects: Vec::new(),
    };
    let device = model.weights.device();
    let begun = Instant::now();
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
    let images = Tensor::<4>::from_data(images, &device);
    let prepared = Instant::now();
    let forward = model
        .model
        .forward(model.weights.tensors(), images, &FULL_PASS);
    wait_for(&device)?;
    let computed = Instant::now();
    let input_size = [padded_h, padded_w];
    let predicted = match forward.output.expect("a full pass goes to its end") {
        Output::Detection(head) => {
            let detector = model.model.as_detector().expect("it gave a head's output");
            let found = detector.detect(&head, input_size, &[[height, width]]);
            let mut detections = found.into_iter().next().unwrap_or_default();
            for bbox in &mut detections.boxes_xyxy {
                *bbox = sample.meta.to_original(*bbox);
            }
            Predicted::Detections(detections)
        }
        Output::Segmentation(logits) => {
            let view = View {
                input_size,
                size: [height, width],
                original_size: pixels.size,
                flipped: false,
            };
            Predicted::Labels(label_map(&logits, 0, &view))
        }
        Output::Classification(logits) => {
            let probabilities = softmax(logits, 1);
            Predicted::Classes(HostValues::of(&probabilities).as_slice().to_vec())
        }
    };
    Ok(Prediction {
        pixels: Arc::new(pixels),
        predicted,
        input_size,
        times: PredictTimes {
            prepare: (prepared - begun).as_secs_f64(),
            network: (computed - prepared).as_secs_f64(),
            answer: computed.elapsed().as_secs_f64(),
        },
    })
}
