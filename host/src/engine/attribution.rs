//! Which term of the total teaches which part: gradient norms of one batch, term by term.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::config::Config;
use crate::distill::distiller::MAPS;
use crate::model::Part;

use super::EngineError;
use super::bench::StepBench;
use super::step::{Learner, StepPosition};

/// Steps that a schedule is laid out for.
const TOTAL_STEPS: u64 = 10_000;

/// The gradient of one term.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `task`, [`MAPS`] (task losses on the method's maps), or a loss of the method.
    pub term: String,
    /// L2 norm at each part that the term reaches; 0 where it arrives as zero.
    pub norms: BTreeMap<String, f64>,
}

/// Gradients of one batch in one phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attribution {
    /// Name of the phase.
    pub phase: String,
    /// `backbone`, `neck`, `head`, then the method's modules: first segments of parameter names.
    pub parts: Vec<String>,
    /// Parts that do not learn in this phase.
    pub frozen: Vec<String>,
    /// One a term.
    pub rows: Vec<Row>,
}

impl Attribution {
    /// Of the initial weights of a configuration, at a share `at` of the run.
    ///
    /// # Errors
    /// As a run.
    pub fn of_config(config: &Config, at: f64) -> Result<Self, EngineError> {
        let mut bench = StepBench::of_config_for(config, TOTAL_STEPS)?;
        let step = (at * TOTAL_STEPS as f64) as u64;
        let at = StepPosition {
            step: step.min(TOTAL_STEPS - 1),
            total_steps: TOTAL_STEPS,
            epoch: 0,
            seed: config.seed,
        };
        let batch = bench.batch()?;
        let learner = bench.learner_mut();
        let (_, phase) = learner.schedule.at(at.step);
        let phase = phase.clone();
        let mut rows = Vec::new();
        for term in learner.terms() {
            let gradients = learner.gradients_of(&term, batch.clone(), at)?;
            let mut squares: BTreeMap<String, f64> = BTreeMap::new();
            for (part, gradient) in gradients {
                let square: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
                *squares.entry(part).or_default() += square;
            }
            let norms = squares.into_iter().map(|(p, s)| (p, s.sqrt())).collect();
            rows.push(Row { term, norms });
        }
        let method = learner.method_modules();
        let mut frozen: Vec<String> = [Part::Backbone, Part::Neck, Part::Head]
            .into_iter()
            .filter(|part| !phase.learn.part(*part))
            .map(|part| part.name().to_owned())
            .collect();
        if !phase.learn.method {
            frozen.extend(method.clone());
        }
        let model = [Part::Backbone, Part::Neck, Part::Head].map(|part| part.name().to_owned());
        Ok(Attribution {
            phase: phase.name,
            parts: model.into_iter().chain(method).collect(),
            frozen,
            rows,
        })
    }

    /// For people: a dash where a term does not reach, `0` where it arrives as zero.
    #[must_use]
    pub fn render(&self) -> String {
        let mut table = Table::new();
        let header = std::iter::once("gradient of".to_owned()).chain(self.parts.iter().map(|p| {
            if self.frozen.contains(p) {
                format!("{p} (frozen)")
            } else {
                p.clone()
            }
        }));
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_header(header);
        for row in &self.rows {
            let cells = self.parts.iter().map(|part| match row.norms.get(part) {
                None => "-".to_owned(),
                Some(0.0) => "0".to_owned(),
                Some(norm) => format!("{norm:.3e}"),
            });
            table.add_row(std::iter::once(row.term.clone()).chain(cells));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("phase `{}`\n{table}", self.phase)
    }
}

/// Key of the student's own losses.
const TASK: &str = "task";

impl Learner {
    /// Terms of the total: `task`, `maps` if the method generates any, and the method's losses.
    fn terms(&self) -> Vec<String> {
        let mut terms = vec![TASK.to_owned()];
        if let Some(distiller) = &self.distiller {
            if distiller.has_maps() {
                terms.push(MAPS.to_owned());
            }
            terms.extend(distiller.losses().map(|(name, _)| name.to_owned()));
        }
        terms
    }

    /// First segments of the names of the method's parameters, in order.
    fn method_modules(&self) -> Vec<String> {
        let mut modules: Vec<String> = Vec::new();
        for name in self.distiller.iter().flat_map(|d| d.param_names()) {
            let module = module(name);
            if !modules.contains(&module) {
                modules.push(module);
            }
        }
        modules
    }

    /// The gradients of one term alone, with the part that each belongs to; every other term has
    /// weight 0.
    fn gradients_of(
        &mut self,
        term: &str,
        batch: crate::data::Batch,
        at: StepPosition,
    ) -> Result<Vec<(String, Vec<f32>)>, EngineError> {
        self.task_weight = if term == TASK { 1.0 } else { 0.0 };
        let weights = self.distiller.as_mut().map(|d| d.weigh_only(term));
        let probe = self.probe(batch, at);
        self.task_weight = 1.0;
        if let (Some(distiller), Some(weights)) = (&mut self.distiller, weights) {
            distiller.weigh(weights);
        }
        let probe = probe?;
        let specs = self.detector.specs();
        let student = specs
            .iter()
            .zip(probe.student_gradients)
            .filter_map(|(spec, gradient)| Some((spec.part.name().to_owned(), gradient?)));
        let names: Vec<String> = self
            .distiller
            .iter()
            .flat_map(|d| d.param_names())
            .map(module)
            .collect();
        Ok(student
            .chain(names.into_iter().zip(probe.method_gradients))
            .collect())
    }
}

fn module(name: &str) -> String {
    name.split('.').next().unwrap_or(name).to_owned()
}
