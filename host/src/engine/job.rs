//! The main job: plain student as control, the teachers that methods want, distilled student.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tracing::info;

use crate::config::{Config, MethodConfig, MethodEntry, TeacherConfig};
use crate::data::{Loader, LoaderOptions};
use crate::distill::distiller::{Models, TeacherModel, method_manifest};
use crate::distill::roles::{self, Roles};
use crate::distill::{DistillError, Methods};
use crate::model;
use crate::plugin::{Library, MethodManifest, SearchPath};

use super::assemble;
use super::environment::Environment;
use super::image_size::ImageSize;
use super::interrupt::Interrupt;
use super::progress::ProgressMode;
use super::run_dir::RunDir;
use super::stages::{self, Plan};
use super::table::Row;
use super::teacher::{self, Teacher, Teachers};
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
    /// Teachers, plain student, distilled student; as far as they were run.
    pub rows: Vec<Row>,
    /// Labels of the methods; none in plain training.
    pub methods: Vec<String>,
    /// The run directory.
    pub folder: PathBuf,
    /// The trained student.
    pub student: PathBuf,
    /// Wall time.
    pub seconds: f64,
}

/// A plugin with the method that was chosen.
pub struct Chosen<'a> {
    /// In logs, metrics and checkpoints.
    pub label: String,
    /// Its settings.
    pub entry: MethodEntry<'a>,
    /// The plugin.
    pub library: Arc<Library>,
    /// What the plugin says of the method.
    pub manifest: MethodManifest,
    /// Which teacher plays which role for it.
    pub cast: Roles,
}

impl Chosen<'_> {
    /// Says which entry an error is about: two may be of one plugin.
    pub(super) fn of_entry(&self, error: DistillError) -> DistillError {
        match self.entry.label {
            None => error,
            Some(label) => DistillError::OfEntry {
                label: label.to_owned(),
                source: Box::new(error),
            },
        }
    }
}

/// Labels of methods, for a person: `a + b`.
#[must_use]
pub fn labels(chosen: &[Chosen<'_>]) -> String {
    let labels: Vec<&str> = chosen.iter().map(|chosen| chosen.label.as_str()).collect();
    labels.join(" + ")
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
    let chosen = choose(config)?;
    let datasets = Datasets::open(config)?;
    // What can be refused is refused before the first hour of training.
    let plan = stages::of_job(config, &chosen, &datasets)?.filter(|plan| !plan.is_one_run);
    let all = labels(&chosen);
    let name = if chosen.is_empty() {
        MethodConfig::NO_PLUGIN
    } else {
        all.as_str()
    };
    let folder = match &options.folder {
        Some(folder) => folder.clone(),
        None => config
            .output_dir
            .join(format!("{}-{}", file_name(name), options.stamp)),
    };

    let label = match chosen.is_empty() {
        false => format!("student + {all}"),
        true => "student".into(),
    };
    let mut rows = Vec::new();
    if let Some(plan) = plan {
        let job = StagedJob {
            config,
            chosen: &chosen,
            plan: &plan,
            datasets: &datasets,
            folder: &folder,
            label: &label,
            options,
            interrupt,
        };
        let student = staged(&job, &mut rows)?;
        let last = rows.last().expect("a plan has a stage");
        arm::write_result(&folder, last.clone(), &student)?;
        return Ok(JobReport {
            rows,
            methods: chosen.into_iter().map(|chosen| chosen.label).collect(),
            folder,
            student,
            seconds: started.elapsed().as_secs_f64(),
        });
    }
    let mut teachers = Teachers::new();
    for name in teacher_names(&chosen) {
        let file = teacher_file(&name, config, &datasets, options, interrupt, &mut rows)?;
        let teacher = load_teacher(&name, config, &datasets, &file)?;
        teachers.insert(name, teacher);
    }
    if options.control && !chosen.is_empty() {
        let control = plain(config);
        let control = arm::run("student", &control, &datasets, options.progress, interrupt)?;
        rows.push(control.row);
    }
    let hashes: Vec<(String, String)> = teachers
        .iter()
        .map(|(name, teacher)| (name.clone(), teacher.hash().to_owned()))
        .collect();
    let outcome = train::train(Run {
        label: &label,
        config,
        datasets: &datasets,
        chosen: &chosen,
        teachers,
        folder: &folder,
        resume: options.resume,
        progress: options.progress,
        interrupt,
    })?;
    for (name, hash) in hashes {
        info!(
            "{label}: {} verified unchanged ({})",
            said(&name),
            &hash[..16]
        );
    }
    let row = arm::row(&label, &outcome);
    rows.push(arm::write_result(&folder, row, &outcome.student)?.row);
    Ok(JobReport {
        rows,
        methods: chosen.into_iter().map(|chosen| chosen.label).collect(),
        folder,
        student: outcome.student,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// A job of several runs.
struct StagedJob<'a> {
    config: &'a Config,
    chosen: &'a [Chosen<'a>],
    plan: &'a Plan,
    datasets: &'a Datasets,
    folder: &'a Path,
    label: &'a str,
    options: &'a JobOptions,
    interrupt: &'a Interrupt,
}

/// Teachers, controls, then stage by stage; gives the last one's model.
fn staged(job: &StagedJob<'_>, rows: &mut Vec<Row>) -> Result<PathBuf, EngineError> {
    let (config, options) = (job.config, job.options);
    let (datasets, interrupt) = (job.datasets, job.interrupt);
    let mut of_plan = job.chosen.iter();
    let owner = of_plan
        .find(|chosen| chosen.label == job.plan.method)
        .expect("the plan is that of a method that was chosen");
    let environment = Environment {
        device: config.compute_device(),
        ..Environment::current(assemble::plugin_facts(job.chosen))
    };
    // Held so that no other process works here.
    let _lock = match options.resume {
        true => RunDir::resume(job.folder)?,
        false => RunDir::create(job.folder, &config.to_toml(), &environment)?,
    };
    // Stages run elsewhere would name it otherwise.
    let folder = job.folder.canonicalize().map_err(|e| EngineError::Result {
        path: job.folder.into(),
        reason: e.to_string(),
    })?;
    for summary in job.plan.summaries() {
        info!("{summary}");
    }
    let mut teachers = BTreeMap::new();
    for name in stages::teachers_of(job.plan, job.chosen) {
        let file = teacher_file(&name, config, datasets, options, interrupt, rows)?;
        let file = file.canonicalize().unwrap_or(file);
        teachers.insert(name, file);
    }
    if options.control {
        let full = plain(config);
        let mut small = full.clone();
        small.data.transform = job.plan.last().config.data.transform.clone();
        small.fit_image_sizes();
        let mut controls = vec![full, small];
        controls.dedup();
        for config in &controls {
            let mut control = arm::run("student", config, datasets, options.progress, interrupt)?;
            control.row.name = format!("student ({})", stages::images(&config.data.transform));
            rows.push(control.row);
        }
    }
    let job = stages::Job {
        config,
        plan: job.plan,
        cast: &owner.cast,
        gate: owner.entry.config.gate,
        teachers,
        datasets,
        folder: &folder,
        label: job.label,
        progress: options.progress,
        interrupt,
    };
    stages::run(&job, rows)
}

/// The methods of a configuration, by label; none for plain training.
pub(super) fn choose(config: &Config) -> Result<Vec<Chosen<'_>>, EngineError> {
    let entries = config.distill.entries().into_iter();
    entries
        .map(|entry| choose_from(load_plugin(&entry.config.plugin)?, entry, config))
        .collect()
}

/// The method of `entry` in a plugin that is loaded.
pub(super) fn choose_from<'a>(
    library: Arc<Library>,
    entry: MethodEntry<'a>,
    config: &Config,
) -> Result<Chosen<'a>, EngineError> {
    let manifest = method_manifest(&library, entry)?;
    crate::config::check_plugin_config(
        &manifest.config_schema,
        &entry.config.config,
        &entry.key("config"),
        &manifest.id,
    )?;
    let cast = roles::cast(&manifest, entry, config)?;
    Ok(Chosen {
        // Names of tensors begin with it and a dot.
        label: entry
            .label
            .map_or_else(|| manifest.id.replace('.', "_"), str::to_owned),
        entry,
        library,
        manifest,
        cast,
    })
}

pub(super) fn load_plugin(name: &str) -> Result<Arc<Library>, EngineError> {
    let path = SearchPath::from_env()
        .find(name)
        .map_err(DistillError::from)?;
    Ok(Library::load(&path).map_err(DistillError::from)?)
}

/// Names of the teachers that some method learns from.
pub(super) fn teacher_names(chosen: &[Chosen<'_>]) -> BTreeSet<String> {
    let names = chosen.iter().flat_map(|chosen| chosen.cast.values());
    names.cloned().collect()
}

/// Lays the run of a configuration out for its methods, so that what is refused is known before it.
pub(super) fn place_untrained(
    config: &Config,
    methods: &mut Methods,
    datasets: &Datasets,
) -> Result<(), EngineError> {
    let [total_steps, steps_per_epoch] = length(config, datasets)?;
    methods.place(&config.stage, total_steps, steps_per_epoch)?;
    Ok(())
}

/// The methods on models without weights.
pub(super) fn bind_untrained(
    config: &Config,
    chosen: &[Chosen<'_>],
    datasets: &Datasets,
) -> Result<Methods, EngineError> {
    let num_classes = datasets.train.classes().len();
    let student = model::build(&config.student, config.task, num_classes)?;
    let mut teachers = BTreeMap::new();
    for name in teacher_names(chosen) {
        let architecture = &configured(config, &name).model;
        let built = model::build(architecture, config.task, num_classes)?;
        teachers.insert(name, built);
    }
    let student_size = ImageSize::of_training(&config.data, config.task, student.size_divisor());
    let mut bound = BTreeMap::new();
    for (name, built) in &teachers {
        let (teacher, transform) = (configured(config, name), &config.data.transform);
        let grid_scale = config.student.pyramid_scale / teacher.model.pyramid_scale;
        let view = teacher::view_of(teacher, transform, grid_scale, built.size_divisor());
        let size = student_size.map(|size| teacher::padded_size(view.as_ref(), size));
        let model = TeacherModel {
            model: built.as_ref(),
            has_own_size: teacher::has_own_size(teacher, transform),
            size: size.transpose()?,
        };
        bound.insert(name.clone(), model);
    }
    let models = Models {
        student: student.as_ref(),
        student_size: student_size.map(|size| size.padded),
        teachers: &bound,
    };
    let [total_steps, _] = length(config, datasets)?;
    assemble::bind_methods(config, chosen, models, total_steps)
}

/// Optimizer steps of the run of a configuration, and of an epoch.
fn length(config: &Config, datasets: &Datasets) -> Result<[u64; 2], EngineError> {
    // Padding does not change how many batches there are.
    let options = LoaderOptions::training(&config.data, config.seed, 1);
    let loader = Loader::new(Arc::clone(&datasets.train), options)?;
    train::length(&loader, &config.train)
}

/// A teacher whose name was checked when it was cast.
pub(super) fn configured<'a>(config: &'a Config, name: &str) -> &'a TeacherConfig {
    config
        .teacher_named(name)
        .expect("roles are cast with configured teachers")
}

/// A teacher, for a person: `teacher`, or `teacher NAME`.
fn said(name: &str) -> String {
    match name {
        TeacherConfig::UNNAMED => name.to_owned(),
        name => format!("{} {name}", TeacherConfig::UNNAMED),
    }
}

/// The plain student's settings: the same, without a method.
pub(super) fn plain(config: &Config) -> Config {
    let mut plain = config.clone();
    let base = Config::base();
    plain.distill = base.distill;
    plain.stage = base.stage;
    plain.eval.oracle = false;
    // Teachers play no part, and must not make two controls of one.
    plain.teacher = base.teacher;
    plain.teachers = base.teachers;
    plain
}

/// The file of the teacher `name`: as configured, or trained here.
fn teacher_file(
    name: &str,
    config: &Config,
    datasets: &Datasets,
    options: &JobOptions,
    interrupt: &Interrupt,
    rows: &mut Vec<Row>,
) -> Result<PathBuf, EngineError> {
    let given = &configured(config, name).checkpoint;
    if !given.as_os_str().is_empty() {
        return Ok(given.clone());
    }
    let own = teacher_arm(name, config);
    // In the cache all are called alike, so that two names of one teacher share it.
    let label = TeacherConfig::UNNAMED;
    let mut trained = arm::run(label, &own, datasets, options.progress, interrupt)?;
    trained.row.name = said(name);
    rows.push(trained.row);
    Ok(trained.student)
}

/// The settings under which a teacher without a checkpoint of its own is trained.
fn teacher_arm(name: &str, config: &Config) -> Config {
    let teacher = configured(config, name);
    let mut own = plain(config);
    own.student = teacher.model.clone();
    own.train.epochs = teacher.epochs;
    own.data.transform = teacher.transform(&config.data.transform);
    own
}

/// The teacher `name` of the run in `run_dir`, if its file is there: nothing is trained.
///
/// # Errors
/// If it is neither configured nor in the cache, or its file is unreadable or another model's.
pub(super) fn present_teacher(
    name: &str,
    config: &Config,
    datasets: &Datasets,
    run_dir: &Path,
) -> Result<Teacher, EngineError> {
    let given = &configured(config, name).checkpoint;
    if !given.as_os_str().is_empty() {
        return load_teacher(name, config, datasets, given);
    }
    let folder = arm::folder(TeacherConfig::UNNAMED, &teacher_arm(name, config), datasets);
    match arm::done(&folder)? {
        Some(arm) => load_teacher(name, config, datasets, &arm.student),
        None => Err(EngineError::NoTeacher {
            run_dir: run_dir.into(),
            folder,
        }),
    }
}

pub(super) fn load_teacher(
    name: &str,
    config: &Config,
    datasets: &Datasets,
    file: &Path,
) -> Result<Teacher, EngineError> {
    let num_classes = datasets.train.classes().len();
    let teacher = configured(config, name);
    let model = model::build(&teacher.model, config.task, num_classes)?;
    let state = crate::state::StateDict::load(file)?;
    let weights = super::weights::ModelWeights::from_state(model.as_ref(), &state)?;
    info!("{}: `{}`", said(name), file.display());
    export::check_classes(file, &state, datasets.train.classes())?;
    let transform = &config.data.transform;
    let grid_scale = config.student.pyramid_scale / teacher.model.pyramid_scale;
    let model = Arc::from(model);
    Ok(Teacher::new(model, weights, teacher, transform, grid_scale))
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
