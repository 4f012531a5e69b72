//! The main job: plain student as control, teacher if the method wants one, distilled student.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tracing::info;

use crate::config::{Config, DistillConfig};
use crate::distill::DistillError;
use crate::distill::distiller::{Models, method_manifest};
use crate::distill::taps::{TEACHER, needs_teacher};
use crate::model;
use crate::plugin::{Library, MethodManifest, SearchPath};

use super::assemble::bind;
use super::interrupt::Interrupt;
use super::progress::ProgressMode;
use super::table::Row;
use super::teacher::Teacher;
use super::train::{self, Datasets, Run};
use super::{EngineError, arm, export};

/// How to run a job, apart from what it computes.
#[derive(Clone, Debug)]
pub struct JobOptions {
    /// The run directory; none: a new one under `output_dir`, named for the method and `stamp`.
    pub folder: Option<PathBuf>,
    /// Makes the name of a new run directory unique.
    pub stamp: String,
    /// Continue the run in `folder`.
    pub resume: bool,
    /// Train the plain student too, for comparison.
    pub control: bool,
    /// What a person sees.
    pub progress: ProgressMode,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct JobReport {
    /// Teacher, plain student, distilled student; as far as they were run.
    pub rows: Vec<Row>,
    /// Id of the method; none in plain training.
    pub method: Option<String>,
    /// The run directory.
    pub folder: PathBuf,
    /// The trained student.
    pub student: PathBuf,
    /// Wall time.
    pub seconds: f64,
}

/// A plugin with the method that was chosen.
pub(super) struct Chosen {
    pub(super) library: Arc<Library>,
    pub(super) manifest: MethodManifest,
}

/// Runs the job.
///
/// # Errors
/// As a run; whatever was finished before is kept and reused next time.
pub fn run(
    config: &Config,
    options: &JobOptions,
    interrupt: &Interrupt,
) -> Result<JobReport, EngineError> {
    let started = Instant::now();
    let chosen = choose(&config.distill)?;
    let datasets = Datasets::open(config)?;
    // What can be refused is refused before the first hour of training.
    if let Some(chosen) = &chosen {
        check_method(config, chosen, &datasets)?;
    }
    let name = chosen
        .as_ref()
        .map_or(DistillConfig::NO_PLUGIN, |c| c.manifest.id.as_str());
    let folder = match &options.folder {
        Some(folder) => folder.clone(),
        None => config
            .output_dir
            .join(format!("{}-{}", file_name(name), options.stamp)),
    };

    let mut rows = Vec::new();
    let teacher = match &chosen {
        Some(chosen) if needs_teacher(&chosen.manifest) => {
            Some(teacher(config, &datasets, options, interrupt, &mut rows)?)
        }
        _ => None,
    };
    if options.control && chosen.is_some() {
        let control = plain(config);
        let control = arm::run("student", &control, &datasets, options.progress, interrupt)?;
        rows.push(control.row);
    }
    let label = match &chosen {
        Some(chosen) => format!("student + {}", chosen.manifest.id),
        None => "student".into(),
    };
    let teacher_hash = teacher.as_ref().map(|t| t.hash().to_owned());
    let outcome = train::train(Run {
        label: &label,
        config,
        datasets: &datasets,
        library: chosen.as_ref().map(|c| Arc::clone(&c.library)),
        teacher,
        folder: &folder,
        resume: options.resume,
        progress: options.progress,
        interrupt,
    })?;
    if let Some(hash) = teacher_hash {
        info!("{label}: teacher verified unchanged ({})", &hash[..16]);
    }
    let row = arm::row(&label, &outcome);
    arm::write_result(&folder, &row, &outcome.student)?;
    rows.push(row);
    Ok(JobReport {
        rows,
        method: chosen.map(|c| c.manifest.id),
        folder,
        student: outcome.student,
        seconds: started.elapsed().as_secs_f64(),
    })
}

pub(super) fn choose(config: &DistillConfig) -> Result<Option<Chosen>, EngineError> {
    if config.plugin == DistillConfig::NO_PLUGIN {
        return Ok(None);
    }
    let library = load_plugin(&config.plugin)?;
    let manifest = method_manifest(&library, &config.method)?;
    crate::config::check_plugin_config(&manifest.config_schema, &config.config, &manifest.id)?;
    Ok(Some(Chosen { library, manifest }))
}

pub(super) fn load_plugin(name: &str) -> Result<Arc<Library>, EngineError> {
    let path = SearchPath::from_env()
        .find(name)
        .map_err(DistillError::from)?;
    Ok(Library::load(&path).map_err(DistillError::from)?)
}

/// Makes the method once, so that what it refuses is known now.
fn check_method(config: &Config, chosen: &Chosen, datasets: &Datasets) -> Result<(), EngineError> {
    let num_classes = datasets.train.classes().len();
    let student = model::build(&config.student, num_classes)?;
    let teacher = if needs_teacher(&chosen.manifest) {
        Some(model::build(&config.teacher.model, num_classes)?)
    } else {
        None
    };
    let models = Models {
        student: student.as_ref(),
        teacher: teacher.as_deref(),
    };
    bind(config, &chosen.library, models, 0)?;
    Ok(())
}

/// The plain student's settings: the same, without a method.
fn plain(config: &Config) -> Config {
    let mut plain = config.clone();
    plain.distill = DistillConfig {
        plugin: DistillConfig::NO_PLUGIN.into(),
        method: String::new(),
        loss_weights: Default::default(),
        taps: Vec::new(),
        execution: Default::default(),
        config: Default::default(),
    };
    plain.eval.oracle = false;
    // The teacher plays no part, and must not make two controls of one.
    plain.teacher = Config::base().teacher;
    plain
}

fn teacher(
    config: &Config,
    datasets: &Datasets,
    options: &JobOptions,
    interrupt: &Interrupt,
    rows: &mut Vec<Row>,
) -> Result<Teacher, EngineError> {
    let given = &config.teacher.checkpoint;
    let file = if given.as_os_str().is_empty() {
        let own = teacher_arm(config);
        let trained = arm::run(TEACHER, &own, datasets, options.progress, interrupt)?;
        rows.push(trained.row);
        trained.student
    } else {
        given.clone()
    };
    load_teacher(config, datasets, &file)
}

/// The settings under which a teacher without a checkpoint of its own is trained.
fn teacher_arm(config: &Config) -> Config {
    let mut own = plain(config);
    own.student = config.teacher.model.clone();
    own.train.epochs = config.teacher.epochs;
    own
}

/// The teacher of the run in `run_dir`, if its file is there: nothing is trained.
///
/// # Errors
/// If it is neither configured nor in the cache, or its file is unreadable or another model's.
pub(super) fn present_teacher(
    config: &Config,
    datasets: &Datasets,
    run_dir: &Path,
) -> Result<Teacher, EngineError> {
    let given = &config.teacher.checkpoint;
    if !given.as_os_str().is_empty() {
        return load_teacher(config, datasets, given);
    }
    let folder = arm::folder(TEACHER, &teacher_arm(config), datasets);
    match arm::done(&folder)? {
        Some(arm) => load_teacher(config, datasets, &arm.student),
        None => Err(EngineError::NoTeacher {
            run_dir: run_dir.into(),
            folder,
        }),
    }
}

fn load_teacher(config: &Config, datasets: &Datasets, file: &Path) -> Result<Teacher, EngineError> {
    let num_classes = datasets.train.classes().len();
    let detector = model::build(&config.teacher.model, num_classes)?;
    let state = crate::state::StateDict::load(file)?;
    let weights = super::weights::ModelWeights::from_state(detector.as_ref(), &state)?;
    info!("teacher: `{}`", file.display());
    export::check_classes(file, &state, datasets.train.classes())?;
    Ok(Teacher::new(Arc::from(detector), weights))
}

/// A method id as a file name.
fn file_name(id: &str) -> String {
    id.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '-'
            }
        })
        .collect()
}
