//! Weights of a method's terms in the total: configured, and changed over the run.
//!
//! The weight of a term at a step is the method's `weight`, times the term's own, times the factor of
//! its schedule. It depends on the step alone, so that a run taken up in the middle of a ramp goes on
//! as if it had not been left.

use std::f64::consts::PI;

use crate::config::{MethodEntry, WeightSchedule, WeightScheduleKind};
use crate::plugin::Plan;

use super::DistillError;
use super::distiller::MAPS;
use super::taps::names;

/// The terms of one method: its losses in the plan's order, then [`MAPS`] if it has maps.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    method: String,
    /// `distill` or `distill.methods.LABEL`, for messages.
    key: String,
    terms: Vec<Term>,
    only: Only,
}

#[derive(Clone, Debug)]
struct Term {
    name: String,
    weight: f64,
    schedule: Option<WeightSchedule>,
    ramp: Option<Ramp>,
}

/// Which terms count; the others have weight 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Only {
    /// As configured.
    #[default]
    All,
    /// The term of this name.
    Term(String),
    /// None.
    Nothing,
}

impl Terms {
    /// The configured weights of a planned method.
    ///
    /// # Errors
    /// If a weight or a schedule is configured for a term that does not exist.
    pub(super) fn new(
        method: &str,
        plan: &Plan,
        entry: MethodEntry<'_>,
    ) -> Result<Self, DistillError> {
        let config = entry.config;
        let maps = (!plan.maps.is_empty()).then_some((MAPS, 1.0));
        let losses = plan.losses.iter();
        let losses = losses.map(|loss| (loss.name.as_str(), loss.default_weight));
        let known: Vec<(&str, f64)> = losses.chain(maps).collect();
        let weights = config
            .loss_weights
            .keys()
            .map(|name| ("loss_weights", name));
        let schedules = config.loss_schedules.keys();
        let schedules = schedules.map(|name| ("loss_schedules", name));
        for (table, name) in weights.chain(schedules) {
            if !known.iter().any(|(known, _)| known == name) {
                return Err(DistillError::UnknownLoss {
                    key: entry.key(&format!("{table}.{name}")),
                    method: method.to_owned(),
                    known: names(known.iter().map(|(name, _)| *name)),
                });
            }
        }
        let term = |(name, default): (&str, f64)| Term {
            name: name.to_owned(),
            weight: config.weight * config.loss_weights.get(name).copied().unwrap_or(default),
            schedule: config.loss_schedules.get(name).cloned(),
            ramp: None,
        };
        Ok(Terms {
            method: method.to_owned(),
            key: entry.key("loss_schedules"),
            terms: known.into_iter().map(term).collect(),
            only: Only::All,
        })
    }

    /// Lays the schedules out over a run.
    ///
    /// # Errors
    /// If one ends before it starts.
    pub(super) fn place(&mut self, total: u64, per_epoch: u64) -> Result<(), DistillError> {
        for term in &mut self.terms {
            let Some(schedule) = &term.schedule else {
                continue;
            };
            let ramp = Ramp::place(schedule, total, per_epoch);
            term.ramp = Some(ramp.map_err(|reason| DistillError::LossSchedule {
                key: format!("{}.{}", self.key, term.name),
                method: self.method.clone(),
                reason,
            })?);
        }
        Ok(())
    }

    /// Lets some terms count alone; returns which did before.
    pub(super) fn count(&mut self, only: Only) -> Only {
        std::mem::replace(&mut self.only, only)
    }

    /// Weights at an optimizer step: of the first `losses` terms, and of the maps.
    pub(super) fn at(&self, step: u64, losses: usize) -> (Vec<f64>, f64) {
        let mut weights: Vec<f64> = self
            .terms
            .iter()
            .map(|term| self.weight(term, step))
            .collect();
        let maps = weights.split_off(losses);
        (weights, maps.first().copied().unwrap_or(1.0))
    }

    /// Terms with a schedule, and their weights at an optimizer step.
    pub(super) fn scheduled(&self, step: u64) -> impl Iterator<Item = (&str, f64)> {
        let scheduled = self.terms.iter().filter(|term| term.schedule.is_some());
        scheduled.map(move |term| (term.name.as_str(), self.weight(term, step)))
    }

    fn weight(&self, term: &Term, step: u64) -> f64 {
        let counts = match &self.only {
            Only::All => true,
            Only::Term(name) => *name == term.name,
            Only::Nothing => false,
        };
        match (counts, &term.ramp) {
            (false, _) => 0.0,
            (true, None) => term.weight,
            (true, Some(ramp)) => term.weight * ramp.factor(step),
        }
    }
}

/// A schedule with its place in a run.
#[derive(Clone, Debug, PartialEq)]
struct Ramp {
    kind: WeightScheduleKind,
    from: f64,
    to: f64,
    /// Optimizer steps.
    start: u64,
    end: u64,
}

impl Ramp {
    fn place(schedule: &WeightSchedule, total: u64, per_epoch: u64) -> Result<Self, String> {
        let start = schedule.start.map_or(Ok(0), |m| m.step(total, per_epoch));
        let start = start.map_err(|reason| format!("`start`: {reason}"))?;
        let end = schedule.end.map_or(Ok(total), |m| m.step(total, per_epoch));
        let end = end.map_err(|reason| format!("`end`: {reason}"))?;
        if end < start {
            return Err(format!(
                "it ends at step {end}, before it starts ({start}) in a run of {total} steps, \
                 {per_epoch} an epoch; move `start` or `end`"
            ));
        }
        Ok(Ramp {
            kind: schedule.kind,
            from: schedule.from(),
            to: schedule.to(),
            start,
            end,
        })
    }

    fn factor(&self, step: u64) -> f64 {
        let Ramp {
            kind,
            from,
            to,
            start,
            end,
        } = *self;
        if kind == WeightScheduleKind::Constant || step >= end {
            return to;
        }
        if kind == WeightScheduleKind::Until || step < start {
            return from;
        }
        let share = (step - start) as f64 / (end - start) as f64;
        let share = match kind {
            WeightScheduleKind::Cosine => 0.5 * (1.0 - (PI * share).cos()),
            _ => share,
        };
        from + (to - from) * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Moment;

    fn schedule(kind: WeightScheduleKind) -> WeightSchedule {
        WeightSchedule {
            kind,
            from: None,
            to: None,
            start: None,
            end: None,
        }
    }

    fn factors(schedule: &WeightSchedule, steps: &[u64]) -> Vec<f64> {
        let ramp = Ramp::place(schedule, 100, 20).unwrap();
        steps.iter().map(|step| ramp.factor(*step)).collect()
    }

    #[test]
    fn factors_go_from_one_value_to_the_other() {
        let linear = WeightSchedule {
            from: Some(0.5),
            to: Some(2.5),
            start: Some(Moment::Iters(10)),
            end: Some(Moment::Epochs(1)),
            ..schedule(WeightScheduleKind::Linear)
        };
        assert_eq!(
            factors(&linear, &[0, 9, 10, 15, 20, 99]),
            [0.5, 0.5, 0.5, 1.5, 2.5, 2.5]
        );
        let cosine = schedule(WeightScheduleKind::Cosine);
        let [first, quarter, half, last] = factors(&cosine, &[0, 25, 50, 99])[..] else {
            unreachable!()
        };
        assert_eq!(first, 0.0);
        assert!((quarter - 0.5 * (1.0 - 0.5f64.sqrt())).abs() < 1e-12);
        assert!((half - 0.5).abs() < 1e-12);
        assert!(last < 1.0 && last > 0.999);
        // Downwards too.
        let down = WeightSchedule {
            from: Some(1.0),
            to: Some(0.0),
            ..schedule(WeightScheduleKind::Linear)
        };
        assert_eq!(factors(&down, &[0, 50, 100]), [1.0, 0.5, 0.0]);
    }

    #[test]
    fn until_and_constant_do_not_ramp() {
        let until = WeightSchedule {
            end: Some(Moment::Fraction(0.5)),
            ..schedule(WeightScheduleKind::Until)
        };
        assert_eq!(factors(&until, &[0, 49, 50, 99]), [1.0, 1.0, 0.0, 0.0]);
        let constant = WeightSchedule {
            to: Some(3.0),
            ..schedule(WeightScheduleKind::Constant)
        };
        assert_eq!(factors(&constant, &[0, 99]), [3.0, 3.0]);
    }

    #[test]
    fn a_ramp_of_no_steps_is_a_step() {
        let step = WeightSchedule {
            start: Some(Moment::Iters(7)),
            end: Some(Moment::Iters(7)),
            ..schedule(WeightScheduleKind::Linear)
        };
        assert_eq!(factors(&step, &[6, 7]), [0.0, 1.0]);
    }

    #[test]
    fn an_end_before_the_start_is_seen_once_the_run_has_a_length() {
        let late = WeightSchedule {
            start: Some(Moment::Epochs(3)),
            end: Some(Moment::Fraction(0.5)),
            ..schedule(WeightScheduleKind::Linear)
        };
        let reason = Ramp::place(&late, 100, 20).unwrap_err();
        assert!(
            reason.contains("step 50") && reason.contains("(60)"),
            "{reason}"
        );
    }
}
