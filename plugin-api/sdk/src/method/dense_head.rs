//! What a dense head says at every location, in the order of the host's per-location targets.

use burn::tensor::Tensor;

use super::inputs::Inputs;
use crate::MethodError;
use crate::tap::{Role, TapInfo, Taps};

/// Beginning of the names of class logits: `head.cls_logits.p3`, ….
const LOGITS: &str = "head.cls_logits.";

/// Levels, anchors a cell and classes that the dense heads of student and teacher share.
///
/// A location is an anchor of a cell (`A` a cell; 1 where the head is anchor-free). An image has
/// `L = Σ_levels H·W·A` of them: levels finest first, cells row by row, the anchors of a cell
/// innermost. That is the order of the targets `assign.*`, `student.*` and `teacher.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenseHead {
    levels: Vec<String>,
    anchors: usize,
    classes: usize,
}

impl DenseHead {
    /// Of the taps `head.cls_logits.*`, each `[N, A·K, H, W]` with channel `a·K + k`.
    ///
    /// # Errors
    /// If student and teacher have other levels or channels, or the channels are no multiple of the
    /// number of classes.
    pub fn of(taps: &Taps) -> Result<Self, MethodError> {
        let classes = taps.num_classes()?;
        let of_role = |role: Role| -> Vec<&TapInfo> {
            let is_logits = |tap: &&TapInfo| tap.role == role && tap.name.starts_with(LOGITS);
            taps.iter().filter(is_logits).collect()
        };
        let (students, teachers) = (of_role(Role::Student), of_role(Role::Teacher));
        let names = |taps: &[&TapInfo]| -> Vec<String> {
            let level = |tap: &&TapInfo| tap.name[LOGITS.len()..].to_owned();
            taps.iter().map(level).collect()
        };
        let levels = names(&students);
        if levels.is_empty() || levels != names(&teachers) {
            return Err(MethodError::shape(format!(
                "`head.cls_logits.*`: student levels {levels:?}, teacher levels {:?}; locations are \
                 compared one by one, so both heads need the same levels: take a teacher with the \
                 student's detector and levels",
                names(&teachers)
            )));
        }
        let mut anchors = None;
        for (student, teacher) in students.iter().zip(&teachers) {
            let (of_student, of_teacher) = (student.channels()?, teacher.channels()?);
            let whole = of_student.is_multiple_of(classes);
            if of_student != of_teacher || !whole {
                return Err(MethodError::shape(format!(
                    "`{}`: student [N, {of_student}, H, W], teacher [N, {of_teacher}, H, W]; with \
                     {classes} classes both need {classes} channels an anchor and the same anchors: \
                     take a teacher with the student's detector, anchors and classes",
                    student.name
                )));
            }
            let here = of_student / classes;
            if *anchors.get_or_insert(here) != here {
                return Err(MethodError::shape(format!(
                    "`{}` has {here} anchors a cell, other levels have others; all levels of a head \
                     need the same",
                    student.name
                )));
            }
        }
        Ok(DenseHead {
            levels,
            anchors: anchors.unwrap_or(1),
            classes,
        })
    }

    /// `p3`, …, finest first.
    #[must_use]
    pub fn levels(&self) -> &[String] {
        &self.levels
    }

    /// Anchors a cell, `A`.
    #[must_use]
    pub fn anchors(&self) -> usize {
        self.anchors
    }

    /// Classes, `K`; background is not one of them.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Class logits of student and teacher, `[N, L, K]` each.
    ///
    /// # Errors
    /// If the maps of a level have different sizes.
    pub fn logits(&self, inputs: &Inputs<'_>) -> Result<(Tensor<3>, Tensor<3>), MethodError> {
        let mut of_student = Vec::with_capacity(self.levels.len());
        let mut of_teacher = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            let name = format!("{LOGITS}{level}");
            let (student, teacher) = (inputs.student(&name)?, inputs.teacher(&name)?);
            if student.dims() != teacher.dims() {
                return Err(MethodError::shape(format!(
                    "`{name}`: student {:?}, teacher {:?}; locations are compared one by one, so \
                     both heads need the same strides and input size",
                    student.dims(),
                    teacher.dims()
                )));
            }
            of_student.push(self.rows(student));
            of_teacher.push(self.rows(teacher));
        }
        Ok((Tensor::cat(of_student, 1), Tensor::cat(of_teacher, 1)))
    }

    /// `[N, A·K, H, W]` to `[N, H·W·A, K]`.
    fn rows(&self, map: Tensor<4>) -> Tensor<3> {
        let [n, _, h, w] = map.dims();
        map.permute([0, 2, 3, 1])
            .reshape([n, h * w * self.anchors, self.classes])
    }

    /// What a cell has, for each of its anchors: `[N, cells]` of all levels to `[N, L]`.
    #[must_use]
    pub fn of_anchors(&self, cells: Tensor<2>) -> Tensor<2> {
        let [n, count] = cells.dims();
        if self.anchors == 1 {
            return cells;
        }
        cells
            .unsqueeze_dim::<3>(2)
            .expand([n, count, self.anchors])
            .reshape([n, count * self.anchors])
    }
}
