//! What a phase asks of a method: which losses count, which parameters learn, and whether there is a
//! student to read.

use super::Distiller;
use super::distiller::MAPS;
use super::schedule::{PretrainPhase, Schedule, Selection};
use super::taps::STUDENT;

/// What is asked for now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Demand {
    /// For each loss, whether it counts. One that does not is not looked at: it may be anything.
    losses: Vec<bool>,
    /// For each parameter, whether it learns. Looked at where there is no student.
    params: Vec<bool>,
    /// Without, student taps hold NaN, take no gradient, and weights are the method's own.
    student: bool,
}

impl Demand {
    /// Of a run without phases.
    pub(super) fn all(losses: usize, params: usize) -> Self {
        Demand {
            losses: vec![true; losses],
            params: vec![true; params],
            student: true,
        }
    }

    /// Whether a loss counts.
    pub(super) fn counts(&self, loss: usize) -> bool {
        self.losses[loss]
    }

    /// Whether the gradient at a student tap is wanted.
    pub(super) fn wants_taps(&self) -> bool {
        self.student
    }

    /// Whether the gradient at a parameter is wanted. Beside the student all are: a look at gradients
    /// shows what would reach a part that is frozen.
    pub(super) fn wants_param(&self, param: usize) -> bool {
        self.student || self.params[param]
    }
}

impl Distiller {
    /// Asks for what counts in a phase of the run, after [`Distiller::weigh_at`].
    pub(super) fn ask_for(&mut self, selection: &Selection) {
        self.demand = self.selected(selection, true);
        let weights = self.loss_weights.iter_mut();
        for (weight, counts) in weights.zip(&self.demand.losses) {
            if !counts {
                *weight = 0.0;
            }
        }
        if !selection.counts(MAPS) {
            self.maps_weight = 0.0;
        }
    }

    /// Asks for what counts in a phase of the method alone. Losses weigh what the method's plan says:
    /// the configured weights balance them against the student's task losses, of which there are none.
    pub(super) fn ask_alone(&mut self, selection: &Selection) {
        self.demand = self.selected(selection, false);
        let losses = self.plan.losses.iter().zip(&self.demand.losses);
        let weight = losses.map(|(loss, counts)| match counts {
            true => loss.default_weight,
            false => 0.0,
        });
        self.loss_weights = weight.collect();
        self.maps_weight = 0.0;
    }

    fn selected(&self, selection: &Selection, student: bool) -> Demand {
        let losses = self.plan.losses.iter();
        Demand {
            losses: losses.map(|loss| selection.counts(&loss.name)).collect(),
            params: self.learning(selection),
            student,
        }
    }

    /// For each parameter, whether it learns where `selection` holds.
    pub(super) fn learning(&self, selection: &Selection) -> Vec<bool> {
        let names = self.param_names();
        names.map(|name| selection.learns(name)).collect()
    }

    /// Names and values of the losses that count now, and the weight of each, of all `values`.
    pub fn counted<'a>(
        &'a self,
        values: &'a [(String, f32)],
    ) -> impl Iterator<Item = (&'a str, f32, f64)> {
        let weighted = values.iter().zip(&self.loss_weights);
        let counted = weighted.zip(&self.demand.losses);
        counted
            .filter(|(_, counts)| **counts)
            .map(|(((name, value), weight), _)| (name.as_str(), *value, *weight))
    }

    /// Checks a schedule of this method against its plan.
    ///
    /// # Errors
    /// A sentence that names the phase, what is wrong and what exists.
    pub(super) fn check_schedule(&self, schedule: &Schedule) -> Result<(), String> {
        let maps = self.has_maps().then_some(MAPS);
        let losses = self.plan.losses.iter().map(|loss| loss.name.as_str());
        let losses: Vec<&str> = losses.collect();
        let terms: Vec<&str> = losses.iter().copied().chain(maps).collect();
        let params: Vec<&str> = self.param_names().collect();
        let at = |name: &str, reason: String| format!("phase `{name}`: {reason}");
        for phase in schedule.phases() {
            let checked = phase.selection.check(&terms, &params);
            checked.map_err(|reason| at(&phase.name, reason))?;
        }
        for phase in schedule.pretrain() {
            let checked = phase.selection.check(&losses, &params);
            checked
                .and_then(|()| self.check_alone(phase))
                .map_err(|reason| at(&phase.name, reason))?;
        }
        Ok(())
    }

    /// A clause on what the method cannot do without a student.
    fn check_alone(&self, phase: &PretrainPhase) -> Result<(), String> {
        if self.has_maps() {
            return Err(
                "the method makes maps, which the student's head judges, and the student does not run \
                 in a phase with `pretrain`"
                    .to_owned(),
            );
        }
        if let Some(target) = self.student_prediction() {
            return Err(format!(
                "the method reads target `{target}`, and the student predicts nothing in a phase with \
                 `pretrain`; choose options that do without this target"
            ));
        }
        let losses = self.plan.losses.iter();
        let mut counted = losses.filter(|loss| phase.selection.counts(&loss.name));
        if counted.all(|loss| loss.default_weight == 0.0) {
            return Err(
                "nothing would be learned: each loss that counts has weight 0 in the method's plan"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// A target that the plan reads and that the student's head must give.
    fn student_prediction(&self) -> Option<&str> {
        let all = self.manifest.targets.iter().zip(&self.plan.target_use);
        let mut read = all
            .filter(|(_, read)| **read)
            .map(|(name, _)| name.as_str());
        read.find(|name| super::targets::role_of(name) == Some(STUDENT))
    }

    /// The buffers, to be put back if a step fails.
    pub(crate) fn buffer_values(&self) -> Vec<Vec<f32>> {
        self.buffers.iter().map(|b| b.data.clone()).collect()
    }

    /// Puts back what [`Self::buffer_values`] gave.
    pub(crate) fn restore_buffers(&mut self, values: Vec<Vec<f32>>) {
        for (buffer, values) in self.buffers.iter_mut().zip(values) {
            buffer.data = values;
        }
    }

    /// Name of a buffer that holds NaN or infinity, if there is one.
    pub(crate) fn broken_buffer(&self) -> Option<&str> {
        let mut all = self.plan.buffers.iter().zip(&self.buffers);
        let broken = all.find(|(_, buffer)| buffer.data.iter().any(|v| !v.is_finite()));
        broken.map(|(spec, _)| spec.name.as_str())
    }
}
