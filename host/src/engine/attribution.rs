//! Which term of the total teaches which part: gradient norms of one batch, term by term.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::config::Config;
use crate::distill::distiller::MAPS;
use crate::distill::methods::Bound;
use crate::distill::schedule::Phase;
use crate::model::Part;

use super::EngineError;
use super::bench::StepBench;
use super::step::{Learner, StepPosition};

/// Steps that a schedule is laid out for.
const TOTAL_STEPS: u64 = 10_000;

/// The gradient of one term.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `task`, [`MAPS`] (task losses on a method's maps), or a loss of a method; with several methods
    /// the last two begin with the method's label.
    pub term: String,
    /// L2 norm at each part that the term reaches; 0 where it arrives as zero.
    pub norms: BTreeMap<String, f64>,
}

/// Gradients of one batch in one phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attribution {
    /// Name of the phase.
    pub phase: String,
    /// `backbone`, `neck`, `head`, then the methods' modules: first segments of parameter names, with
    /// several methods after the label and a dot.
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
        for (term, name) in learner.terms() {
            let gradients = learner.gradients_of(&term, batch.clone(), at)?;
            let mut squares: BTreeMap<String, f64> = BTreeMap::new();
            for (part, gradient) in gradients {
                let square: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
                *squares.entry(part).or_default() += square;
            }
            let norms = squares.into_iter().map(|(p, s)| (p, s.sqrt())).collect();
            rows.push(Row { term: name, norms });
        }
        let mut method: Vec<String> = Vec::new();
        for module in learner.method_modules() {
            if !method.contains(&module) {
                method.push(module);
            }
        }
        let mut frozen: Vec<String> = [Part::Backbone, Part::Neck, Part::Head]
            .into_iter()
            .filter(|part| !phase.learn.part(*part))
            .map(|part| part.name().to_owned())
            .collect();
        frozen.extend(learner.frozen_modules(&phase));
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

/// A term of the total.
#[derive(Clone, Debug)]
enum Term {
    /// The student's own losses.
    Task,
    /// A term of the method `label`.
    OfMethod { label: String, name: String },
}

impl Learner {
    /// Terms of the total and what they are called: `task`, then of each method [`MAPS`] if it
    /// generates any, and its losses.
    fn terms(&self) -> Vec<(Term, String)> {
        let mut terms = vec![(Term::Task, TASK.to_owned())];
        for Bound { label, distiller } in self.methods.iter() {
            let maps = distiller.has_maps().then_some(MAPS);
            let names = maps
                .into_iter()
                .chain(distiller.losses().map(|(name, _)| name));
            terms.extend(names.map(|name| {
                let term = Term::OfMethod {
                    label: label.clone(),
                    name: name.to_owned(),
                };
                (term, self.methods.name(label, name))
            }));
        }
        terms
    }

    /// The module of each of the methods' parameters, in their order: the first segment of its name,
    /// after the label where there are several methods.
    fn method_modules(&self) -> Vec<String> {
        let segments = 2;
        let several = self.methods.len() > 1;
        let module = |name: String| {
            let module: Vec<&str> = name.split('.').take(segments).collect();
            match several {
                true => module.join("."),
                false => module[1..].join("."),
            }
        };
        self.methods.param_names().into_iter().map(module).collect()
    }

    /// Modules of the methods of which no parameter learns in `phase`.
    fn frozen_modules(&self, phase: &Phase) -> BTreeSet<String> {
        let methods = 0..self.methods.len();
        let learns = methods.flat_map(|index| self.methods.learning(index, phase));
        let modules: Vec<(String, bool)> = self.method_modules().into_iter().zip(learns).collect();
        let learning = |name: &String| modules.iter().any(|(n, learns)| *learns && n == name);
        let frozen = modules.iter().map(|(name, _)| name);
        frozen.filter(|name| !learning(name)).cloned().collect()
    }

    /// The gradients of one term alone, with the part that each belongs to; every other term has
    /// weight 0.
    fn gradients_of(
        &mut self,
        term: &Term,
        batch: crate::data::Batch,
        at: StepPosition,
    ) -> Result<Vec<(String, Vec<f32>)>, EngineError> {
        let (task_weight, alone) = match term {
            Term::Task => (1.0, None),
            Term::OfMethod { label, name } => (0.0, Some((label.as_str(), name.as_str()))),
        };
        self.task_weight = task_weight;
        self.methods.count_only(alone);
        let probe = self.probe(batch, at);
        self.task_weight = 1.0;
        self.methods.count_all();
        let probe = probe?;
        let specs = self.model.specs();
        let student = specs
            .iter()
            .zip(probe.student_gradients)
            .filter_map(|(spec, gradient)| Some((spec.part.name().to_owned(), gradient?)));
        let modules = self.method_modules().into_iter();
        Ok(student.chain(modules.zip(probe.method_gradients)).collect())
    }
}
