//! The model to learn from: evaluation mode, no gradient, verified unchanged.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use crate::model::{Detector, Forward, ForwardRequest};

use super::EngineError;
use super::weights::ModelWeights;

/// A frozen detector.
pub struct Teacher {
    detector: Arc<dyn Detector>,
    weights: ModelWeights,
    hash: String,
}

impl Teacher {
    /// Freezes `weights`; their hash is taken now.
    #[must_use]
    pub fn new(detector: Arc<dyn Detector>, weights: ModelWeights) -> Self {
        let hash = weights.hash();
        Teacher {
            detector,
            weights,
            hash,
        }
    }

    /// The same on a plain `device`.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        Teacher {
            weights: self.weights.on(device),
            ..self
        }
    }

    /// Its architecture.
    #[must_use]
    pub fn detector(&self) -> &dyn Detector {
        self.detector.as_ref()
    }

    /// Hash of its weights and buffers.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Taps `names` of `images` `[N, 3, H, W]`, which lie where its weights do, computed no deeper than
    /// they need; and where `to_the_end`, what its head gives. Without either nothing runs.
    #[must_use]
    pub fn forward(&self, images: &Tensor<4>, names: &[String], to_the_end: bool) -> Forward {
        if names.is_empty() && !to_the_end {
            return Forward::default();
        }
        let request = ForwardRequest {
            training: false,
            taps: names.to_vec(),
            stop_at_taps: !to_the_end,
        };
        self.detector
            .forward(self.weights.tensors(), images.clone(), &request)
    }

    /// Checks that nothing wrote to the weights or buffers since they were frozen.
    ///
    /// # Errors
    /// If the hash differs.
    pub fn verify(&self) -> Result<(), EngineError> {
        let now = self.weights.hash();
        if now == self.hash {
            Ok(())
        } else {
            Err(EngineError::TeacherChanged {
                before: self.hash.clone(),
                after: now,
            })
        }
    }
}
