//! The file of a trained model: weights under torchvision's names, and in its header what is needed
//! to run them: architecture, classes, input transform.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, ModelConfig, Task, TransformConfig};
use crate::model::weights::MODEL_ENTRY;
use crate::model::{self, Model};
use crate::state::StateDict;

use super::EngineError;
use super::weights::ModelWeights;

const MODEL: &str = MODEL_ENTRY;
const TASK: &str = "kdhost.task";
const CLASSES: &str = "kdhost.classes";
const TRANSFORM: &str = "kdhost.transform";

/// A trained model that can run.
pub struct Trained {
    /// What it was trained for.
    pub task: Task,
    /// Its architecture.
    pub model: Arc<dyn Model>,
    /// Its weights.
    pub weights: ModelWeights,
    /// Class names in label order.
    pub classes: Vec<String>,
    /// How images are prepared.
    pub transform: TransformConfig,
}

/// Writes `state`. Equal models give equal bytes: nothing of the method or the run is in the file.
///
/// # Errors
/// If the file system says no.
pub fn save(
    path: &Path,
    mut state: StateDict,
    config: &Config,
    classes: &[String],
) -> Result<(), EngineError> {
    let json = |value: serde_json::Result<String>| value.expect("a configuration is plain data");
    // Where its initial weights came from is no property of the model.
    let model = ModelConfig {
        weights: Default::default(),
        ..config.student.clone()
    };
    state.metadata.insert("format".into(), "pt".into());
    state
        .metadata
        .insert(MODEL.into(), json(serde_json::to_string(&model)));
    state
        .metadata
        .insert(TASK.into(), json(serde_json::to_string(&config.task)));
    state
        .metadata
        .insert(CLASSES.into(), json(serde_json::to_string(classes)));
    state.metadata.insert(
        TRANSFORM.into(),
        json(serde_json::to_string(&config.data.transform)),
    );
    Ok(state.save(path)?)
}

/// Reads a model that [`save`] wrote.
///
/// # Errors
/// If the file is unreadable, has no such header, or its weights do not fit.
pub fn load(path: &Path) -> Result<Trained, EngineError> {
    let state = StateDict::load(path)?;
    let entry = |key: &'static str| {
        state
            .metadata
            .get(key)
            .ok_or_else(|| EngineError::NotExported {
                path: path.into(),
                key,
            })
    };
    let bad = |key: &'static str| {
        move |_: serde_json::Error| EngineError::NotExported {
            path: path.into(),
            key,
        }
    };
    let model: ModelConfig = serde_json::from_str(entry(MODEL)?).map_err(bad(MODEL))?;
    let task: Task = serde_json::from_str(entry(TASK)?).map_err(bad(TASK))?;
    let classes: Vec<String> = serde_json::from_str(entry(CLASSES)?).map_err(bad(CLASSES))?;
    let transform: TransformConfig =
        serde_json::from_str(entry(TRANSFORM)?).map_err(bad(TRANSFORM))?;
    let built: Arc<dyn Model> = Arc::from(model::build(&model, task, classes.len())?);
    let weights = ModelWeights::from_state(built.as_ref(), &state)?;
    Ok(Trained {
        task,
        model: built,
        weights,
        classes,
        transform,
    })
}

/// Checks that a weight file was trained on `classes`; files without that header (torchvision's)
/// pass.
///
/// # Errors
/// If the file names other classes.
pub fn check_classes(
    path: &Path,
    state: &StateDict,
    classes: &[String],
) -> Result<(), EngineError> {
    let Some(text) = state.metadata.get(CLASSES) else {
        return Ok(());
    };
    let own: Vec<String> = serde_json::from_str(text).map_err(|_| EngineError::NotExported {
        path: path.into(),
        key: CLASSES,
    })?;
    if own == classes {
        return Ok(());
    }
    Err(EngineError::Result {
        path: path.into(),
        reason: format!(
            "trained on the classes {}, the data set has {}",
            own.join(", "),
            classes.join(", ")
        ),
    })
}
