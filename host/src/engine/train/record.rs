//! What a run writes down: losses, evaluations, terms that do nothing.

use std::collections::BTreeMap;
use std::time::Instant;

use tracing::warn;

use crate::engine::EngineError;
use crate::engine::checkpoint::Best;
use crate::engine::ema::Ema;
use crate::engine::evaluate::{EvaluationSet, evaluate, evaluate_oracle};
use crate::engine::fingerprint::{self, Fingerprint, Steps};
use crate::engine::memory::MemoryUsage;
use crate::engine::step::StepReport;
use crate::engine::weights::ModelWeights;
use crate::eval::{ByImage, Metrics, PREDICTIONS_FILE};
use crate::plugin::CallInfo;
use crate::state::{StateDict, write_atomically};

use super::{LastEvaluation, Oracles, Session};

/// A term that is exactly zero for so many steps in a row is reported.
const ZERO_TERM_STEPS: u64 = 50;

impl Session<'_> {
    pub(super) fn watch_zero_terms(&mut self, report: &StepReport) {
        for (name, value) in &report.losses {
            // A weight of 0 says as much by itself.
            if report.weightless.contains(name) {
                continue;
            }
            let count = self.zero_terms.entry(name.clone()).or_default();
            *count = if *value == 0.0 { *count + 1 } else { 0 };
            if *count == ZERO_TERM_STEPS {
                warn!(
                    "{}: term `{name}` has been exactly zero for {ZERO_TERM_STEPS} steps",
                    self.run.label
                );
            }
        }
    }

    pub(super) fn record(&mut self, report: &StepReport) -> Result<(), EngineError> {
        let mut values = BTreeMap::new();
        let mut total = 0.0;
        for (name, value) in &report.losses {
            values.insert(format!("train/{name}"), *value);
            total += value;
        }
        values.insert("train/loss_total".into(), total);
        values.insert("train/lr".into(), report.lr);
        values.insert("train/grad_norm".into(), report.grad_norm);
        for (label, norm) in &report.method_grad_norms {
            let key = match self.learner.methods.len() {
                1 => "train/grad_norm_method".to_owned(),
                _ => format!("train/grad_norm_method_{label}"),
            };
            values.insert(key, *norm);
        }
        for (name, weight) in &report.weights {
            values.insert(format!("train/{name}"), *weight);
        }
        for (name, value) in &report.metrics {
            values.insert(format!("method/{name}"), *value);
        }
        for (name, seconds) in report.times.named() {
            values.insert(format!("time/{name}"), seconds);
        }
        if let Some(memory) = MemoryUsage::now() {
            values.insert("memory/peak_bytes".into(), memory.peak_bytes as f64);
        }
        self.log.record(self.at.iter, self.at.epoch, &values)?;
        Ok(())
    }

    /// The weights to evaluate and export: the average, if there is one.
    pub(super) fn exported(&self) -> &ModelWeights {
        self.learner
            .ema
            .as_ref()
            .map_or(&self.learner.weights, Ema::weights)
    }

    /// Evaluates, records, and gives the line to show.
    pub(super) fn evaluate(&mut self) -> Result<String, EngineError> {
        let clock = Instant::now();
        let config = self.run.config;
        let set = EvaluationSet {
            dataset: &self.run.datasets.val,
            data: &config.data,
            eval: &config.eval,
        };
        let model = self.learner.model.as_ref();
        let evaluation = evaluate(model, self.exported().tensors(), set)?;
        let metrics = evaluation.metrics;
        let oracles = self.oracles(set)?;
        let mut values: BTreeMap<String, f64> = metrics
            .named()
            .iter()
            .map(|(name, value)| (format!("val/{name}"), *value))
            .collect();
        self.at.metrics.clone_from(&values);
        if self
            .at
            .best
            .as_ref()
            .is_none_or(|best| metrics.main().1 > best.value)
        {
            // Under the key of the log, which is not always the column's.
            let key = metrics.named().swap_remove(0).0;
            self.at.best = Some(Best {
                metric: format!("val/{key}"),
                value: metrics.main().1,
                iter: self.at.iter,
            });
        }
        for (label, oracle) in &oracles {
            values.extend(oracle.named().iter().map(|(name, value)| {
                let key = match self.learner.methods.len() {
                    1 => format!("oracle/{name}"),
                    _ => format!("oracle/{label}/{name}"),
                };
                (key, *value)
            }));
        }
        values.insert("time/evaluation".into(), clock.elapsed().as_secs_f64());
        self.log.record(self.at.iter, self.at.epoch, &values)?;
        let line = format!(
            "{} epoch {}: {} ({:.1} s)",
            self.run.label,
            self.at.epoch,
            metrics.line(),
            clock.elapsed().as_secs_f64()
        );
        self.last_evaluation = Some(LastEvaluation {
            iter: self.at.iter,
            metrics,
            oracles,
            by_image: evaluation.by_image,
        });
        Ok(line)
    }

    /// Writes what the final evaluation is made of.
    pub(super) fn write_predictions(&self, by_image: &ByImage) -> Result<(), EngineError> {
        let path = self.run.folder.join(PREDICTIONS_FILE);
        let json = by_image.to_json(&self.run.datasets.val.category_ids());
        write_atomically(&path, json.as_bytes()).map_err(|error| EngineError::Result {
            path,
            reason: error.to_string(),
        })
    }

    /// Completes the run's fingerprint.
    pub(super) fn note_end(
        &self,
        metrics: &Metrics,
        student: &StateDict,
    ) -> Result<(), EngineError> {
        let accumulate = self.run.config.train.accumulate;
        let steps = Steps {
            total: self.total_steps,
            per_epoch: self.steps_per_epoch,
            accumulate,
        };
        let last_batch = match &self.last_batch {
            Some(hash) => hash.clone(),
            // The last step was taken before this process began.
            None => fingerprint::last_batch(&self.loader, steps)?,
        };
        let facts = fingerprint::at_end(&self.loader, accumulate, last_batch, metrics, student)?;
        Fingerprint::note_end(self.run.folder, facts)
    }

    /// The head on the maps of each method that makes some, if asked for.
    fn oracles(&mut self, set: EvaluationSet<'_>) -> Result<Oracles, EngineError> {
        let mut oracles = Oracles::new();
        if !self.run.config.eval.oracle {
            return Ok(oracles);
        }
        let weights = self.exported().clone();
        let call = CallInfo {
            step: self.at.iter,
            total_steps: self.total_steps,
            epoch: self.at.epoch,
            seed: self.run.config.seed,
            ..CallInfo::default()
        };
        let learner = &mut self.learner;
        let model = learner.model.as_ref();
        for bound in learner.methods.iter_mut() {
            if !bound.distiller.has_maps() {
                continue;
            }
            let (distiller, teachers) = (&mut bound.distiller, &learner.teachers);
            let weights = weights.tensors();
            let evaluation = evaluate_oracle(model, weights, distiller, teachers, &call, set)?;
            oracles.insert(bound.label.clone(), evaluation.metrics);
        }
        Ok(oracles)
    }
}
