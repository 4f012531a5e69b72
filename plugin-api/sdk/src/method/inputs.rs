//! What `forward` gets.

use std::cell::Cell;

use burn::tensor::{Device, Int, Tensor};

#[cfg(feature = "cpu")]
use super::direct::LentTargets;
use super::noise::Noise;
use super::packed::Packed;
use super::trace::TracedTargets;
use crate::tap::{Role, TapInfo, Taps};
use crate::{CallInfo, MethodError};

/// Tensors and facts of one forward.
///
/// Student taps are leaves of the graph where a gradient was asked for; everything else is a
/// constant. Cloning a tensor is a reference count.
#[derive(Debug)]
pub struct Inputs<'a> {
    pub(super) taps: &'a Taps,
    pub(super) tensors: &'a [Tensor<4>],
    pub(super) names: &'static [&'static str],
    /// Indices of targets that the plan does not read.
    pub(super) unread: &'a [usize],
    pub(super) targets: Targets<'a>,
    /// Losses that count in this call.
    pub(super) wanted: &'a [String],
    pub(super) call: CallInfo,
    /// Set once the method looked at what changes from call to call: a program then serves one call.
    pub(super) depends_on_call: Cell<bool>,
    /// Without autodiff.
    pub(super) device: &'a Device,
}

/// Where targets come from.
#[derive(Debug)]
pub(super) enum Targets<'a> {
    /// The host's memory.
    #[cfg(feature = "cpu")]
    Lent(LentTargets<'a>),
    /// Inputs of a program.
    Traced(TracedTargets<'a>),
}

/// A student tap and the teacher tap of the same name, `[N, C, H, W]` each.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Name of both.
    pub name: String,
    /// The student's values.
    pub student: Tensor<4>,
    /// The teacher's values; constant.
    pub teacher: Tensor<4>,
}

impl Inputs<'_> {
    /// The student tap `name`, `[N, C, H, W]`.
    ///
    /// # Errors
    /// If it is not bound; the message lists what is.
    pub fn student(&self, name: &str) -> Result<Tensor<4>, MethodError> {
        self.tap(&Role::Student, name)
    }

    /// The teacher tap `name`, `[N, C, H, W]`. Constant.
    ///
    /// # Errors
    /// If it is not bound; the message lists what is.
    pub fn teacher(&self, name: &str) -> Result<Tensor<4>, MethodError> {
        self.tap(&Role::Teacher, name)
    }

    /// The tap `name` of any role, `[N, C, H, W]`.
    ///
    /// # Errors
    /// If it is not bound; the message lists what is.
    pub fn tap(&self, role: &Role, name: &str) -> Result<Tensor<4>, MethodError> {
        Ok(self.tensors[self.taps.get(role, name)?.index].clone())
    }

    /// All student taps whose name begins with `prefix`, in the host's order: `[N, C, H, W]` each.
    #[must_use]
    pub fn students(&self, prefix: &str) -> Vec<Tensor<4>> {
        self.taps
            .iter()
            .filter(|tap| tap.role == Role::Student && tap.name.starts_with(prefix))
            .map(|tap| self.tensors[tap.index].clone())
            .collect()
    }

    /// Student values as losses may see them: detached in phases that keep the losses' gradient from
    /// the student. A method with maps must pass what its losses read of the student through this;
    /// for others the host does it.
    #[must_use]
    pub fn in_loss(&self, student: Packed) -> Packed {
        if self.call.detach_student {
            student.detach()
        } else {
            student
        }
    }

    /// Student and teacher taps of the same name, in the order of the student's.
    ///
    /// # Errors
    /// If a student tap has no partner, or there is none at all.
    pub fn pairs(&self) -> Result<Vec<Pair>, MethodError> {
        let pair = |(student, teacher): (&TapInfo, &TapInfo)| Pair {
            name: student.name.clone(),
            student: self.tensors[student.index].clone(),
            teacher: self.tensors[teacher.index].clone(),
        };
        Ok(self.taps.pairs()?.into_iter().map(pair).collect())
    }

    /// Facts of the bound taps: strides, channels.
    #[must_use]
    pub fn taps(&self) -> &Taps {
        self.taps
    }

    /// The target `name` as floats, such as `gt_boxes_xyxy` `[T, 4]` in pixels of the student's
    /// input.
    ///
    /// # Errors
    /// If it is not among the method's targets or of another rank or type.
    pub fn target<const D: usize>(&self, name: &str) -> Result<Tensor<D>, MethodError> {
        let slot = self.target_slot(name)?;
        match &self.targets {
            #[cfg(feature = "cpu")]
            Targets::Lent(lent) => lent.floats(slot, self.device),
            Targets::Traced(traced) => traced.floats(slot),
        }
        .map_err(|error| error.at(format!("target `{name}`")))
    }

    /// The target `name` as integers, such as `gt_labels` `[T]` or `gt_batch` `[T]`.
    ///
    /// # Errors
    /// If it is not among the method's targets or of another rank or type.
    pub fn target_int<const D: usize>(&self, name: &str) -> Result<Tensor<D, Int>, MethodError> {
        let slot = self.target_slot(name)?;
        match &self.targets {
            #[cfg(feature = "cpu")]
            Targets::Lent(lent) => lent.integers(slot, self.device),
            Targets::Traced(traced) => traced.integers(slot),
        }
        .map_err(|error| error.at(format!("target `{name}`")))
    }

    /// Whether the loss `name` counts in this call: declared by the plan, listed by the phase where the
    /// schedule has phases with `losses`, and of a weight that is not 0. Known when a method is traced:
    /// a program is one for a set of wanted losses.
    ///
    /// `forward` returns every declared loss; for one that is not wanted, zeros of shape `[1]` do, and
    /// what only that loss reads need not be computed. In a phase of the method alone student taps are
    /// NaN: nothing may read them there. Where the plugin computes by itself the weight is not known, and
    /// the phase alone decides.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.wanted.iter().any(|wanted| wanted == name)
    }

    fn target_slot(&self, name: &str) -> Result<usize, MethodError> {
        let slot = self.names.iter().position(|known| *known == name);
        match slot {
            Some(slot) if self.unread.contains(&slot) => Err(MethodError::internal(format!(
                "target `{name}` is read, but not among the plan's `reads_targets`"
            ))),
            Some(slot) => Ok(slot),
            None => Err(MethodError::internal(format!(
                "target `{name}` is not in TARGETS {:?}",
                self.names
            ))),
        }
    }

    /// Position in the schedule. A method that looks at it is traced anew for every call.
    #[must_use]
    pub fn call(&self) -> &CallInfo {
        self.depends_on_call.set(true);
        &self.call
    }

    /// Random numbers of this call. Draws under different names are independent; the same name
    /// gives the same numbers again. A method that draws is traced anew for every call.
    #[must_use]
    pub fn noise(&self, name: &str) -> Noise {
        self.depends_on_call.set(true);
        Noise::new(self.call.seed, name, self.device.clone())
    }

    /// Device for constants.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device.clone()
    }
}
