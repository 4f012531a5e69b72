//! Carries out the stages of a job, one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::config::{Config, GatePolicy};
use crate::distill::roles::Roles;
use crate::distill::schedule::declared::Gate;
use crate::engine::EngineError;
use crate::engine::arm::{self, Arm};
use crate::engine::interrupt::Interrupt;
use crate::engine::job::{self, Chosen};
use crate::engine::progress::ProgressMode;
use crate::engine::table::Row;
use crate::engine::teacher::Teachers;
use crate::engine::train::{self, Datasets, Run};
use crate::eval::percent;
use crate::state::write_atomically;

use super::derive::{self, Files, From};
use super::kept::Kept;
use super::{Plan, Planned, failed, refused};

/// A file of the job's folder that says what each stage is.
pub(super) const STAGES_FILE: &str = "stages.json";
/// Holds the folders of the stages.
pub(super) const STAGES_FOLDER: &str = "stages";
/// The last stage's result in the job's folder.
pub(super) const STUDENT_FILE: &str = "student.safetensors";

/// What a job of several runs is given.
pub(in crate::engine) struct Job<'a> {
    /// Its settings.
    pub config: &'a Config,
    /// Its stages.
    pub plan: &'a Plan,
    /// Who plays which role of the method that declares them.
    pub cast: &'a Roles,
    /// What a result below its gate does.
    pub gate: GatePolicy,
    /// Files of the trained teachers, by name.
    pub teachers: BTreeMap<String, PathBuf>,
    /// Its images.
    pub datasets: &'a Datasets,
    /// Its run directory, which is there and locked.
    pub folder: &'a Path,
    /// In the table's last row.
    pub label: &'a str,
    /// What a person sees.
    pub progress: ProgressMode,
    /// Asked after each step.
    pub interrupt: &'a Interrupt,
}

/// Where the run of a stage lies.
pub(super) fn stage_folder(job: &Path, index: usize, name: &str) -> PathBuf {
    job.join(STAGES_FOLDER)
        .join(format!("{}-{name}", index + 1))
}

/// Carries out every stage that is not done, and gives the last one's model.
///
/// # Errors
/// As a run; or if a result is below its gate. What was finished is kept, and the job goes on from
/// there.
pub(in crate::engine) fn run(job: &Job<'_>, rows: &mut Vec<Row>) -> Result<PathBuf, EngineError> {
    write_plan(job)?;
    let mut files = Files(job.teachers.clone());
    let mut configs: Vec<Config> = Vec::new();
    let last = job.plan.stages.len() - 1;
    for (index, planned) in job.plan.stages.iter().enumerate() {
        let stage = &planned.stage;
        let done = job.plan.stages.iter().zip(&configs);
        let from = From {
            job: job.config,
            cast: job.cast,
            earlier: done.map(|(p, c)| (p.stage.name.as_str(), c)).collect(),
            files: &files,
        };
        let config = derive::config(&from, stage, index as u32)
            .map_err(|reason| refused(&job.plan.method, &stage.name, reason))?;
        let mut arm = carry_out(job, index, planned, &config)?;
        arm.row.name = match index == last {
            true => format!("{} ({})", job.label, planned.said()),
            false => format!("{} {} ({})", index + 1, stage.name, planned.said()),
        };
        info!("stage `{}`: {}", stage.name, arm.row.metrics.line());
        let metric = arm.row.metrics.main();
        rows.push(arm.row);
        if let Some(gate) = stage.gate {
            let plain = derive::plain(&from, stage, &config);
            judge(job, planned, gate, metric, &plain, rows)?;
        }
        files.0.insert(stage.name.clone(), arm.student);
        configs.push(config);
    }
    let student = &files.0[&job.plan.last().stage.name];
    let out = job.folder.join(STUDENT_FILE);
    let copied = fs::read(student).and_then(|bytes| write_atomically(&out, &bytes));
    copied.map_err(|error| failed(&out, &error))?;
    Ok(out)
}

fn write_plan(job: &Job<'_>) -> Result<(), EngineError> {
    let path = job.folder.join(STAGES_FILE);
    let json = serde_json::to_string_pretty(&job.plan.summaries()).expect("plain data");
    write_atomically(&path, (json + "\n").as_bytes()).map_err(|error| failed(&path, &error))
}

/// The result of a stage: as it lies in its folder, by continuing the run there, from the cache, or by
/// training.
fn carry_out(
    job: &Job<'_>,
    index: usize,
    planned: &Planned,
    config: &Config,
) -> Result<Arm, EngineError> {
    let name = &planned.stage.name;
    let folder = stage_folder(job.folder, index, name);
    let done = arm::done(&folder)?;
    if let Some(done) = done {
        info!("stage `{name}`: done in `{}`", folder.display());
        return Ok(done);
    }
    let chosen = job::choose(config)?;
    let teachers = trained_teachers(config, &chosen, job.datasets)?;
    let kept = Kept::new(config, job.datasets, &chosen, &teachers)?;
    let resume = folder.join("config.resolved.toml").is_file();
    if !resume && let Some(done) = kept.take(&folder)? {
        info!(
            "stage `{name}`: taken from the cache, into `{}`",
            folder.display()
        );
        return Ok(done);
    }
    let label = format!("stage {name}");
    let outcome = train::train(Run {
        label: &label,
        config,
        datasets: job.datasets,
        chosen: &chosen,
        teachers,
        folder: &folder,
        resume,
        progress: job.progress,
        interrupt: job.interrupt,
    });
    let outcome = outcome.map_err(|error| match error {
        // The whole is to be continued, not the stage alone.
        EngineError::Interrupted { step, phase, .. } => EngineError::Interrupted {
            step,
            phase: Some(phase.unwrap_or_else(|| name.clone())),
            run_dir: job.folder.into(),
        },
        error => error,
    })?;
    let row = arm::row(&label, &outcome);
    let done = arm::write_result(&folder, row, &outcome.student)?;
    kept.store(&folder)?;
    Ok(done)
}

/// The teachers of a stage, all of which have files.
fn trained_teachers(
    config: &Config,
    chosen: &[Chosen<'_>],
    datasets: &Datasets,
) -> Result<Teachers, EngineError> {
    let names = job::teacher_names(chosen).into_iter();
    let load = |name: String| {
        let file = &job::configured(config, &name).checkpoint;
        let teacher = job::load_teacher(&name, config, datasets, file)?;
        Ok((name, teacher))
    };
    names.map(load).collect()
}

/// Compares a result with plain training's, which is trained if it is not in the cache.
fn judge(
    job: &Job<'_>,
    planned: &Planned,
    gate: Gate,
    (metric, reached): (&'static str, f64),
    plain: &Config,
    rows: &mut Vec<Row>,
) -> Result<(), EngineError> {
    let name = format!("plain ({})", planned.said());
    let mut control = arm::run("gate", plain, job.datasets, job.progress, job.interrupt)?;
    control.row.name = name;
    let (_, plain_reached) = control.row.metrics.main();
    rows.push(control.row);
    let needed = plain_reached - gate.tolerance;
    let stage = &planned.stage.name;
    if reached >= needed {
        info!(
            "stage `{stage}` passes its gate: {metric} {}, plain training {}",
            percent(reached),
            percent(plain_reached)
        );
        return Ok(());
    }
    let failed = EngineError::Gate {
        stage: stage.clone(),
        reached: format!(
            "{metric} {}, and plain training of the same architecture on the same images {} (tolerance \
             {})",
            percent(reached),
            percent(plain_reached),
            percent(gate.tolerance)
        ),
        run_dir: job.folder.into(),
    };
    match job.gate {
        GatePolicy::Stop => Err(failed),
        GatePolicy::Warn => {
            warn!("{failed}");
            Ok(())
        }
    }
}
