//! Phases of a method alone, before the run's first step: from the cache, or by their own steps.
//!
//! Batches come from the run's loader. Epoch `e` of the phase declared as the `p`-th is the loader's
//! epoch `(p + 1) * 2^32 + e`, so that the run's epochs, from 0, are as they are without the phase.

use std::collections::BTreeMap;
use std::time::Instant;

use tracing::{info, warn};

use crate::config::PretrainSource;
use crate::distill::methods::Bound;
use crate::distill::schedule::PretrainPhase;
use crate::engine::EngineError;
use crate::engine::checkpoint::PretrainProgress;
use crate::engine::optim::{PretrainOptimizer, method_param};
use crate::engine::pretrained::{Circumstances, Pretrained};
use crate::engine::progress::{StepReport as ProgressReport, TrainProgress};
use crate::engine::step::{AlonePosition, AloneReport};
use crate::state::StateDict;

use super::{Session, take};

/// Between the loader's epochs of two phases, and of the first and the run.
const EPOCHS_APART: u64 = 1 << 32;

impl Session<'_> {
    /// Takes the phases to where they stand: from the checkpoint with its optimizer state, over at
    /// once if an earlier run did the same, or to their start.
    pub(super) fn begin_pretrain(
        &mut self,
        optimizer: Option<StateDict>,
    ) -> Result<(), EngineError> {
        let phases = self.learner.schedule.pretrain();
        if phases.is_empty() {
            return Ok(());
        }
        let count = phases.len();
        let at = self.at.pretrain.get_or_insert_default();
        if (at.phase, at.iter) == (0, 0)
            && let Some(kept) = self.kept()?
            && let Some(state) = kept.load()?
        {
            let owner = self.owner();
            let loaded = self.learner.methods.distiller_mut(owner).load_state(&state);
            loaded.map_err(|error| kept.refused(error.to_string()))?;
            info!(
                "{}: reusing what method `{}` learned by itself, from `{}`",
                self.run.label,
                self.learner.methods.label(owner),
                kept.folder().display()
            );
            let over = PretrainProgress {
                phase: count,
                ..PretrainProgress::default()
            };
            self.at.pretrain = Some(over);
            let reused = BTreeMap::from([("pretrain/reused".to_owned(), 1.0)]);
            self.log.record(0, 0, &reused)?;
        }
        self.begin_phase();
        if let (Some(own), Some(state)) = (&mut self.pretrain_optimizer, optimizer) {
            let owner = self.learner.methods.owner();
            let owner = owner.expect("a phase has a method that declares it");
            own.load_state(&state, &self.learner.methods.bound(owner).param_lengths())?;
        }
        Ok(())
    }

    /// Runs the phases that are not over, and keeps what the method learned in them.
    pub(super) fn pretrain(&mut self) -> Result<(), EngineError> {
        let phases = self.learner.schedule.pretrain().to_vec();
        while let Some(at) = self.at.pretrain
            && let Some(phase) = phases.get(at.phase)
        {
            self.run_phase(phase)?;
            for (name, teacher) in &self.learner.teachers {
                teacher.verify(name)?;
            }
            self.at.pretrain = Some(PretrainProgress {
                phase: at.phase + 1,
                ..PretrainProgress::default()
            });
            self.begin_phase();
            if at.phase + 1 == phases.len()
                && let Some(kept) = self.kept()?
            {
                let owner = self.learner.methods.bound(self.owner());
                kept.store(&owner.distiller.to_state())?;
            }
            self.checkpoint()?;
        }
        Ok(())
    }

    /// One batch before the first step of a phase, if the run starts with one.
    pub(super) fn preflight_alone(&mut self) -> Result<(), EngineError> {
        let at = self.at.pretrain.unwrap_or_default();
        let phase = self.learner.schedule.pretrain().get(at.phase);
        let (Some(phase), 0) = (phase.cloned(), at.iter) else {
            return Ok(());
        };
        let position = self.alone_position(at);
        let epoch = self.epoch_alone(position);
        let Some(batch) = self.loader.epoch(epoch, 0).next() else {
            return Ok(());
        };
        let probe = self.learner.probe_alone(batch?, position)?;
        let label = format!("{}, phase `{}`", self.run.label, phase.name);
        for name in &probe.without_gradient {
            warn!("{label}: learned part `{name}` of the method gets no gradient from one batch");
        }
        let losses = probe.losses.iter();
        let losses: Vec<String> = losses
            .map(|(name, value)| format!("{name} {value:.4}"))
            .collect();
        info!(
            "{label}: {} steps of the method alone before the run; first batch {}",
            phase.steps,
            losses.join(", ")
        );
        Ok(())
    }

    /// The loader's epoch of an epoch of a phase.
    fn epoch_alone(&self, at: AlonePosition) -> u64 {
        let phase = &self.learner.schedule.pretrain()[at.phase];
        (u64::from(phase.index) + 1) * EPOCHS_APART + at.epoch
    }

    fn alone_position(&self, at: PretrainProgress) -> AlonePosition {
        AlonePosition {
            phase: at.phase,
            step: at.iter,
            epoch: at.epoch,
            seed: self.run.config.seed,
        }
    }

    /// An optimizer without state for the phase that comes next, if one does.
    fn begin_phase(&mut self) {
        let at = self.at.pretrain.unwrap_or_default();
        let phase = self.learner.schedule.pretrain().get(at.phase);
        self.pretrain_optimizer = phase.map(PretrainOptimizer::new);
    }

    /// The method whose phases these are.
    fn owner(&self) -> usize {
        let owner = self.learner.methods.owner();
        owner.expect("a phase has a method that declares it")
    }

    /// Where the cache keeps, or would keep, what the method learns; none where the configuration wants
    /// neither.
    fn kept(&self) -> Result<Option<Pretrained>, EngineError> {
        let bound = self.learner.methods.bound(self.owner());
        let mut chosen = self.run.chosen.iter();
        let chosen = chosen.find(|chosen| chosen.label == bound.label);
        let chosen = chosen.expect("every bound method was chosen");
        if chosen.entry.config.pretrain == PretrainSource::Fresh {
            return Ok(None);
        }
        let circumstances = Circumstances {
            config: self.run.config,
            chosen,
            distiller: &bound.distiller,
            teachers: &self.learner.teachers,
            datasets: self.run.datasets,
            loader: self.loader.options(),
            phases: self.learner.schedule.pretrain(),
        };
        Pretrained::new(&circumstances).map(Some)
    }

    /// Runs from where a phase stands to its end.
    fn run_phase(&mut self, phase: &PretrainPhase) -> Result<(), EngineError> {
        let config = &self.run.config.train;
        let accumulate = config.accumulate;
        let interval = config.checkpoint_interval_iters as u64;
        let log_interval = config.log_interval_iters as u64;
        let mut at = self.at.pretrain.unwrap_or_default();
        let label = format!("{}, phase `{}`", self.run.label, phase.name);
        let mut progress = TrainProgress::new(
            self.run.progress,
            &label,
            at.iter,
            phase.steps,
            log_interval,
        );
        let last = self.steps_per_epoch * accumulate as u64;
        let mut report = None;
        while at.iter < phase.steps {
            let epoch = self.epoch_alone(self.alone_position(at));
            let mut batches = self.loader.epoch(epoch, at.batch_in_epoch as usize);
            while at.iter < phase.steps && at.batch_in_epoch < last {
                let clock = Instant::now();
                let micro = take(&mut batches, accumulate)?;
                let data_time = clock.elapsed();
                let clock = Instant::now();
                let position = self.alone_position(at);
                let optimizer = self.pretrain_optimizer.as_mut();
                let optimizer = optimizer.expect("made when the phase began");
                let mut done = match self.learner.step_alone(micro, position, optimizer) {
                    Ok(done) => done,
                    Err(error) => {
                        // The last good state, so that nothing is lost.
                        self.checkpoint()?;
                        warn!(
                            "{label}: step {} failed and was not applied; the state before it is in \
                             `{}`",
                            at.iter,
                            self.run.folder.join("checkpoints").display()
                        );
                        return Err(error);
                    }
                };
                done.times.data = data_time.as_secs_f64();
                at.iter += 1;
                at.batch_in_epoch += accumulate as u64;
                at.first_loss.get_or_insert(total(&done));
                let epoch_over = at.batch_in_epoch == last;
                if epoch_over {
                    (at.epoch, at.batch_in_epoch) = (at.epoch + 1, 0);
                }
                self.at.pretrain = Some(at);
                progress.step(&ProgressReport {
                    iter: at.iter,
                    epoch: at.epoch,
                    lr: done.lr,
                    data_time,
                    step_time: clock.elapsed() + data_time,
                    losses: &done.losses,
                });
                let over = at.iter == phase.steps;
                if at.iter.is_multiple_of(log_interval.max(1)) || over {
                    self.record_alone(phase, at, &done)?;
                }
                report = Some(done);
                if self.run.interrupt.requested() {
                    self.checkpoint()?;
                    return Err(EngineError::Interrupted {
                        step: at.iter,
                        phase: Some(phase.name.clone()),
                        run_dir: self.run.folder.into(),
                    });
                }
                if interval > 0 && at.iter.is_multiple_of(interval) && !over {
                    self.checkpoint()?;
                }
                if epoch_over {
                    break;
                }
            }
        }
        progress.finish();
        if let Some(report) = report {
            info!("{label}: {}", summary(phase, at, &report));
        }
        Ok(())
    }

    /// One line of the log, with the phase's own count of steps.
    fn record_alone(
        &mut self,
        phase: &PretrainPhase,
        at: PretrainProgress,
        report: &AloneReport,
    ) -> Result<(), EngineError> {
        let group = format!("pretrain/{}", phase.name);
        let mut values = BTreeMap::new();
        for (name, value) in &report.losses {
            values.insert(format!("{group}/{name}"), *value);
        }
        values.insert(format!("{group}/loss_total"), total(report));
        values.insert(format!("{group}/lr"), report.lr);
        values.insert(format!("{group}/grad_norm_method"), report.grad_norm);
        for (name, value) in &report.metrics {
            values.insert(format!("{group}/method/{name}"), *value);
        }
        for (name, seconds) in report.times.named() {
            values.insert(format!("time/{group}/{name}"), seconds);
        }
        self.log.record(at.iter, at.epoch, &values)?;
        Ok(())
    }
}

fn total(report: &AloneReport) -> f64 {
    report.losses.iter().map(|(_, value)| value).sum()
}

/// What a phase that is over came to, for a person.
fn summary(phase: &PretrainPhase, at: PretrainProgress, report: &AloneReport) -> String {
    let last = total(report);
    let mut text = format!(
        "{} steps, loss {:.4} at first, {last:.4} at last",
        phase.steps,
        at.first_loss.unwrap_or(last)
    );
    for (name, value) in &report.metrics {
        text.push_str(&format!(", {name} {value:.4}"));
    }
    text
}

impl Bound {
    /// Lengths of its parameters, as optimizers call them.
    fn param_lengths(&self) -> BTreeMap<String, usize> {
        let names = self.param_names().into_iter();
        let lengths = self.distiller.param_shapes();
        let lengths = lengths.map(|shape| shape.iter().product());
        names.map(|name| method_param(&name)).zip(lengths).collect()
    }
}
