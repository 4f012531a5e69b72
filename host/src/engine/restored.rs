//! A run as one of its checkpoints has it: student, methods and teachers, to be looked at. The run
//! itself is not touched, and may be going on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::Config;
use crate::data::{Batch, Loader, LoaderOptions};
use crate::distill::step::TapValues;
use crate::distill::taps::{STUDENT, matches, names};
use crate::distill::{Distiller, Methods};
use crate::model::{self, ForwardRequest, Model};
use crate::plugin::CallInfo;

use super::EngineError;
use super::assemble::methods;
use super::checkpoint::{self, Choice};
use super::job::{self, Chosen, present_teacher, teacher_names};
use super::run_dir::RunDir;
use super::stages;
use super::step::StepPosition;
use super::teacher::{Teachers, model_taps, sources, teach};
use super::train::{self, Datasets};
use super::weights::ModelWeights;

/// A run, opened.
pub struct Restored {
    /// The settings it was started with.
    pub config: Config,
    /// Its images.
    pub datasets: Datasets,
    /// The student's architecture.
    pub model: Arc<dyn Model>,
    /// The student's weights as they would be exported: the averaged ones, if the run averages.
    pub weights: ModelWeights,
    /// The methods with their learned state; none in plain training.
    pub methods: Methods,
    /// The models that they learn from.
    pub teachers: Teachers,
    /// The folder of the checkpoint.
    pub checkpoint: PathBuf,
    /// What methods are told: the checkpoint's place in the run, neither training nor a check.
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
        stages::refuse_job(run_dir)?;
        let config = Config::of_run(run_dir)?;
        let folder = checkpoint::find(run_dir, choice)?;
        let snapshot = checkpoint::load(&folder)?;
        let progress = &snapshot.progress;
        let chosen = same_plugins(&config, run_dir, &progress.plugins)?;

        let datasets = Datasets::open(&config)?;
        let num_classes = datasets.train.classes().len();
        let built = model::build(&config.student, config.task, num_classes)?;
        let model: Arc<dyn Model> = Arc::from(built);
        let exported = snapshot.ema.as_ref().unwrap_or(&snapshot.student);
        let weights = ModelWeights::from_state(model.as_ref(), exported)?;
        let mut teachers = Teachers::new();
        for name in teacher_names(&chosen) {
            let teacher = present_teacher(&name, &config, &datasets, run_dir)?;
            teachers.insert(name, teacher);
        }

        let options = LoaderOptions::training(&config.data, config.seed, model.size_divisor());
        let loader = Loader::new(Arc::clone(&datasets.train), options)?;
        let length = train::length(&loader, &config.train)?;
        let (mut methods, schedule) = methods(&config, &chosen, model.as_ref(), &teachers, length)?;
        // Methods without parameters and buffers take an empty state.
        methods.load_state(&snapshot.method.unwrap_or_default())?;
        drop(chosen);
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
            model,
            weights,
            methods,
            teachers,
            checkpoint: folder,
        })
    }

    /// The same run with its models on a plain `device`; it is opened on the CPU, whatever device it
    /// was trained on.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        Restored {
            weights: self.weights.on(device),
            teachers: (self.teachers.into_iter())
                .map(|(name, teacher)| (name, teacher.on(device)))
                .collect(),
            ..self
        }
    }

    /// The student's taps that `patterns` name, in the model's order.
    ///
    /// # Errors
    /// If a pattern matches nothing; the error lists what exists.
    pub fn matching_taps(&self, patterns: &[String]) -> Result<Vec<String>, EngineError> {
        let all = || self.model.taps().iter().map(|tap| tap.name.as_str());
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

    /// The student's taps that methods read; none in plain training.
    #[must_use]
    pub fn method_taps(&self) -> Vec<String> {
        self.methods.student_taps()
    }

    /// The method whose maps are meant: the one of that label, or else the only one that makes some;
    /// none where none does.
    ///
    /// # Errors
    /// If no method of that label makes maps, or none is named and several do.
    pub fn choose_method(&self, label: Option<&str>) -> Result<Option<String>, EngineError> {
        choose(
            &self.methods.with_maps(),
            label,
            "--method",
            "methods that make maps",
        )
    }

    /// The teacher that is meant: the one of that name, or else the only one of the run.
    ///
    /// # Errors
    /// If the run has no teacher of that name, or none is named and it has several.
    pub fn choose_teacher(&self, name: Option<&str>) -> Result<Option<String>, EngineError> {
        let names: Vec<String> = self.teachers.keys().cloned().collect();
        choose(&names, name, "--teacher", "teachers")
    }

    /// Runs student and, as far as they are there, teachers and the method `of.method` on a batch: the
    /// student's `taps`, those of the teacher `of.teacher` of the same names, and the method's maps.
    ///
    /// # Errors
    /// If the method fails.
    ///
    /// # Panics
    /// If the student has no such tap; see [`Self::matching_taps`].
    pub fn observe(
        &mut self,
        batch: &Batch,
        taps: &[String],
        of: &Subject,
    ) -> Result<Observed, EngineError> {
        let pixels = TensorData::new(batch.images.clone(), batch.shape);
        let images = Tensor::<4>::from_data(pixels, &self.weights.device());
        let mut distiller = of
            .method
            .as_deref()
            .and_then(|label| self.methods.get_mut(label));
        let reads = |name: &str| {
            distiller
                .as_ref()
                .is_some_and(|d| d.reads_predictions(name))
        };
        let read =
            |of: &dyn Fn(&Distiller) -> Vec<String>| distiller.as_deref().map_or_else(Vec::new, of);
        let request = ForwardRequest {
            training: false,
            taps: union(taps, read(&Distiller::student_taps)),
            stop_at_taps: !reads(STUDENT),
        };
        let model = self.model.as_ref();
        let student = model.forward(self.weights.tensors(), images.clone(), &request);
        let taught = teach(&self.teachers, batch, &images, |name, teacher| {
            let shown = of.teacher.as_deref() == Some(name);
            let has = |tap: &&String| teacher.model().taps().iter().any(|t| t.name == **tap);
            let common = taps.iter().filter(|tap| shown && has(tap)).cloned();
            let common: Vec<String> = common.collect();
            (union(&common, read(&|d| d.teacher_taps(name))), reads(name))
        });
        let sources = sources(batch, model, &student, &self.teachers, &taught);
        let maps = match &mut distiller {
            Some(distiller) => {
                let taps = model_taps(&student.taps, &taught);
                distiller.maps(&self.call, &taps, &sources)?
            }
            None => Vec::new(),
        };
        drop(sources);
        let mut taught = taught;
        let shown = of.teacher.as_ref().and_then(|name| taught.remove(name));
        Ok(Observed {
            maps: model.head_taps().into_iter().zip(maps).collect(),
            student: student.taps,
            teacher: shown.unwrap_or_default().taps,
        })
    }
}

/// What is looked at beside the student.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Label of a method that makes maps.
    pub method: Option<String>,
    /// Name of a teacher.
    pub teacher: Option<String>,
}

fn choose(
    all: &[String],
    wanted: Option<&str>,
    option: &'static str,
    what: &str,
) -> Result<Option<String>, EngineError> {
    let refuse = |what: String| EngineError::Choose {
        what,
        option,
        known: names(all.iter().map(String::as_str)),
    };
    match (all, wanted) {
        (_, Some(wanted)) => match all.iter().any(|name| name == wanted) {
            true => Ok(Some(wanted.to_owned())),
            false => Err(refuse(format!("`{wanted}` is none of the run's {what}"))),
        },
        ([], None) => Ok(None),
        ([only], None) => Ok(Some(only.clone())),
        (_, None) => Err(refuse(format!("the run has several {what}"))),
    }
}

/// The run's methods, if their plugins have the SHA-256 that the run recorded.
fn same_plugins<'a>(
    config: &'a Config,
    run_dir: &Path,
    recorded: &BTreeMap<String, String>,
) -> Result<Vec<Chosen<'a>>, EngineError> {
    let chosen = job::choose(config)?;
    for Chosen { label, library, .. } in &chosen {
        let before = recorded.get(label).map(String::as_str);
        if before != Some(library.sha256()) {
            return Err(EngineError::PluginChanged {
                label: label.clone(),
                run_dir: run_dir.into(),
                path: library.path().into(),
                recorded: before.unwrap_or("none").into(),
                found: library.sha256().into(),
            });
        }
    }
    Ok(chosen)
}

fn union(names: &[String], more: Vec<String>) -> Vec<String> {
    let all: BTreeSet<String> = names.iter().cloned().chain(more).collect();
    all.into_iter().collect()
}
