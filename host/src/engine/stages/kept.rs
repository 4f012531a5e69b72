//! Finished stages, kept for other jobs by a hash of all that they depend on.
//!
//! ```text
//! <cache_dir>/stage-<key>/
//!   key.json              what the key was made of, for people
//!   result.json  student.safetensors  predictions.json  fingerprint.json    as the run wrote them
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::{Config, ModelConfig, TeacherConfig};
use crate::data::fingerprint;
use crate::engine::EngineError;
use crate::engine::arm::{self, Arm};
use crate::engine::fingerprint::FINGERPRINT_FILE;
use crate::engine::job::Chosen;
use crate::engine::teacher::Teachers;
use crate::engine::train::{Datasets, config_hash};
use crate::eval::PREDICTIONS_FILE;
use crate::state::{StateDict, hex, publish_folder, write_atomically};

use super::failed;

const KEY_FILE: &str = "key.json";
/// What another job needs of the run, the file that marks it as done last.
const FILES: [&str; 4] = [
    "student.safetensors",
    PREDICTIONS_FILE,
    FINGERPRINT_FILE,
    "result.json",
];

/// The place in the cache of the stage that a configuration describes.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    made_of: Value,
}

impl Kept {
    /// Computes the key. Files count by what is in them, whatever they are called.
    ///
    /// # Errors
    /// If the initial weights cannot be read.
    pub(super) fn new(
        config: &Config,
        datasets: &Datasets,
        chosen: &[Chosen<'_>],
        teachers: &Teachers,
    ) -> Result<Self, EngineError> {
        let mut nameless = config.clone();
        let weights = std::mem::take(&mut nameless.student.weights);
        let initial = match weights.as_os_str().is_empty() {
            true => None,
            false => Some(StateDict::load(&weights)?.hash()),
        };
        let all = nameless.teachers.values_mut();
        for teacher in all.chain([&mut nameless.teacher]) {
            without_files(teacher);
        }
        let entries = nameless.distill.methods.values_mut();
        for entry in entries.chain([&mut nameless.distill.single]) {
            entry.plugin.clear();
        }
        let plugins = chosen.iter();
        let plugins = plugins.map(|c| json!([c.label, c.manifest.id, c.library.sha256()]));
        let teachers = teachers.iter();
        let teachers = teachers.map(|(name, teacher)| json!([name, teacher.hash()]));
        let made_of = json!({
            "kdhost": env!("CARGO_PKG_VERSION"),
            "files": FILES,
            "device": config.compute_device().kind(),
            "config": config_hash(&nameless),
            "training_set": fingerprint(datasets.train.as_ref()),
            "evaluation_set": fingerprint(datasets.val.as_ref()),
            "initial_weights": initial,
            "plugins": plugins.collect::<Vec<Value>>(),
            "teachers": teachers.collect::<Vec<Value>>(),
        });
        let key = hex(&Sha256::digest(made_of.to_string()));
        Ok(Kept {
            folder: config.cache_dir.join(format!("stage-{}", &key[..16])),
            made_of,
        })
    }

    /// Copies what is kept to `folder`, which gets nothing else; none if nothing is.
    ///
    /// # Errors
    /// If the files are not those that were written, or the file system says no.
    pub(super) fn take(&self, folder: &Path) -> Result<Option<Arm>, EngineError> {
        if arm::done(&self.folder)?.is_none() {
            return Ok(None);
        }
        copy(&self.folder, folder).map_err(|e| failed(folder, &e))?;
        arm::done(folder)
    }

    /// Keeps the finished run in `folder`; what is there already stays.
    ///
    /// # Errors
    /// If the file system says no.
    pub(super) fn store(&self, folder: &Path) -> Result<(), EngineError> {
        let written = publish_folder(&self.folder, |partial| {
            copy(folder, partial)?;
            let json = serde_json::to_string_pretty(&self.made_of).expect("a key is plain data");
            write_atomically(&partial.join(KEY_FILE), (json + "\n").as_bytes())
        });
        written.map_err(|e| failed(&self.folder, &e))
    }
}

/// The files, whole or not at all, the mark that a run is done last.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for name in FILES {
        let bytes = fs::read(from.join(name))?;
        write_atomically(&to.join(name), &bytes)?;
    }
    Ok(())
}

/// Weights are hashed for themselves.
fn without_files(teacher: &mut TeacherConfig) {
    teacher.checkpoint = PathBuf::new();
    teacher.model = ModelConfig {
        weights: PathBuf::new(),
        ..teacher.model.clone()
    };
}
