//! What `forward` gets.

use burn::tensor::{Device, Int, Tensor};

use super::import;
use super::noise::Noise;
use super::packed::Packed;
use crate::tap::{Role, TapInfo, Taps};
use crate::{CallInfo, MethodError, TensorView};

/// Tensors and facts of one forward.
///
/// Student taps are leaves of the graph where a gradient was asked for; everything else is a
/// constant. Cloning a tensor is a reference count.
#[derive(Debug)]
pub struct Inputs<'a> {
    pub(crate) taps: &'a Taps,
    pub(crate) tensors: &'a [Tensor<4>],
    pub(crate) names: &'static [&'static str],
    pub(crate) targets: &'a [TensorView<'a>],
    pub(crate) call: CallInfo,
    pub(crate) device: &'a Device,
    pub(crate) loan: &'a import::Loan,
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
        import::borrow(
            self.target_view(name)?,
            &self.device.clone().inner(),
            self.loan,
        )
        .map_err(|error| error.at(format!("target `{name}`")))
    }

    /// The target `name` as integers, such as `gt_labels` `[T]` or `gt_batch` `[T]`.
    ///
    /// # Errors
    /// If it is not among the method's targets or of another rank or type.
    pub fn target_int<const D: usize>(&self, name: &str) -> Result<Tensor<D, Int>, MethodError> {
        import::integers(self.target_view(name)?, &self.device.clone().inner())
            .map_err(|error| error.at(format!("target `{name}`")))
    }

    fn target_view(&self, name: &str) -> Result<&TensorView<'_>, MethodError> {
        self.names
            .iter()
            .zip(self.targets)
            .find_map(|(known, view)| (*known == name).then_some(view))
            .ok_or_else(|| {
                MethodError::internal(format!(
                    "target `{name}` is not in TARGETS {:?}",
                    self.names
                ))
            })
    }

    /// Position in the schedule.
    #[must_use]
    pub fn call(&self) -> &CallInfo {
        &self.call
    }

    /// Random numbers of this call. Draws under different names are independent; the same name
    /// gives the same numbers again.
    #[must_use]
    pub fn noise(&self, name: &str) -> Noise {
        Noise::new(self.call.seed, name, self.device.clone().inner())
    }

    /// Device for constants.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device.clone().inner()
    }
}
