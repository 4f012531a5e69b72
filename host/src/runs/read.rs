//! One run, from the files in its directory.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::{Config, Sources};
use crate::engine::checkpoint::{self, Choice, Progress};
use crate::engine::environment::Environment;
use crate::engine::run_dir::{ENVIRONMENT_FILE, RunDir};
use crate::engine::table::Row;
use crate::engine::{EngineError, arm, stages};

use super::measured::{self, Costs, Evaluation, main_metric};
use super::state::{self, Reached, State};

/// A run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its directory.
    pub folder: PathBuf,
    /// When `environment.json` was written, which is the first file; a copy of the folder may have
    /// lost it.
    pub started: Option<SystemTime>,
    /// Its settings; none: a stage whose result was taken from the cache.
    pub config: Option<Config>,
    /// What it ran on.
    pub environment: Option<Environment>,
    /// How far it has come.
    pub state: State,
    /// Its last evaluation. Of a job of stages: the last stage's.
    pub evaluation: Option<Evaluation>,
    /// Where its newest checkpoint stands.
    pub progress: Option<Progress>,
    /// Of its steps. Of a job of stages: the last stage's.
    pub costs: Costs,
}

#[derive(Deserialize)]
struct ResultFile {
    row: Row,
}

impl Run {
    /// Reads the run in `folder`.
    ///
    /// # Errors
    /// If there is none, or one of its files is broken; the error names it.
    pub fn read(folder: &Path) -> Result<Run, EngineError> {
        match RunDir::require(folder) {
            Ok(()) => Run::with_settings(folder),
            Err(_) if folder.join(arm::RESULT).is_file() => Run::from_cache(folder),
            Err(error) => Err(error.into()),
        }
    }

    fn with_settings(folder: &Path) -> Result<Run, EngineError> {
        let config = Config::of_run(folder)?;
        let environment = folder.join(ENVIRONMENT_FILE);
        let mut run = Run {
            folder: folder.into(),
            started: written(&environment),
            config: None,
            environment: json(&environment)?,
            state: State::Done,
            evaluation: None,
            progress: None,
            costs: Costs::default(),
        };
        let is_running = RunDir::is_locked(folder);
        if stages::is_job(folder) {
            run.add_stages(is_running)?;
        } else {
            run.add_training(&config, is_running)?;
        }
        run.config = Some(config);
        Ok(run)
    }

    /// A stage with its result alone.
    fn from_cache(folder: &Path) -> Result<Run, EngineError> {
        let path = folder.join(arm::RESULT);
        let row = result(folder)?;
        Ok(Run {
            folder: folder.into(),
            started: written(&path),
            config: None,
            environment: None,
            state: State::Done,
            evaluation: row.as_ref().map(|row| Evaluation::of_end(&row.metrics)),
            progress: None,
            costs: row.as_ref().map(Costs::of_end).unwrap_or_default(),
        })
    }

    /// A job is as far as its stages, and its result is the last one's.
    fn add_stages(&mut self, is_running: bool) -> Result<(), EngineError> {
        let [done, of] = state::of_job(&self.folder)?;
        let reached = Reached::Stages { done, of };
        self.state = match (is_running, stages::is_done(&self.folder)) {
            (true, _) => State::Running(reached),
            (false, true) => State::Done,
            (false, false) => State::Stopped(reached),
        };
        let Some(last) = stages::folders(&self.folder)?.pop() else {
            return Ok(());
        };
        if let Some(row) = result(&last)? {
            self.evaluation = Some(Evaluation::of_end(&row.metrics));
            self.costs = Costs::of_end(&row);
        }
        Ok(())
    }

    fn add_training(&mut self, config: &Config, is_running: bool) -> Result<(), EngineError> {
        self.progress = match checkpoint::find(&self.folder, Choice::Latest) {
            Ok(folder) => match checkpoint::progress(&folder) {
                Ok(progress) => Some(progress),
                // It was being replaced.
                Err(_) if is_running => None,
                Err(error) => return Err(error.into()),
            },
            // None was written yet, or somebody removed them.
            Err(_) => None,
        };
        let row = result(&self.folder)?;
        if let Some(row) = row.filter(|_| !is_running) {
            self.evaluation = Some(Evaluation::of_end(&row.metrics));
            self.costs = Costs::of_end(&row);
            return Ok(());
        }
        let (latest, evaluation) = measured::metrics(&self.folder)?;
        self.evaluation = evaluation;
        self.costs = measured::costs(&self.folder)?;
        let at = |latest| state::reached(config, self.progress.as_ref(), latest);
        self.state = match is_running {
            true => State::Running(at(latest)),
            // What was logged after the checkpoint will be cut off.
            false => State::Stopped(at(None)),
        };
        Ok(())
    }

    /// Name and value by which runs of its task are compared.
    #[must_use]
    pub fn main(&self) -> Option<(&str, f64)> {
        let evaluation = self.evaluation.as_ref()?;
        let name = match &self.config {
            Some(config) => main_metric(config.task),
            // At the end of a run it is the first.
            None => evaluation.values.first()?.0.as_str(),
        };
        Some((name, evaluation.value(name)?))
    }

    /// Its student's architecture in a few words.
    #[must_use]
    pub fn student(&self) -> Option<String> {
        let config = self.config.as_ref()?;
        Some(stages::architecture(&config.student, config))
    }

    /// Labels of its methods; none of plain training.
    #[must_use]
    pub fn methods(&self) -> Vec<String> {
        let Some(config) = &self.config else {
            return Vec::new();
        };
        let entries = config.distill.entries().into_iter();
        let label = |entry: crate::config::MethodEntry<'_>| match entry.label {
            Some(label) => label.to_owned(),
            // A single one is labelled by its id, which the file says.
            None => (self.environment.as_ref())
                .and_then(|environment| environment.plugins.keys().next().cloned())
                .unwrap_or_else(|| entry.config.plugin.clone()),
        };
        entries.map(label).collect()
    }

    /// Where it was continued: after which step, and on what.
    ///
    /// # Errors
    /// If a file is broken.
    pub fn continued(&self) -> Result<Vec<(u64, Environment)>, EngineError> {
        let mut found = Vec::new();
        for name in names(&self.folder)? {
            let iter = name.strip_prefix("environment.resume_");
            let iter = iter.and_then(|rest| rest.strip_suffix(".json"));
            let Some(iter) = iter.and_then(|iter| iter.parse().ok()) else {
                continue;
            };
            if let Some(environment) = json(&self.folder.join(name))? {
                found.push((iter, environment));
            }
        }
        Ok(found)
    }

    /// Files and folders in its directory, with sizes in bytes: of a folder, of all files in it.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn files(&self) -> Result<Vec<(String, u64)>, EngineError> {
        let names = names(&self.folder)?.into_iter();
        let sized = names.map(|name| {
            let path = self.folder.join(&name);
            let size = size(&path);
            match path.is_dir() {
                true => (format!("{name}/"), size),
                false => (name, size),
            }
        });
        Ok(sized.collect())
    }
}

/// The embedded default of the task of `config`.
#[must_use]
pub fn default_of(config: &Config) -> Config {
    let sources = Sources {
        set: vec![format!("task={}", config.task.name())],
        ..Sources::default()
    };
    let resolved = sources.resolve();
    resolved
        .expect("a test resolves every task's default")
        .config
}

fn result(folder: &Path) -> Result<Option<Row>, EngineError> {
    let file: Option<ResultFile> = json(&folder.join(arm::RESULT))?;
    Ok(file.map(|file| file.row))
}

/// The file as JSON, or none if it is not there.
fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, EngineError> {
    let refuse = |reason: String| EngineError::Result {
        path: path.into(),
        reason: format!("{reason}; restore the file from a copy, or remove the run's folder"),
    };
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| refuse(error.to_string())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refuse(error.to_string())),
    }
}

fn written(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|facts| facts.modified()).ok()
}

/// Names in a folder, in ascending order.
fn names(folder: &Path) -> Result<Vec<String>, EngineError> {
    let failed = |error: std::io::Error| EngineError::Result {
        path: folder.into(),
        reason: error.to_string(),
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into());
    }
    names.sort();
    Ok(names)
}

/// Bytes of a file, or of all files in a folder; links count for themselves.
fn size(path: &Path) -> u64 {
    let Ok(facts) = fs::symlink_metadata(path) else {
        return 0;
    };
    match facts.is_dir() {
        false => facts.len(),
        true => {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| size(&entry.path())).sum()
        }
    }
}

#[cfg(test)]
mod tests;
