//! How far a run has come.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::config::Config;
use crate::engine::checkpoint::Progress;
use crate::engine::{EngineError, arm, stages};

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// To its end.
    Done,
    /// A process holds its lock.
    Running(Reached),
    /// Nobody works on it; `--resume` goes on from here.
    Stopped(Reached),
}

/// A place in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// Its beginning: nothing was recorded yet.
    Nothing,
    /// In a phase that a method learns by itself, before the first step.
    Alone {
        /// From 1.
        phase: usize,
        /// Optimizer steps of the phase.
        iter: u64,
    },
    /// In training.
    Training {
        /// Optimizer steps.
        iter: u64,
        /// All of the run's; none: not known before an epoch is over.
        of: Option<u64>,
        /// Epochs that are over.
        epoch: u64,
        /// All of the run's.
        epochs: u64,
    },
    /// In a job of stages.
    Stages {
        /// That are over.
        done: usize,
        /// All of them.
        of: usize,
    },
}

impl State {
    /// `done`, `running` or `stopped`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Done => "done",
            State::Running(_) => "running",
            State::Stopped(_) => "stopped",
        }
    }

    /// The place, unless it is the end.
    #[must_use]
    pub fn reached(self) -> Option<Reached> {
        match self {
            State::Done => None,
            State::Running(reached) | State::Stopped(reached) => Some(reached),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self.reached() {
            None => Ok(()),
            Some(Reached::Nothing) => f.write_str(" at the beginning"),
            Some(reached) => write!(f, " {reached}"),
        }
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Reached::Nothing => f.write_str("at the beginning"),
            Reached::Alone { phase, iter } => {
                write!(f, "at iter {iter} of phase {phase} of the method alone")
            }
            Reached::Training {
                iter, of: Some(of), ..
            } => write!(f, "at iter {iter} of {of}"),
            Reached::Training {
                iter,
                of: None,
                epoch,
                epochs,
            } => write!(f, "at iter {iter}, epoch {epoch} of {epochs}"),
            Reached::Stages { done, of } => write!(f, "after {done} of {of} stages"),
        }
    }
}

/// Where the newest checkpoint stands, and `latest`, the last step that was logged, which is beyond it
/// in a run that goes on.
pub(super) fn reached(
    config: &Config,
    progress: Option<&Progress>,
    latest: Option<u64>,
) -> Reached {
    let Some(progress) = progress else {
        return match latest {
            None => Reached::Nothing,
            Some(iter) => Reached::Training {
                iter,
                of: None,
                epoch: 0,
                epochs: config.train.epochs as u64,
            },
        };
    };
    let iter = progress.iter.max(latest.unwrap_or(0));
    match &progress.pretrain {
        Some(alone) if iter == 0 => Reached::Alone {
            phase: alone.phase + 1,
            iter: alone.iter,
        },
        _ => Reached::Training {
            iter,
            of: total_steps(config, progress),
            epoch: progress.epoch,
            epochs: config.train.epochs as u64,
        },
    }
}

/// Optimizer steps of the whole run, which follow from a checkpoint after the first epoch.
fn total_steps(config: &Config, progress: &Progress) -> Option<u64> {
    if progress.finished {
        return Some(progress.iter);
    }
    let train = &config.train;
    let within = progress.batch_in_epoch / train.accumulate.max(1) as u64;
    let whole = progress.iter.checked_sub(within)?;
    let per_epoch = whole.checked_div(progress.epoch)?;
    let total = per_epoch * train.epochs as u64;
    Some(match train.max_iters {
        0 => total,
        limit => total.min(limit as u64),
    })
}

/// Stages of the job in `folder` that are over, and all of them.
pub(super) fn of_job(folder: &Path) -> Result<[usize; 2], EngineError> {
    let stages = stages::folders(folder)?;
    let done = stages.iter().filter(|s| s.join(arm::RESULT).is_file());
    Ok([done.count(), stages.len()])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::checkpoint::PretrainProgress;
    use crate::engine::metrics_log::LogPosition;

    fn config(epochs: usize, accumulate: usize, max_iters: usize) -> Config {
        let mut config = Config::base();
        config.train.epochs = epochs;
        config.train.accumulate = accumulate;
        config.train.max_iters = max_iters;
        config
    }

    fn progress(iter: u64, epoch: u64, batch_in_epoch: u64) -> Progress {
        Progress {
            iter,
            epoch,
            batch_in_epoch,
            pretrain: None,
            seed: 0,
            config_hash: String::new(),
            plugins: BTreeMap::new(),
            finished: false,
            metrics: BTreeMap::new(),
            best: None,
            log: LogPosition::default(),
        }
    }

    fn stopped(config: &Config, progress: Option<&Progress>, latest: Option<u64>) -> String {
        State::Stopped(reached(config, progress, latest)).to_string()
    }

    #[test]
    fn the_length_of_a_run_follows_from_its_epochs() {
        let config = config(4, 1, 0);
        let said = |progress: Progress| stopped(&config, Some(&progress), None);
        assert_eq!(said(progress(10, 1, 0)), "stopped at iter 10 of 40");
        assert_eq!(said(progress(27, 2, 7)), "stopped at iter 27 of 40");
        assert_eq!(said(progress(7, 0, 7)), "stopped at iter 7, epoch 0 of 4");
    }

    #[test]
    fn accumulated_batches_and_a_limit_count() {
        let said = |config, progress: Progress| stopped(&config, Some(&progress), None);
        // Ten batches an epoch, two of them a step.
        let run = progress(7, 1, 4);
        assert_eq!(
            said(config(4, 2, 0), run.clone()),
            "stopped at iter 7 of 20"
        );
        assert_eq!(said(config(4, 2, 12), run), "stopped at iter 7 of 12");
        let over = Progress {
            finished: true,
            ..progress(3, 0, 3)
        };
        assert_eq!(said(config(4, 1, 3), over), "stopped at iter 3 of 3");
    }

    #[test]
    fn before_training_the_place_is_the_beginning_or_a_phase() {
        let config = config(4, 1, 0);
        assert_eq!(stopped(&config, None, None), "stopped at the beginning");
        let alone = Progress {
            pretrain: Some(PretrainProgress {
                phase: 1,
                iter: 20,
                ..PretrainProgress::default()
            }),
            ..progress(0, 0, 0)
        };
        assert_eq!(
            stopped(&config, Some(&alone), None),
            "stopped at iter 20 of phase 2 of the method alone"
        );
        let running = State::Running(reached(&config, Some(&progress(10, 1, 0)), Some(18)));
        assert_eq!(running.to_string(), "running at iter 18 of 40");
        let running = State::Running(reached(&config, None, Some(3)));
        assert_eq!(running.to_string(), "running at iter 3, epoch 0 of 4");
    }
}
