//! An evaluation image by image: what another set of images, or a resample of these, would have given
//! can be computed from it without running the model again.

use std::path::Path;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::coco::Prediction;
use crate::config::Task;

/// The file of a run that holds it.
pub const PREDICTIONS_FILE: &str = "predictions.json";

/// An evaluation, image by image.
#[derive(Clone, Debug, PartialEq)]
pub enum ByImage {
    /// Final detections in pixels of the original images; category ids are labels plus one.
    Detection(Vec<Prediction>),
    /// One an image.
    Segmentation(Vec<ImageConfusion>),
    /// One an image.
    Classification(Vec<ImageClass>),
}

/// Pixels of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfusion {
    /// Id within the data set.
    pub image_id: i64,
    /// `[true label, predicted label, pixels]`, where there are any.
    pub pixels: Vec<[u64; 3]>,
}

/// The class of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageClass {
    /// Id within the data set.
    pub image_id: i64,
    /// True label.
    pub label: usize,
    /// Label with the highest logit.
    pub predicted: usize,
    /// Labels before the true one; 0: it was predicted.
    pub rank: usize,
}

/// A file of predictions cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{path}`: {reason}")]
pub struct PredictionsError {
    /// The file.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl ByImage {
    /// A JSON list: of a detector in COCO's format of results (`image_id`, `category_id`, `bbox` as
    /// `[x, y, width, height]`, `score`), with the data set's own `category_ids`, one a class.
    ///
    /// # Panics
    /// If a prediction has a class that is not there.
    #[must_use]
    pub fn to_json(&self, category_ids: &[i64]) -> String {
        let text = match self {
            ByImage::Detection(predictions) => {
                let of_data_set = |p: &Prediction| Prediction {
                    category_id: category_ids[(p.category_id - 1) as usize],
                    ..*p
                };
                serde_json::to_string(&predictions.iter().map(of_data_set).collect::<Vec<_>>())
            }
            ByImage::Segmentation(images) => serde_json::to_string(images),
            ByImage::Classification(images) => serde_json::to_string(images),
        };
        text.expect("numbers are plain data")
    }

    /// Reads what [`ByImage::to_json`] wrote.
    ///
    /// # Errors
    /// If the file cannot be read, is of another task, or names a category that is not there.
    pub fn load(path: &Path, task: Task, category_ids: &[i64]) -> Result<Self, PredictionsError> {
        let error = |reason: String| PredictionsError {
            path: path.display().to_string(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
        let by_image = match task {
            Task::Detection => {
                let mut predictions: Vec<Prediction> = parse(&text).map_err(error)?;
                for prediction in &mut predictions {
                    let id = prediction.category_id;
                    let label = category_ids.iter().position(|known| *known == id);
                    let label = label.ok_or_else(|| error(format!("no category has id {id}")))?;
                    prediction.category_id = label as i64 + 1;
                }
                ByImage::Detection(predictions)
            }
            Task::Segmentation => ByImage::Segmentation(parse(&text).map_err(error)?),
            Task::Classification => ByImage::Classification(parse(&text).map_err(error)?),
        };
        Ok(by_image)
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_goes_through_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PREDICTIONS_FILE);
        let prediction = |category_id| Prediction {
            image_id: 7,
            category_id,
            bbox_xywh: [1.0, 2.5, 3.0, 4.0],
            score: 0.25,
        };
        let cases = [
            (
                Task::Detection,
                ByImage::Detection(vec![prediction(1), prediction(2)]),
            ),
            (
                Task::Segmentation,
                ByImage::Segmentation(vec![ImageConfusion {
                    image_id: 3,
                    pixels: vec![[0, 0, 5], [1, 0, 2]],
                }]),
            ),
            (
                Task::Classification,
                ByImage::Classification(vec![ImageClass {
                    image_id: 3,
                    label: 1,
                    predicted: 0,
                    rank: 1,
                }]),
            ),
        ];
        for (task, by_image) in cases {
            std::fs::write(&path, by_image.to_json(&[18, 90])).unwrap();
            assert_eq!(ByImage::load(&path, task, &[18, 90]).unwrap(), by_image);
        }
        // What a detector writes is COCO's format, with the data set's ids.
        let text = ByImage::Detection(vec![prediction(2)]).to_json(&[18, 90]);
        assert_eq!(
            text,
            r#"[{"image_id":7,"category_id":90,"bbox":[1.0,2.5,3.0,4.0],"score":0.25}]"#
        );
        std::fs::write(&path, &text).unwrap();
        let error = ByImage::load(&path, Task::Detection, &[18]).unwrap_err();
        assert!(error.to_string().contains("id 90"), "{error}");
        let error = ByImage::load(&path, Task::Segmentation, &[18]).unwrap_err();
        assert!(error.to_string().contains(PREDICTIONS_FILE), "{error}");
    }
}
