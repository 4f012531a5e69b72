//! The methods of a run: each bound to the same student, asked one after the other.
//!
//! They stand in the order of their labels, whatever the order in which they were named. None knows
//! of another; what they share is the student, its phases, and names that stay apart: parameters
//! are called `LABEL.name` always, terms and metrics `name` where there is one method and
//! `LABEL_name` where there are several.

use std::collections::BTreeMap;

use crate::config::StageConfig;
use crate::plugin::CallInfo;
use crate::state::StateDict;

use super::schedule::declared::Stage;
use super::schedule::{Phase, PretrainPhase, Schedule};
use super::weights::Only;
use super::{DistillError, Distiller};

/// A method under its label.
pub struct Bound {
    /// As in names of tensors, terms and metrics.
    pub label: String,
    /// The method.
    pub distiller: Distiller,
}

/// The methods of a run; none in plain training.
#[derive(Default)]
pub struct Methods {
    bound: Vec<Bound>,
    /// The one whose schedule the run follows.
    owner: Option<usize>,
}

impl Methods {
    /// Puts methods of different labels together.
    ///
    /// # Errors
    /// If two would write one term or metric.
    pub fn new(mut bound: Vec<Bound>) -> Result<Self, DistillError> {
        bound.sort_by(|a, b| a.label.cmp(&b.label));
        let methods = Methods { bound, owner: None };
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        for Bound { label, distiller } in &methods.bound {
            for name in distiller.reported() {
                let name = methods.name(label, name);
                if let Some(other) = taken.insert(name.clone(), label)
                    && other != label
                {
                    return Err(DistillError::SameName {
                        name,
                        first: other.to_owned(),
                        second: label.clone(),
                    });
                }
            }
        }
        Ok(methods)
    }

    /// Whether this is plain training.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bound.is_empty()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bound.len()
    }

    /// Label of the `index`-th method.
    #[must_use]
    pub fn label(&self, index: usize) -> &str {
        &self.bound[index].label
    }

    /// The `index`-th method with its label.
    #[must_use]
    pub fn bound(&self, index: usize) -> &Bound {
        &self.bound[index]
    }

    /// The `index`-th method.
    #[must_use]
    pub fn distiller(&self, index: usize) -> &Distiller {
        &self.bound[index].distiller
    }

    /// The same, to be changed.
    pub fn distiller_mut(&mut self, index: usize) -> &mut Distiller {
        &mut self.bound[index].distiller
    }

    /// The methods, by label.
    pub fn iter(&self) -> std::slice::Iter<'_, Bound> {
        self.bound.iter()
    }

    /// The methods, by label.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Bound> {
        self.bound.iter_mut()
    }

    /// The method of that label.
    pub fn get_mut(&mut self, label: &str) -> Option<&mut Distiller> {
        let bound = self.bound.iter_mut().find(|bound| bound.label == label);
        bound.map(|bound| &mut bound.distiller)
    }

    /// Labels of the methods that generate maps.
    #[must_use]
    pub fn with_maps(&self) -> Vec<String> {
        let with = self.bound.iter().filter(|b| b.distiller.has_maps());
        with.map(|bound| bound.label.clone()).collect()
    }

    /// What a term or metric of the method `label` is called.
    #[must_use]
    pub fn name(&self, label: &str, name: &str) -> String {
        match self.bound.len() {
            0 | 1 => name.to_owned(),
            _ => format!("{label}_{name}"),
        }
    }

    /// Taps of the student that some method reads.
    #[must_use]
    pub fn student_taps(&self) -> Vec<String> {
        self.union(Distiller::student_taps)
    }

    /// Taps of the teacher called `name` that some method reads.
    #[must_use]
    pub fn teacher_taps(&self, name: &str) -> Vec<String> {
        self.union(|distiller| distiller.teacher_taps(name))
    }

    /// Whether some method reads what the head of the model called `name` gives: `student`, or a
    /// configured teacher.
    #[must_use]
    pub fn read_predictions(&self, name: &str) -> bool {
        let mut all = self.bound.iter();
        all.any(|bound| bound.distiller.reads_predictions(name))
    }

    fn union(&self, of: impl Fn(&Distiller) -> Vec<String>) -> Vec<String> {
        let mut union: Vec<String> = Vec::new();
        for name in self.bound.iter().flat_map(|bound| of(&bound.distiller)) {
            if !union.contains(&name) {
                union.push(name);
            }
        }
        union
    }

    /// Names of all learned parameters, method by method: `LABEL.name`.
    #[must_use]
    pub fn param_names(&self) -> Vec<String> {
        let names = |bound: &Bound| bound.param_names();
        self.bound.iter().flat_map(names).collect()
    }

    /// Lays phases and schedules of weights out over a run, which is `stage` if that has a name.
    ///
    /// # Errors
    /// If a schedule is refused, or two methods declare phases.
    pub fn place(
        &mut self,
        stage: &StageConfig,
        total: u64,
        per_epoch: u64,
    ) -> Result<Schedule, DistillError> {
        let mut found: Option<(usize, Schedule)> = None;
        for (index, bound) in self.bound.iter_mut().enumerate() {
            bound.distiller.place_weights(total, per_epoch)?;
            let Some(schedule) = bound.distiller.schedule(stage, total, per_epoch)? else {
                continue;
            };
            if let Some((first, _)) = found {
                return Err(DistillError::TwoSchedules {
                    first: self.bound[first].label.clone(),
                    second: self.bound[index].label.clone(),
                });
            }
            found = Some((index, schedule));
        }
        self.owner = found.as_ref().map(|(index, _)| *index);
        match found {
            Some((_, schedule)) => Ok(schedule),
            None if stage.name.is_empty() => Ok(Schedule::single(total)),
            // A stage in which no method takes part has phases all the same.
            None => Schedule::of_stage(stage, total, per_epoch)
                .map_err(|reason| DistillError::Stage { reason }),
        }
    }

    /// The stages that a method declares, with its index; none where none declares phases.
    ///
    /// # Errors
    /// If a schedule is refused, or two methods have one.
    pub fn declared(&self) -> Result<Option<(usize, Vec<Stage>)>, DistillError> {
        let mut found: Option<(usize, Vec<Stage>)> = None;
        for (index, bound) in self.bound.iter().enumerate() {
            let Some(stages) = bound.distiller.declared()? else {
                continue;
            };
            if let Some((first, _)) = found {
                return Err(DistillError::TwoSchedules {
                    first: self.bound[first].label.clone(),
                    second: bound.label.clone(),
                });
            }
            found = Some((index, stages));
        }
        Ok(found)
    }

    /// Gives every term its weight at an optimizer step, which lies in `phase`.
    pub fn weigh_at(&mut self, step: u64, phase: &Phase) {
        for (index, bound) in self.bound.iter_mut().enumerate() {
            bound.distiller.weigh_at(step);
            if self.owner == Some(index) {
                bound.distiller.ask_for(&phase.selection);
            }
        }
    }

    /// Index of the method whose schedule the run follows.
    #[must_use]
    pub fn owner(&self) -> Option<usize> {
        self.owner
    }

    /// Gives every term of the schedule's owner its weight in a phase of that method alone.
    ///
    /// # Panics
    /// If no method declares phases.
    pub fn weigh_alone(&mut self, phase: &PretrainPhase) {
        let owner = self.owner.expect("a phase has a method that declares it");
        self.bound[owner].distiller.ask_alone(&phase.selection);
    }

    /// Lets the term `term` of the method `label` count alone; with none, no term counts.
    pub fn count_only(&mut self, alone: Option<(&str, &str)>) {
        for bound in &mut self.bound {
            bound.distiller.count(match alone {
                Some((label, term)) if label == bound.label => Only::Term(term.to_owned()),
                _ => Only::Nothing,
            });
        }
    }

    /// Lets every term count again.
    pub fn count_all(&mut self) {
        for bound in &mut self.bound {
            bound.distiller.count(Only::All);
        }
    }

    /// The `index`-th method's part of `phase`: what a phase says of the method that declares it
    /// (that it does not learn, how fast, that its gradient is kept from the student) is not said of
    /// the others.
    #[must_use]
    pub fn part_of(&self, index: usize, phase: &Phase) -> MethodPart {
        match self.owner == Some(index) {
            true => MethodPart {
                learns: phase.learn.method,
                lr_scale: phase.lr_scale.method,
                reaches_student: phase.distill_gradient,
            },
            false => MethodPart::default(),
        }
    }

    /// Which parameters of the `index`-th method learn in `phase`, in its order.
    #[must_use]
    pub fn learning(&self, index: usize, phase: &Phase) -> Vec<bool> {
        let distiller = &self.bound[index].distiller;
        if !self.part_of(index, phase).learns {
            return vec![false; distiller.param_names().count()];
        }
        match self.owner == Some(index) {
            true => distiller.learning(&phase.selection),
            false => vec![true; distiller.param_names().count()],
        }
    }

    /// What the `index`-th method is told where the run as a whole is told `call`.
    #[must_use]
    pub fn call(&self, index: usize, call: &CallInfo) -> CallInfo {
        CallInfo {
            detach_student: call.detach_student && self.owner == Some(index),
            ..call.clone()
        }
    }

    /// Parameters and buffers of all, for a checkpoint: `LABEL.param.name`, `LABEL.buffer.name`.
    #[must_use]
    pub fn to_state(&self) -> StateDict {
        let mut state = StateDict::default();
        for Bound { label, distiller } in &self.bound {
            for (name, array) in distiller.to_state().entries {
                state.entries.insert(format!("{label}.{name}"), array);
            }
        }
        state
    }

    /// Learned numbers of all methods.
    #[must_use]
    pub fn num_parameters(&self) -> usize {
        let shapes = self.bound.iter().flat_map(|b| b.distiller.param_shapes());
        shapes.map(|shape| shape.iter().product::<usize>()).sum()
    }

    /// Takes parameters and buffers of all from a checkpoint.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub fn load_state(&mut self, state: &StateDict) -> Result<(), DistillError> {
        for Bound { label, distiller } in &mut self.bound {
            let mut own = StateDict::default();
            let prefix = format!("{label}.");
            for (name, array) in &state.entries {
                if let Some(name) = name.strip_prefix(&prefix) {
                    own.entries.insert(name.to_owned(), array.clone());
                }
            }
            distiller.load_state(&own)?;
        }
        Ok(())
    }
}

impl Bound {
    /// Names of its learned parameters: `LABEL.name`.
    #[must_use]
    pub fn param_names(&self) -> Vec<String> {
        let names = self.distiller.param_names();
        names.map(|name| format!("{}.{name}", self.label)).collect()
    }
}

/// What a phase says of one method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MethodPart {
    /// Whether its parameters learn.
    pub learns: bool,
    /// Factor on their learning rate.
    pub lr_scale: f64,
    /// Whether its gradient reaches the student.
    pub reaches_student: bool,
}

impl Default for MethodPart {
    fn default() -> Self {
        MethodPart {
            learns: true,
            lr_scale: 1.0,
            reaches_student: true,
        }
    }
}
