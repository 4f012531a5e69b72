//! A run as one of its checkpoints has it: student, method and teacher, to be looked at. The run
//! itself is not touched, and may be going on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{Config, DistillConfig};
use crate::data::{Batch, Loader, LoaderOptions};
use crate::distill::Distiller;
use crate::distill::distiller::method_manifest;
use crate::distill::step::TapValues;
use crate::distill::taps::{STUDENT, TEACHER, matches, names, needs_teacher};
use crate::distill::targets::Sources;
use crate::model::{self, Detector, Forward, ForwardRequest};
use crate::plugin::{CallInfo, Library};

use super::EngineError;
use super::assemble::method;
use super::checkpoint::{self, Choice};
use super::job::{load_plugin, present_teacher};
use super::run_dir::RunDir;
use super::step::StepPosition;
use super::teacher::Teacher;
use super::train::{self, Datasets};
use super::weights::ModelWeights;

/// A run, opened.
pub struct Restored {
    /// The settings it was started with.
    pub config: Config,
    /// Its images.
    pub datasets: Datasets,
    /// The student's architecture.
    pub detector: Arc<dyn Detector>,
    /// The student's weights as they would be exported: the averaged ones, if the run averages.
    pub weights: ModelWeights,
    /// The method with its learned state; none in plain training.
    pub distiller: Option<Distiller>,
    /// The model to learn from, if the method asks for one.
    pub teacher: Option<Teacher>,
    /// The folder of the checkpoint.
    pub checkpoint: PathBuf,
    /// What the method is told: the checkpoint's place in the run, neither training nor a check.
    pub call: CallInfo,
}

/// What student, method and teacher make of one batch.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Taps of the student.
    pub student: TapValues,
    /// Taps of the teacher, where it has the same name.
    pub teacher: TapValues,
    /// The method's maps, by the student's tap in whose place the head reads them.
    pub maps: TapValues,
}

impl Restored {
    /// Opens the run in `run_dir` at a checkpoint. The optimizer's state is left alone.
    ///
    /// # Errors
    /// If there is no run or no such checkpoint, a file of it is damaged, the plugin is not the file
    /// that the run was trained with, the teacher is gone, or data set or method are refused.
    pub fn open(run_dir: &Path, choice: Choice) -> Result<Self, EngineError> {
        RunDir::require(run_dir)?;
        let config = Config::of_run(run_dir)?;
        let folder = checkpoint::find(run_dir, choice)?;
        let snapshot = checkpoint::load(&folder)?;
        let progress = &snapshot.progress;
        let library = same_plugin(&config, run_dir, progress.plugin_hash.as_deref())?;

        let datasets = Datasets::open(&config)?;
        let num_classes = datasets.train.classes().len();
        let detector: Arc<dyn Detector> = Arc::from(model::build(&config.student, num_classes)?);
        let exported = snapshot.ema.as_ref().unwrap_or(&snapshot.student);
        let weights = ModelWeights::from_state(detector.as_ref(), exported)?;
        let teacher = match &library {
            Some(library) if needs_teacher(&method_manifest(library, &config.distill.method)?) => {
                Some(present_teacher(&config, &datasets, run_dir)?)
            }
            _ => None,
        };

        let options = LoaderOptions::training(&config.data, config.seed, detector.size_divisor());
        let loader = Loader::new(Arc::clone(&datasets.train), options)?;
        let length = train::length(&loader, &config.train)?;
        let (mut distiller, schedule) = method(
            &config,
            library.as_ref(),
            detector.as_ref(),
            teacher.as_ref(),
            length,
        )?;
        if let Some(distiller) = &mut distiller {
            // A method without parameters and buffers takes an empty state.
            distiller.load_state(&snapshot.method.unwrap_or_default())?;
        }
        let at = StepPosition {
            step: progress.iter,
            total_steps: length[0],
            epoch: progress.epoch,
            seed: config.seed,
        };
        Ok(Restored {
            call: at.call(&schedule),
            config,
            datasets,
            detector,
            weights,
            distiller,
            teacher,
            checkpoint: folder,
        })
    }

    /// The same run with its models on a plain `device`; it is opened on the CPU, whatever device it
    /// was trained on.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        Restored {
            weights: self.weights.on(device),
            teacher: self.teacher.map(|teacher| teacher.on(device)),
            ..self
        }
    }

    /// The student's taps that `patterns` name, in the model's order.
    ///
    /// # Errors
    /// If a pattern matches nothing; the error lists what exists.
    pub fn matching_taps(&self, patterns: &[String]) -> Result<Vec<String>, EngineError> {
        let all = || self.detector.taps().iter().map(|tap| tap.name.as_str());
        for pattern in patterns {
            if !all().any(|name| matches(pattern, name)) {
                return Err(EngineError::UnknownTap {
                    pattern: pattern.clone(),
                    known: names(all()),
                });
            }
        }
        Ok(all()
            .filter(|name| patterns.iter().any(|pattern| matches(pattern, name)))
            .map(str::to_owned)
            .collect())
    }

    /// The student's taps that the method reads, in the model's order; none in plain training.
    #[must_use]
    pub fn method_taps(&self) -> Vec<String> {
        self.distiller
            .as_ref()
            .map_or_else(Vec::new, |distiller| distiller.tap_names(STUDENT))
    }

    /// Runs student and, as far as they are there, teacher and method on a batch: the student's
    /// `taps`, the teacher's of the same names, and the method's maps.
    ///
    /// # Errors
    /// If the method fails.
    ///
    /// # Panics
    /// If the student has no such tap; see [`Self::matching_taps`].
    pub fn observe(&mut self, batch: &Batch, taps: &[String]) -> Result<Observed, EngineError> {
        let pixels = TensorData::new(batch.images.clone(), batch.shape);
        let images = Tensor::<4>::from_data(pixels, &self.weights.device());
        let read = |role: &str| {
            let distiller = self.distiller.as_ref().filter(|d| d.has_maps());
            distiller.map_or_else(Vec::new, |d| d.tap_names(role))
        };
        let reads_predictions = |role: &str| {
            let distiller = self.distiller.as_ref().filter(|d| d.has_maps());
            distiller.is_some_and(|d| d.reads_predictions(role))
        };
        let request = ForwardRequest {
            training: false,
            taps: union(taps, read(STUDENT)),
            stop_at_taps: !reads_predictions(STUDENT),
        };
        let detector = self.detector.as_ref();
        let student = detector.forward(self.weights.tensors(), images.clone(), &request);
        let taught = self
            .teacher
            .as_ref()
            .map_or_else(Forward::default, |teacher| {
                let has = |name: &String| teacher.detector().taps().iter().any(|t| &t.name == name);
                let common: Vec<String> = taps.iter().filter(|name| has(name)).cloned().collect();
                let names = union(&common, read(TEACHER));
                teacher.forward(&images, &names, reads_predictions(TEACHER))
            });
        let mut sources =
            Sources::new(batch, detector).predicted(STUDENT, detector, student.head.as_ref());
        if let Some(teacher) = &self.teacher {
            sources = sources.predicted(TEACHER, teacher.detector(), taught.head.as_ref());
        }
        let maps = match &mut self.distiller {
            Some(distiller) => distiller.maps(&self.call, &student.taps, &taught.taps, &sources)?,
            None => Vec::new(),
        };
        Ok(Observed {
            maps: detector.head_taps().into_iter().zip(maps).collect(),
            student: student.taps,
            teacher: taught.taps,
        })
    }
}

/// The run's plugin, if its file has the SHA-256 that the run recorded.
fn same_plugin(
    config: &Config,
    run_dir: &Path,
    recorded: Option<&str>,
) -> Result<Option<Arc<Library>>, EngineError> {
    if config.distill.plugin == DistillConfig::NO_PLUGIN {
        return Ok(None);
    }
    let library = load_plugin(&config.distill.plugin)?;
    if Some(library.sha256()) == recorded {
        return Ok(Some(library));
    }
    Err(EngineError::PluginChanged {
        run_dir: run_dir.into(),
        path: library.path().into(),
        recorded: recorded.unwrap_or("none").into(),
        found: library.sha256().into(),
    })
}

fn union(names: &[String], more: Vec<String>) -> Vec<String> {
    let all: BTreeSet<String> = names.iter().cloned().chain(more).collect();
    all.into_iter().collect()
}
