//! The stages of a method: each a run of its own, made from the job's configuration.
//!
//! ```text
//! <run directory>/
//!   config.resolved.toml  environment.json    the job's
//!   stages.json                               what each stage is
//!   stages/1-NAME/                            a run directory, see `run_dir`
//!   student.safetensors                       the last stage's
//! <cache_dir>/stage-<key>/                    a finished stage, kept for other jobs
//! ```
//!
//! A stage says whose architecture learns, from whom, on images of which size, from which weights;
//! [`derive`] turns that into settings under which nothing but a student and its teacher is left.
//! Every command that takes the directory of a run takes that of a stage.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{Config, ModelConfig, ResizeMode, Task, TransformConfig};
use crate::distill::DistillError;
use crate::distill::schedule::declared::Stage;
use crate::distill::taps::{STUDENT, TEACHER};

mod derive;
mod kept;
mod run;

pub(super) use run::{Job, run};

use super::EngineError;
use super::job::{self, Chosen};
use super::train::Datasets;

/// A stage with the settings of its run.
#[derive(Clone, Debug)]
pub struct Planned {
    /// As declared.
    pub stage: Stage,
    /// Of its run. Files that other runs are yet to write have no path.
    pub config: Config,
}

/// What a job will do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Label of the method that declares it.
    pub method: String,
    /// In order.
    pub stages: Vec<Planned>,
    /// Whether the job is the run of its configuration and nothing else, so that it has no stages'
    /// folders.
    pub is_one_run: bool,
}

/// What `kdhost show plan` says of a stage.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// From 1.
    pub number: usize,
    /// As the method calls it.
    pub name: String,
    /// Of its run, below that of the job; `.`: the job is that run.
    pub folder: PathBuf,
    /// Whose architecture learns.
    pub student: String,
    /// The architecture in a few words.
    pub architecture: String,
    /// Upsampling of its pyramid.
    pub pyramid_scale: f64,
    /// Where its weights come from.
    pub init_from: String,
    /// The images that it sees.
    pub images: String,
    /// Who teaches; none: nobody, or whoever plays the method's roles.
    pub teacher: Option<String>,
    /// The images that the teacher sees.
    pub teacher_images: Option<String>,
    /// What is learned from, phase by phase.
    pub phases: Vec<String>,
    /// Epochs.
    pub epochs: usize,
    /// What the result must reach.
    pub gate: Option<String>,
}

/// What the job of `config` will do; none where it is one run whose method declares no phases.
///
/// # Errors
/// If a plugin, the data set, or a stage is refused: each stage's models are built and its method is
/// bound to them.
pub fn plan(config: &Config) -> Result<Option<Plan>, EngineError> {
    let chosen = job::choose(config)?;
    let datasets = Datasets::open(config)?;
    of_job(config, &chosen, &datasets)
}

/// The same for methods that are chosen already.
pub(super) fn of_job(
    config: &Config,
    chosen: &[Chosen<'_>],
    datasets: &Datasets,
) -> Result<Option<Plan>, EngineError> {
    if chosen.is_empty() {
        return Ok(None);
    }
    let mut methods = job::bind_untrained(config, chosen, datasets)?;
    let declared = match config.stage.name.is_empty() {
        true => methods.declared()?,
        // The run is one of the stages.
        false => None,
    };
    let Some((index, stages)) = declared else {
        job::place_untrained(config, &mut methods, datasets)?;
        return Ok(None);
    };
    let method = methods.label(index).to_owned();
    if stages.len() == 1 && stages[0].is_the_configured_run() {
        job::place_untrained(config, &mut methods, datasets)?;
        let [stage] = <[Stage; 1]>::try_from(stages).expect("its length is 1");
        let config = config.clone();
        return Ok(Some(Plan {
            method,
            stages: vec![Planned { stage, config }],
            is_one_run: true,
        }));
    }
    let cast = &chosen
        .iter()
        .find(|chosen| chosen.label == method)
        .expect("methods are bound under the labels of those chosen")
        .cast;
    let mut planned: Vec<Planned> = Vec::new();
    for (index, stage) in stages.into_iter().enumerate() {
        let earlier = planned.iter().map(|p| (p.stage.name.as_str(), &p.config));
        let from = derive::From {
            job: config,
            cast,
            earlier: earlier.collect(),
            files: &derive::Files::default(),
        };
        let derived = derive::config(&from, &stage, index as u32);
        let derived = derived.map_err(|reason| refused(&method, &stage.name, reason))?;
        let chosen = job::choose(&derived)?;
        let mut methods = job::bind_untrained(&derived, &chosen, datasets)?;
        job::place_untrained(&derived, &mut methods, datasets)?;
        drop(chosen);
        planned.push(Planned {
            stage,
            config: derived,
        });
    }
    Ok(Some(Plan {
        method,
        stages: planned,
        is_one_run: false,
    }))
}

fn refused(method: &str, stage: &str, reason: String) -> EngineError {
    DistillError::Schedule {
        method: method.to_owned(),
        reason: format!("stage `{stage}`: {reason}"),
    }
    .into()
}

fn failed(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::Result {
        path: path.into(),
        reason: error.to_string(),
    }
}

impl Plan {
    /// The stage whose result is the job's.
    ///
    /// # Panics
    /// If there is none; a schedule has at least one.
    #[must_use]
    pub fn last(&self) -> &Planned {
        self.stages.last().expect("a schedule has stages")
    }

    /// The stage of that name.
    ///
    /// # Errors
    /// If there is none; the error lists those that there are.
    pub fn named(&self, name: &str) -> Result<&Planned, EngineError> {
        let mut stages = self.stages.iter();
        stages
            .find(|planned| planned.stage.name == name)
            .ok_or_else(|| EngineError::NoStage {
                name: name.to_owned(),
                method: self.method.clone(),
                known: crate::distill::taps::names(
                    self.stages
                        .iter()
                        .map(|planned| planned.stage.name.as_str()),
                ),
            })
    }

    /// Stage by stage, for people and as JSON.
    #[must_use]
    pub fn summaries(&self) -> Vec<Summary> {
        let stages = self.stages.iter().enumerate();
        let folder = |index, planned: &Planned| match self.is_one_run {
            true => PathBuf::from("."),
            false => run::stage_folder(Path::new(""), index, &planned.stage.name),
        };
        stages
            .map(|(i, planned)| planned.summary(i + 1, folder(i, planned)))
            .collect()
    }
}

impl Planned {
    fn summary(&self, number: usize, folder: PathBuf) -> Summary {
        let Planned { stage, config } = self;
        let teacher = stage.method.then(|| stage.teacher.clone()).flatten();
        let phases = stage.phases.iter().map(|phase| {
            let losses = match phase.losses.is_empty() {
                true if stage.method => "all of the method's losses".to_owned(),
                true => "task losses alone".to_owned(),
                false => phase.losses.join(", "),
            };
            let frozen: Vec<&str> = [
                ("backbone", phase.learn.backbone),
                ("neck", phase.learn.neck),
                ("head", phase.learn.head),
            ]
            .into_iter()
            .filter_map(|(part, learns)| (!learns && phase.pretrain.is_none()).then_some(part))
            .collect();
            let frozen = match frozen.is_empty() {
                true => String::new(),
                false => format!(", {} fixed", frozen.join(" and ")),
            };
            format!("{}: {losses}{frozen}", phase.name)
        });
        let (student, transform) = (&config.student, &config.data.transform);
        Summary {
            number,
            name: stage.name.clone(),
            folder,
            student: stage.student.clone(),
            architecture: architecture(student, config),
            pyramid_scale: stage.pyramid_scale,
            init_from: match &stage.init_from {
                Some(name) => name.clone(),
                None if student.weights.as_os_str().is_empty() => "random".to_owned(),
                None => student.weights.display().to_string(),
            },
            images: images(transform),
            teacher_images: (teacher.as_ref())
                .map(|_| images(&config.teacher.transform(transform))),
            teacher,
            phases: phases.collect(),
            epochs: config.train.epochs,
            gate: stage.gate.map(|gate| {
                let metric = "plain training of the same architecture on the same images";
                match gate.tolerance {
                    0.0 => format!("not below {metric}"),
                    tolerance => format!("at most {:.1} points below {metric}", 100.0 * tolerance),
                }
            }),
        }
    }

    /// Whose model it trains, on which images: for a row of the table.
    fn said(&self) -> String {
        let whose = match self.stage.student.as_str() {
            STUDENT => String::new(),
            name => format!("{name}'s model, "),
        };
        format!("{whose}{}", images(&self.config.data.transform))
    }
}

impl fmt::Display for Summary {
    /// On one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            number,
            name,
            student,
            images,
            init_from,
            epochs,
            ..
        } = self;
        write!(
            f,
            "stage {number} `{name}`: the model of `{student}` from {init_from} on {images} for {epochs} \
             epochs"
        )?;
        if let (Some(teacher), Some(images)) = (&self.teacher, &self.teacher_images) {
            write!(f, ", taught by `{teacher}` on {images}")?;
        }
        match &self.gate {
            Some(gate) => write!(f, "; then {gate}"),
            None => Ok(()),
        }
    }
}

/// The architecture in a few words.
pub(crate) fn architecture(model: &ModelConfig, config: &Config) -> String {
    let head = match config.task {
        Task::Detection => &model.detector,
        Task::Segmentation => &model.segmenter,
        Task::Classification => &model.classifier,
    };
    if config.task == Task::Classification && head == "vit" {
        return format!("{head} ({} blocks of {})", model.vit.depth, model.vit.dim);
    }
    match model.backbone.as_str() {
        "tiny" => format!("{head}, tiny (width {})", model.tiny_width),
        backbone => format!("{head}, {backbone}"),
    }
}

/// Which images a model sees, in a few words.
pub(super) fn images(transform: &TransformConfig) -> String {
    match transform.resize {
        ResizeMode::Fixed | ResizeMode::CenterCrop => {
            format!("{}x{}", transform.size[0], transform.size[1])
        }
        ResizeMode::KeepRatio => format!("short side {}", transform.short_side),
        ResizeMode::None if transform.own_scale == 1.0 => "own size".to_owned(),
        ResizeMode::None => format!("{} times their own size", transform.own_scale),
    }
}

/// Whether `run_dir` is that of a job of stages, which has no checkpoints of its own.
#[must_use]
pub fn is_job(run_dir: &Path) -> bool {
    run_dir.join(run::STAGES_FILE).is_file()
}

/// Whether the job of stages in `run_dir` has come to its end.
#[must_use]
pub fn is_done(run_dir: &Path) -> bool {
    run_dir.join(run::STUDENT_FILE).is_file()
}

/// The folders of all stages of the job in `run_dir`, in order, there or not.
///
/// # Errors
/// If the file that lists them cannot be read.
pub fn folders(run_dir: &Path) -> Result<Vec<PathBuf>, EngineError> {
    #[derive(serde::Deserialize)]
    struct Listed {
        name: String,
    }
    let path = run_dir.join(run::STAGES_FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
    let listed: Vec<Listed> =
        serde_json::from_str(&text).map_err(|error| failed(&path, &error.into()))?;
    let listed = listed.iter().enumerate();
    Ok(listed
        .map(|(index, stage)| run::stage_folder(run_dir, index, &stage.name))
        .collect())
}

/// Checks that `run_dir` is a run, and not a job of stages, which has no checkpoints of its own.
///
/// # Errors
/// If it is one; the error names the folders of its stages.
pub fn refuse_job(run_dir: &Path) -> Result<(), EngineError> {
    if !is_job(run_dir) {
        return Ok(());
    }
    let stages = std::fs::read_dir(run_dir.join(run::STAGES_FOLDER));
    let folders = stages.into_iter().flatten().filter_map(|entry| {
        let path = entry.ok()?.path();
        Some(format!("`{}`", path.display()))
    });
    let mut folders: Vec<String> = folders.collect();
    folders.sort();
    Err(EngineError::OfStages {
        run_dir: run_dir.into(),
        stages: crate::distill::taps::names(folders.iter().map(String::as_str)),
    })
}

/// Configured teachers that some stage needs: whom stages name, and players of other roles.
pub(super) fn teachers_of(plan: &Plan, chosen: &[Chosen<'_>]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let stages = &plan.stages;
    let named_in_each = stages
        .iter()
        .all(|planned| !planned.stage.method || planned.stage.teacher.is_some());
    for chosen in chosen {
        let is_owner = chosen.label == plan.method;
        for (role, player) in &chosen.cast {
            if !(is_owner && role == TEACHER && named_in_each) {
                names.insert(player.clone());
            }
        }
        if !is_owner {
            continue;
        }
        for Planned { stage, .. } in stages {
            let teacher = stage.teacher.as_ref().filter(|_| stage.method);
            for name in teacher.into_iter().chain(&stage.init_from) {
                if !stages.iter().any(|other| other.stage.name == *name) {
                    names.insert(chosen.cast.get(name).unwrap_or(name).clone());
                }
            }
        }
    }
    names
}
