//! What a method learned by itself, kept for later runs.
//!
//! ```text
//! <cache_dir>/method-<key>/
//!   key.json              what the key was made of, for people, and the SHA-256 of the file beside
//!   method.safetensors    param.NAME, buffer.NAME
//! ```
//!
//! The key is made of everything that the phases of a method alone depend on, and of nothing else: not
//! of weights of losses, labels, the run's length or its learning rate. A folder is written under
//! another name and then renamed, so it is whole if it is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::{Config, check_plugin_config};
use crate::data::{LoaderOptions, input_fingerprint};
use crate::distill::Distiller;
use crate::distill::schedule::PretrainPhase;
use crate::distill::targets::is_of_student;
use crate::state::{StateDict, hex, publish_folder, write_atomically};

use super::EngineError;
use super::job::{Chosen, configured};
use super::teacher::Teachers;
use super::train::Datasets;

/// Of the folder, and of what goes into its key.
const SCHEMA: u32 = 1;
const KEY_FILE: &str = "key.json";
const STATE_FILE: &str = "method.safetensors";

/// The place in the cache of what one method learns by itself under given circumstances.
#[derive(Clone, Debug)]
pub struct Pretrained {
    folder: PathBuf,
    key: String,
    made_of: Value,
}

/// What the phases of a method alone depend on.
pub struct Circumstances<'a> {
    /// Of the run.
    pub config: &'a Config,
    /// The method.
    pub chosen: &'a Chosen<'a>,
    /// The same, bound.
    pub distiller: &'a Distiller,
    /// The models it learns from.
    pub teachers: &'a Teachers,
    /// The images.
    pub datasets: &'a Datasets,
    /// How batches are made of them.
    pub loader: &'a LoaderOptions,
    /// The phases, with their lengths.
    pub phases: &'a [PretrainPhase],
}

/// `key.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    key: String,
    state_sha256: String,
    made_of: Value,
}

impl Pretrained {
    /// Computes the key.
    ///
    /// # Errors
    /// If the method's configuration is refused.
    pub fn new(of: &Circumstances<'_>) -> Result<Self, EngineError> {
        let made_of = made_of(of)?;
        let key = hash(&made_of);
        Ok(Pretrained {
            folder: of.config.cache_dir.join(format!("method-{}", &key[..16])),
            key,
            made_of,
        })
    }

    /// Where it is, or would be.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was learned, if it was.
    ///
    /// # Errors
    /// If a file is missing, damaged, or made of something else.
    pub fn load(&self) -> Result<Option<StateDict>, EngineError> {
        if !self.folder.is_dir() {
            return Ok(None);
        }
        let read = |name: &str| {
            fs::read(self.folder.join(name)).map_err(|e| self.refused(format!("`{name}`: {e}")))
        };
        let file: KeyFile = serde_json::from_slice(&read(KEY_FILE)?)
            .map_err(|e| self.refused(format!("`{KEY_FILE}`: {e}")))?;
        if file.key != self.key || hash(&file.made_of) != self.key {
            return Err(self.refused(format!(
                "`{KEY_FILE}` tells of other circumstances than its folder's name"
            )));
        }
        let bytes = read(STATE_FILE)?;
        if hex(&Sha256::digest(&bytes)) != file.state_sha256 {
            return Err(self.refused(format!("`{STATE_FILE}` is not the file that was written")));
        }
        let state = StateDict::from_bytes(&bytes, &self.folder.join(STATE_FILE))
            .map_err(|e| self.refused(e.to_string()))?;
        Ok(Some(state))
    }

    /// Keeps what was learned; what is there already stays.
    ///
    /// # Errors
    /// If the file system says no.
    pub fn store(&self, state: &StateDict) -> Result<(), EngineError> {
        let written = publish_folder(&self.folder, |folder| {
            let bytes = state.to_bytes();
            let file = KeyFile {
                key: self.key.clone(),
                state_sha256: hex(&Sha256::digest(&bytes)),
                made_of: self.made_of.clone(),
            };
            let mut json = serde_json::to_string_pretty(&file).expect("a key is plain data");
            json.push('\n');
            write_atomically(&folder.join(STATE_FILE), &bytes)?;
            write_atomically(&folder.join(KEY_FILE), json.as_bytes())
        });
        written.map_err(|e| self.refused(format!("it cannot be written: {e}")))
    }

    /// Says that the folder cannot be used, and what to do.
    pub fn refused(&self, reason: String) -> EngineError {
        EngineError::Pretrained {
            folder: self.folder.clone(),
            reason,
        }
    }
}

fn made_of(of: &Circumstances<'_>) -> Result<Value, EngineError> {
    let (config, entry) = (of.config, of.chosen.entry);
    let manifest = of.distiller.manifest();
    let method_config = check_plugin_config(
        &manifest.config_schema,
        &entry.config.config,
        &entry.key("config"),
        &manifest.id,
    )?;
    let method_config: Value =
        serde_json::from_str(&method_config).expect("a checked configuration is JSON");
    let taps = of.distiller.bindings().iter();
    let taps = taps.map(|tap| json!([tap.role, tap.name, tap.channels, tap.stride]));
    let transform = &config.data.transform;
    let mut teachers = BTreeMap::new();
    for (role, name) in &of.chosen.cast {
        let Some(teacher) = of.teachers.get(name) else {
            continue;
        };
        let configured = configured(config, name);
        let facts = json!({
            "weights": teacher.hash(),
            "model": without_weights(&configured.model),
            "transform": configured.transform(transform),
            "view": teacher.view(),
        });
        teachers.insert(role.clone(), facts);
    }
    let read = manifest.targets.iter().zip(&of.distiller.plan().target_use);
    let read: Vec<&str> = read
        .filter(|(_, read)| **read)
        .map(|(name, _)| name.as_str())
        .collect();
    // Anchors and their objects are the student's; nothing else of it plays a part.
    let student = read.iter().any(|name| is_of_student(name));
    let student = student.then(|| without_weights(&config.student));
    let phases = of.phases.iter().map(|phase| {
        json!({
            "name": phase.name,
            "index": phase.index,
            "steps": phase.steps,
            "pretrain": phase.recipe,
            "losses": phase.selection.losses,
            "params": phase.selection.params,
        })
    });
    Ok(json!({
        "schema": SCHEMA,
        "kdhost": env!("CARGO_PKG_VERSION"),
        "plugin_sha256": of.chosen.library.sha256(),
        "method": manifest.id,
        "config": method_config,
        "execution": entry.config.execution,
        "taps": taps.collect::<Vec<Value>>(),
        "targets": read,
        "student": student,
        "teachers": teachers,
        "training_set": input_fingerprint(of.datasets.train.as_ref(), transform),
        "filter_empty": of.loader.filter_empty,
        "on_error": of.loader.on_error,
        "size_divisor": of.loader.size_divisor,
        "batch_size": of.loader.batch_size,
        "accumulate": config.train.accumulate,
        "seed": config.seed,
        "grad_clip_norm": config.train.grad_clip_norm,
        "grad_clip_value": config.train.grad_clip_value,
        "precision": config.train.precision,
        "device": config.compute_device().kind(),
        "phases": phases.collect::<Vec<Value>>(),
    }))
}

/// An architecture, without the file that its weights came from: teachers' weights are hashed, the
/// student's play no part.
fn without_weights(model: &crate::config::ModelConfig) -> Value {
    let model = crate::config::ModelConfig {
        weights: PathBuf::new(),
        ..model.clone()
    };
    serde_json::to_value(model).expect("a configuration is plain data")
}

/// SHA-256 of a value with its keys in order.
fn hash(value: &Value) -> String {
    hex(&Sha256::digest(value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Array;

    fn place(cache: &Path) -> Pretrained {
        let made_of = json!({"seed": 3, "phases": [{"pretrain": {"lr": 0.1}}]});
        let key = hash(&made_of);
        Pretrained {
            folder: cache.join(format!("method-{}", &key[..16])),
            key,
            made_of,
        }
    }

    fn state() -> StateDict {
        let mut state = StateDict::default();
        let array = Array {
            shape: vec![2],
            data: vec![1.0, -2.0],
        };
        state.entries.insert("param.a".into(), array);
        state
    }

    #[test]
    fn what_was_kept_comes_back_and_is_not_replaced() {
        let cache = tempfile::tempdir().unwrap();
        let place = place(&cache.path().join("deep"));
        assert_eq!(place.load().unwrap(), None);
        place.store(&state()).unwrap();
        place.store(&StateDict::default()).unwrap();
        assert_eq!(place.load().unwrap(), Some(state()));
        let entries = fs::read_dir(cache.path().join("deep")).unwrap();
        assert_eq!(entries.count(), 1, "nothing half-written is left");
    }

    #[test]
    fn a_folder_that_is_not_what_was_written_is_refused_with_advice() {
        let cache = tempfile::tempdir().unwrap();
        let place = place(cache.path());
        let change = |name: &str, change: &dyn Fn(Vec<u8>) -> Option<Vec<u8>>| {
            place.store(&state()).unwrap();
            let path = place.folder().join(name);
            match change(fs::read(&path).unwrap()) {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let message = place.load().unwrap_err().to_string();
            let folder = place.folder().display().to_string();
            assert!(
                message.contains(&folder) && message.contains("remove"),
                "{message}"
            );
            fs::remove_dir_all(place.folder()).unwrap();
            message
        };
        let flip = |mut bytes: Vec<u8>| {
            *bytes.last_mut().unwrap() ^= 1;
            Some(bytes)
        };
        assert!(change(STATE_FILE, &flip).contains("not the file that was written"));
        assert!(change(STATE_FILE, &|_| None).contains("`method.safetensors`"));
        assert!(change(KEY_FILE, &|_| Some(b"{}".to_vec())).contains("`key.json`"));
        let other = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            Some(text.replace("\"seed\": 3", "\"seed\": 4").into_bytes())
        };
        assert!(change(KEY_FILE, &other).contains("other circumstances"));
    }
}
