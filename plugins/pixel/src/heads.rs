//! Prediction distillation of dense detectors: anchor by anchor, classes and boxes.

use kd_plugin::burn::tensor::activation::sigmoid;
use kd_plugin::burn::tensor::{Int, Tensor};
use kd_plugin::{DenseHead, Inputs, MethodError, Role, Surprise, Taps};

use crate::padding::Frame;

/// Target that says which anchors are foreground.
pub const LABELS: &str = "assign.labels";
const DELTAS: &str = "head.box_deltas";
/// Beginning of taps that only detectors have whose deltas are distances.
const CENTERNESS: &str = "head.centerness.";
/// Largest logarithm of a size that is decoded, `ln(1000 / 16)`, as the detectors do.
const MAX_LOG_SIZE_RATIO: f64 = 4.135_166_556_742_356;
/// Least area that is divided by, in those of the anchor.
const LEAST_AREA: f64 = 1e-7;

/// How box deltas are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coder {
    /// RetinaNet's: shift of the centre, logarithm of the size.
    CenterSize,
    /// FCOS's: distances to left, top, right, bottom.
    EdgeDistances,
}

/// The heads of student and teacher, which have the same anchors.
#[derive(Clone, Debug)]
pub struct Heads {
    dense: DenseHead,
    coder: Coder,
}

/// What [`Heads::losses`] gives, `[1]` each.
#[derive(Clone, Debug)]
pub struct Predicted {
    /// `loss_kd`.
    pub classes: Tensor<1>,
    /// `loss_kd_bbox`.
    pub boxes: Tensor<1>,
    /// Mean GIoU of both networks' boxes, weighted as `boxes` is. Without gradient.
    pub giou: Tensor<1>,
    /// The sum of those weights.
    pub scores: Tensor<1>,
    /// Foreground anchors of the batch.
    pub foreground: Tensor<1>,
}

impl Heads {
    /// Of the taps `head.*`.
    ///
    /// # Errors
    /// If student and teacher differ in levels, anchors, classes, or in how they code boxes.
    pub fn of(taps: &Taps) -> Result<Self, MethodError> {
        let dense = DenseHead::of(taps)?;
        let coder = |role: Role| {
            let distances =
                (taps.iter()).any(|tap| tap.role == role && tap.name.starts_with(CENTERNESS));
            match distances {
                true => Coder::EdgeDistances,
                false => Coder::CenterSize,
            }
        };
        let coders = [coder(Role::Student), coder(Role::Teacher)];
        if coders[0] != coders[1] {
            return Err(MethodError::unsupported(format!(
                "the student's box deltas are {:?}, the teacher's {:?}, so the heads do not have the same \
                 anchors: take a teacher with the student's detector",
                coders[0], coders[1]
            )));
        }
        for (student, teacher) in taps.pairs_at(DELTAS, dense.levels())? {
            let expected = dense.anchors() * 4;
            for tap in [student, teacher] {
                if tap.channels()? != expected {
                    return Err(MethodError::shape(format!(
                        "{} tap `{}` has {} channels; {} anchors a cell need {expected}",
                        tap.role.name(),
                        tap.name,
                        tap.channels()?,
                        dense.anchors()
                    )));
                }
            }
        }
        Ok(Heads {
            dense,
            coder: coders[0],
        })
    }

    /// Whether the tap of this name is read.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let is_head = |(place, level): (&str, &str)| {
            let is_level = self.dense.levels().iter().any(|known| known == level);
            (place == "head.cls_logits" || place == DELTAS) && is_level
        };
        name.rsplit_once('.').is_some_and(is_head)
    }

    /// ```text
    /// classes = Σ_{a,k} |σ(z_t) − σ(z_s)| · BCE(σ(z_s), σ(z_t)) / max(1, N_fg)
    /// boxes   = Σ_a m_a (1 − GIoU(b_s, b_t)) / max(1, Σ_a m_a)      m_a = max_k σ(z_t)
    /// ```
    ///
    /// over all anchors `a` of cells whose centre is in the image. Boxes are those that both deltas give
    /// at one anchor: GIoU does not depend on where it is and how large. Gradients reach the student's
    /// logits (through both factors, as in quality focal loss) and deltas.
    ///
    /// # Errors
    /// If the maps of a level differ in size, or the target does not fit.
    pub fn losses(&self, inputs: &Inputs<'_>, frame: &Frame) -> Result<Predicted, MethodError> {
        let (student, teacher) = self.dense.logits(inputs)?;
        let [images, count, _] = student.dims();
        let labels: Tensor<2, Int> = inputs.target_int(LABELS)?;
        if labels.dims() != [images, count] {
            return Err(MethodError::shape(format!(
                "target `{LABELS}` is {:?}, the levels {:?} have {count} locations in each of {images} \
                 images",
                labels.dims(),
                self.dense.levels()
            )));
        }
        let counts = self.inside(inputs, frame)?;
        let foreground = labels.greater_equal_elem(0).float().sum();

        let score = sigmoid(teacher);
        let surprise = Surprise::of(student.clone());
        let cross_entropy =
            score.clone() * surprise.if_present + (score.clone().neg() + 1.0) * surprise.if_absent;
        let gap = (score.clone() - sigmoid(student)).abs();
        let of_anchor: Tensor<2> = (gap * cross_entropy).sum_dim(2).squeeze_dim(2);
        let classes = (of_anchor * counts.clone()).sum() / foreground.clone().clamp_min(1.0);

        let best: Tensor<2> = score.max_dim(2).squeeze_dim(2);
        let weight = best * counts;
        let scores = weight.clone().sum();
        let normaliser = scores.clone().clamp_min(1.0);
        let giou = self.giou(inputs)?;
        let boxes = (weight.clone() * (giou.clone().neg() + 1.0)).sum() / normaliser.clone();
        Ok(Predicted {
            classes,
            boxes,
            giou: (weight * giou.detach()).sum() / scores.clone().clamp_min(LEAST_AREA),
            scores,
            foreground,
        })
    }

    /// `[N, L]`: 1 for anchors of cells whose centre is in the image.
    fn inside(&self, inputs: &Inputs<'_>, frame: &Frame) -> Result<Tensor<2>, MethodError> {
        let mut levels = Vec::with_capacity(self.dense.levels().len());
        for level in self.dense.levels() {
            let [n, _, h, w] = inputs.student(&format!("head.cls_logits.{level}"))?.dims();
            let mask: Tensor<2> = frame.mask([h, w]).reshape([n, h * w]);
            levels.push(mask);
        }
        Ok(self.dense.of_anchors(Tensor::cat(levels, 1)))
    }

    /// GIoU (arXiv 1902.09630) of both networks' boxes, `[N, L]`.
    fn giou(&self, inputs: &Inputs<'_>) -> Result<Tensor<2>, MethodError> {
        let (mut of_student, mut of_teacher) = (Vec::new(), Vec::new());
        for level in self.dense.levels() {
            let name = format!("{DELTAS}.{level}");
            of_student.push(self.rows(inputs.student(&name)?));
            of_teacher.push(self.rows(inputs.teacher(&name)?));
        }
        let student = self.coder.corners(Tensor::cat(of_student, 1));
        let teacher = self.coder.corners(Tensor::cat(of_teacher, 1));
        Ok(giou(student, teacher))
    }

    /// `[N, A·4, H, W]` to `[N, H·W·A, 4]`.
    fn rows(&self, map: Tensor<4>) -> Tensor<3> {
        let [n, _, h, w] = map.dims();
        map.permute([0, 2, 3, 1])
            .reshape([n, h * w * self.dense.anchors(), 4])
    }
}

/// Near and far corners, `[N, L, 2]` each.
type Corners = (Tensor<3>, Tensor<3>);

impl Coder {
    /// Of `[N, L, 4]` deltas, at an anchor of centre 0 and size 1.
    fn corners(self, deltas: Tensor<3>) -> Corners {
        let (first, second) = (deltas.clone().narrow(2, 0, 2), deltas.narrow(2, 2, 2));
        match self {
            Coder::CenterSize => {
                let half = second.clamp_max(MAX_LOG_SIZE_RATIO).exp() * 0.5;
                (first.clone() - half.clone(), first + half)
            }
            Coder::EdgeDistances => (first.neg(), second),
        }
    }
}

fn giou(a: Corners, b: Corners) -> Tensor<2> {
    let area = |near: Tensor<3>, far: Tensor<3>| -> Tensor<2> {
        let sides = (far - near).clamp_min(0.0);
        let area = sides.clone().narrow(2, 0, 1) * sides.narrow(2, 1, 1);
        area.squeeze_dim(2)
    };
    let common = area(
        a.0.clone().max_pair(b.0.clone()),
        a.1.clone().min_pair(b.1.clone()),
    );
    let hull = area(
        a.0.clone().min_pair(b.0.clone()),
        a.1.clone().max_pair(b.1.clone()),
    );
    let all = area(a.0, a.1) + area(b.0, b.1) - common.clone();
    let empty = (hull.clone() - all.clone()) / hull.clamp_min(LEAST_AREA);
    common / all.clamp_min(LEAST_AREA) - empty
}
