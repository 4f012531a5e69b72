//! Arms before the first run: their methods bind, and what comes out of their stages is comparable.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::AbError;
use super::plan::Plan;
use super::runner::{ended, executable, last_words};
use super::store::{RunFiles, Store};
use crate::config::Config;
use crate::engine::{arm, stages};

/// Binds the methods of every arm, in a process of its own, so that what would be refused is refused
/// before the first run, and compares the settings of the last stage of an arm that has stages: its
/// student comes from there. Differences that are allowed are added to the plan's.
///
/// # Errors
/// If a method is refused, or a last stage differs from the control in more than was allowed.
pub fn check(plan: &mut Plan, store: &Store) -> Result<(), AbError> {
    for arm in 1..plan.arms.len() {
        let folder = plan.arms[arm].spec.folder();
        let seeds = plan.spec.seeds.iter();
        let runs: Vec<RunFiles> = seeds.map(|&seed| store.run(&folder, seed)).collect();
        let is_done = |run: &RunFiles| run.folder.join(arm::RESULT).is_file();
        let is_job = |run: &RunFiles| stages::is_job(&run.folder);
        if runs.iter().all(is_done) && !runs.iter().any(is_job) {
            continue;
        }
        runs[0].write_config(&plan.arms[arm].configs[0])?;
        let config = runs[0].config();
        if let Some(last) = last_stage(&plan.arms[arm].spec.name, &config)? {
            plan.add_last_stage(arm, &last)?;
        }
    }
    Ok(())
}

/// Binds the methods of `config`, and gives the settings of its last stage; none: it is one run.
fn last_stage(arm: &str, config: &Path) -> Result<Option<Config>, AbError> {
    /// What is read of the summary of a stage.
    #[derive(Deserialize)]
    struct Stage {
        name: String,
        folder: PathBuf,
    }
    let stages = show_plan(arm, config, &["--json"])?;
    let stages: Vec<Stage> = serde_json::from_str(&stages).map_err(|e| refused(arm, e))?;
    let last = stages.last();
    let Some(last) = last.filter(|last| last.folder != Path::new(".")) else {
        return Ok(None);
    };
    let settings = show_plan(arm, config, &["--stage", &last.name])?;
    let settings = toml::from_str(&settings).map_err(|e| refused(arm, e))?;
    Ok(Some(settings))
}

/// What `kdhost show plan` says of `config`.
fn show_plan(arm: &str, config: &Path, arguments: &[&str]) -> Result<String, AbError> {
    let executable = executable()?;
    let output = Command::new(&executable)
        .args(["show", "plan", "--config"])
        .arg(config)
        .args(arguments)
        .output()
        .map_err(|e| AbError::file(&executable, e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = last_words(&String::from_utf8_lossy(&output.stderr));
    Err(refused(
        arm,
        match said.is_empty() {
            true => ended(output.status).reason,
            false => said,
        },
    ))
}

fn refused(arm: &str, reason: impl ToString) -> AbError {
    AbError::Spec {
        what: format!("arm `{arm}`"),
        reason: reason.to_string(),
    }
}
