//! What goes into a run and what is left of it, as hashes: `fingerprint.json` of a run directory. Runs
//! that are compared prove by it that they had the same weights to begin with, the same images in the
//! same order under the same draws, and were computed and judged in the same way.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::EngineError;
use super::environment::Environment;
use super::teacher::Teachers;
use super::train::{Datasets, config_hash};
use crate::config::Config;
use crate::data::{Batch, Loader, fingerprint};
use crate::state::{StateDict, hex, write_atomically};

/// The file's name.
pub const FINGERPRINT_FILE: &str = "fingerprint.json";
const SCHEMA: u32 = 1;

/// Facts by key, each a hash, a number or a name.
///
/// At the start: `settings` (all but methods and stages), `student_init` (initial weights), `train_images`, `eval_images` (ids, sizes, annotations),
/// `order` (ids of the images of every batch of the run), `first_batch`, `last_batch` (pixels and
/// targets as they are fed in), `steps` (optimizer steps), `host` (this program's file), `plugin.LABEL`, `teacher.NAME`, `device`, `cpu`,
/// `threads`. At the end `first_batch` is read once more, `last_batch` is the one that was trained on, and
/// `protocol`, `image_list` and `student_shapes` say what was judged.
pub type Facts = BTreeMap<String, String>;

/// The fingerprint of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    schema: u32,
    /// One where it was started, and one more wherever it was continued under other facts.
    pub starts: Vec<Facts>,
    /// When it was done.
    pub end: Option<Facts>,
}

impl Fingerprint {
    /// Reads that of the run in `folder`; none where there is no file yet.
    ///
    /// # Errors
    /// If the file is not one.
    pub fn load(folder: &Path) -> Result<Option<Self>, EngineError> {
        let path = folder.join(FINGERPRINT_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(path, error)),
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| failed(path, error))
    }

    /// Notes the facts under which the run in `folder` starts or goes on.
    pub(super) fn note_start(folder: &Path, facts: Facts) -> Result<(), EngineError> {
        let known = Self::load(folder)?;
        let mut fingerprint = known.unwrap_or(Fingerprint {
            schema: SCHEMA,
            starts: Vec::new(),
            end: None,
        });
        if !fingerprint.starts.contains(&facts) {
            fingerprint.starts.push(facts);
        }
        fingerprint.save(folder)
    }

    /// Notes the facts when the run in `folder` is done.
    pub(super) fn note_end(folder: &Path, facts: Facts) -> Result<(), EngineError> {
        let mut fingerprint = Self::load(folder)?.expect("a run that ends has begun");
        fingerprint.end = Some(facts);
        fingerprint.save(folder)
    }

    fn save(&self, folder: &Path) -> Result<(), EngineError> {
        let path = folder.join(FINGERPRINT_FILE);
        let json = serde_json::to_string_pretty(self).expect("facts are plain data") + "\n";
        write_atomically(&path, json.as_bytes()).map_err(|error| failed(path, error))
    }
}

fn failed(path: PathBuf, error: impl ToString) -> EngineError {
    EngineError::Result {
        path,
        reason: error.to_string(),
    }
}

/// Steps of a run, as its loader makes them.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    /// Of the run.
    pub total: u64,
    /// Of an epoch.
    pub per_epoch: u64,
    /// Batches of a step.
    pub accumulate: usize,
}

impl Steps {
    /// Epoch and first batch of the last step.
    fn last(self) -> (u64, usize) {
        let step = self.total - 1;
        let batch = (step % self.per_epoch) as usize * self.accumulate;
        (step / self.per_epoch, batch)
    }
}

/// The facts of a run at its start.
pub(super) fn at_start(
    config: &Config,
    initial: &StateDict,
    loader: &Loader,
    steps: Steps,
    datasets: &Datasets,
    teachers: &Teachers,
    environment: &Environment,
) -> Result<Facts, EngineError> {
    let mut facts: Facts = [
        ("settings", settings(config)),
        ("student_init", initial.hash()),
        ("train_images", fingerprint(datasets.train.as_ref())),
        ("eval_images", fingerprint(datasets.val.as_ref())),
        ("order", order(loader, steps)),
        ("first_batch", batches_at(loader, 0, 0, steps.accumulate)?),
        ("steps", steps.total.to_string()),
        ("host", host_hash()),
        ("device", environment.device.to_string()),
        ("threads", environment.threads.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    facts.insert("last_batch".into(), last_batch(loader, steps)?);
    if let Some(cpu) = &environment.cpu {
        facts.insert("cpu".into(), cpu.clone());
    }
    for (label, plugin) in &environment.plugins {
        facts.insert(format!("plugin.{label}"), plugin.sha256.clone());
    }
    for (name, teacher) in teachers {
        facts.insert(format!("teacher.{name}"), teacher.hash().to_owned());
    }
    Ok(facts)
}

/// Hash of the settings that runs with different methods have in common.
fn settings(config: &Config) -> String {
    let base = Config::base();
    config_hash(&Config {
        distill: base.distill,
        stage: base.stage,
        ..config.clone()
    })
}

/// What of the facts is read or known anew at the end.
pub(super) fn at_end(
    loader: &Loader,
    accumulate: usize,
    last_batch: String,
    metrics: &crate::eval::Metrics,
    student: &StateDict,
) -> Result<Facts, EngineError> {
    let facts = [
        ("first_batch", batches_at(loader, 0, 0, accumulate)?),
        ("last_batch", last_batch),
        ("protocol", metrics.protocol().to_owned()),
        ("image_list", metrics.image_list_hash().to_owned()),
        ("student_shapes", shapes(student)),
    ];
    Ok(facts.map(|(key, value)| (key.to_owned(), value)).into())
}

/// Hash of the batches of the last step, read now.
pub(super) fn last_batch(loader: &Loader, steps: Steps) -> Result<String, EngineError> {
    let (epoch, batch) = steps.last();
    batches_at(loader, epoch, batch, steps.accumulate)
}

/// Hash of batches as they are fed to the student: images, targets, ids. Views of teachers are not part
/// of it.
pub(super) fn hash_batches(batches: &[Batch]) -> String {
    let mut hasher = Sha256::new();
    for batch in batches {
        for extent in batch.shape {
            hasher.update((extent as u64).to_le_bytes());
        }
        for value in &batch.images {
            hasher.update(value.to_bits().to_le_bytes());
        }
        for targets in &batch.targets {
            hasher.update((targets.labels.len() as u64).to_le_bytes());
            for value in targets.boxes_xyxy.iter().flatten() {
                hasher.update(value.to_bits().to_le_bytes());
            }
            for &label in &targets.labels {
                hasher.update((label as u64).to_le_bytes());
            }
        }
        hasher.update(&batch.label_maps);
        for &label in &batch.labels {
            hasher.update((label as u64).to_le_bytes());
        }
        for meta in &batch.metas {
            hasher.update(meta.image_id.to_le_bytes());
            hasher.update([u8::from(meta.flipped)]);
        }
    }
    hex(&hasher.finalize())
}

/// Hash of `count` batches from `first` on, read now.
fn batches_at(
    loader: &Loader,
    epoch: u64,
    first: usize,
    count: usize,
) -> Result<String, EngineError> {
    let mut batches = Vec::with_capacity(count);
    for index in first..first + count {
        batches.extend(loader.batch(epoch, index)?);
    }
    Ok(hash_batches(&batches))
}

/// Hash of the ids of the images of every step, in order.
fn order(loader: &Loader, steps: Steps) -> String {
    let mut hasher = Sha256::new();
    let of_step = steps.accumulate * loader.options().batch_size;
    let mut left = steps.total;
    let mut epoch = 0;
    while left > 0 {
        let here = left.min(steps.per_epoch);
        let ids = loader.order(epoch);
        for id in ids.iter().take(here as usize * of_step) {
            hasher.update(id.to_le_bytes());
        }
        left -= here;
        epoch += 1;
    }
    hex(&hasher.finalize())
}

/// Hash of names and shapes: what it costs to run the student depends on them.
fn shapes(student: &StateDict) -> String {
    let mut hasher = Sha256::new();
    for (name, array) in &student.entries {
        hasher.update(format!("{name} {:?}\n", array.shape));
    }
    hex(&hasher.finalize())
}

/// SHA-256 of this program's file, as it was when it was started; `unknown` where the system does not
/// show it.
fn host_hash() -> String {
    static HASH: OnceLock<String> = OnceLock::new();
    let read = || {
        // The file that runs, even where another has taken its place since.
        let bytes = fs::read("/proc/self/exe")
            .or_else(|_| std::env::current_exe().and_then(fs::read))
            .ok()?;
        Some(hex(&Sha256::digest(bytes)))
    };
    HASH.get_or_init(|| read().unwrap_or_else(|| "unknown".into()))
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Task;
    use crate::data::{LoaderOptions, Split, open};

    fn loader(seed: u64) -> Loader {
        let mut config = Config::base();
        config.data.shapes.num_train = 10;
        config.data.batch_size = 2;
        let options = LoaderOptions::training(&config.data, seed, 32);
        let dataset = open(&config.data, Task::Detection, Split::Train).unwrap();
        Loader::new(dataset, options).unwrap()
    }

    #[test]
    fn batches_differ_in_every_part_of_what_is_fed_in() {
        let batch = loader(3).batch(0, 0).unwrap().unwrap();
        let base = hash_batches(std::slice::from_ref(&batch));
        let again = loader(3).batch(0, 0).unwrap().unwrap();
        assert_eq!(hash_batches(&[again]), base);
        let changes: [fn(&mut Batch); 6] = [
            |b| b.images[5] += 1e-6,
            |b| b.targets[0].boxes_xyxy[0][2] += 1e-3,
            |b| b.targets[0].labels[0] += 1,
            |b| b.metas.swap(0, 1),
            |b| b.metas[0].flipped ^= true,
            |b| b.label_maps.push(1),
        ];
        for change in changes {
            let mut changed = batch.clone();
            change(&mut changed);
            assert_ne!(hash_batches(&[changed]), base);
        }
    }

    #[test]
    fn the_order_is_that_of_the_steps_that_are_taken() {
        let steps = |total, accumulate| Steps {
            total,
            per_epoch: 5 / accumulate as u64,
            accumulate,
        };
        let of = |seed, total| order(&loader(seed), steps(total, 1));
        assert_eq!(of(3, 7), of(3, 7));
        assert_ne!(of(3, 7), of(3, 8), "one step more");
        assert_ne!(of(3, 7), of(4, 7), "another seed");
        // Two batches a step: two of the five of each epoch are whole steps.
        assert_eq!(order(&loader(3), steps(2, 2)), of(3, 4));
        assert_eq!(steps(7, 1).last(), (1, 1));
        assert_eq!(steps(2, 2).last(), (0, 2));
    }

    #[test]
    fn a_start_is_noted_once_and_another_one_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(Fingerprint::load(folder).unwrap(), None);
        let facts = |threads: &str| Facts::from([("threads".to_owned(), threads.to_owned())]);
        Fingerprint::note_start(folder, facts("2")).unwrap();
        Fingerprint::note_start(folder, facts("2")).unwrap();
        assert_eq!(Fingerprint::load(folder).unwrap().unwrap().starts.len(), 1);
        Fingerprint::note_start(folder, facts("1")).unwrap();
        Fingerprint::note_end(folder, facts("1")).unwrap();
        let fingerprint = Fingerprint::load(folder).unwrap().unwrap();
        assert_eq!(fingerprint.starts, [facts("2"), facts("1")]);
        assert_eq!(fingerprint.end, Some(facts("1")));
        fs::write(folder.join(FINGERPRINT_FILE), "{}").unwrap();
        assert!(Fingerprint::load(folder).is_err());
    }

    #[test]
    fn settings_are_those_without_methods() {
        let base = Config::base();
        let mut other = base.clone();
        other.distill.single.plugin = "libkd_x.so".into();
        assert_eq!(settings(&other), settings(&base));
        other.train.lr *= 2.0;
        assert_ne!(settings(&other), settings(&base));
    }
}
