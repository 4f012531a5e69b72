//! The vectors of student and teacher at every location, and how they agree.

use kd_plugin::burn::tensor::Tensor;
use kd_plugin::{Connector, DenseHead, Inputs, Levels, MethodError};

use crate::options::{Config, Vectors};

/// Squared length below which a vector has no direction. The square root of the sum of both would have
/// derivatives of 1e6 there, for a direction that is rounding.
const NO_LENGTH: f64 = 1e-12;

/// Sums over the channels of a location's vectors, `[N, L]` each.
#[derive(Clone, Debug)]
pub struct Agreement {
    product: Tensor<2>,
    student_square: Tensor<2>,
    teacher_square: Tensor<2>,
    mean_square_difference: Tensor<2>,
}

impl Agreement {
    /// Of the vectors that the option names; of logits these ones, `[N, L, K]`.
    ///
    /// # Errors
    /// If maps of one level have different sizes.
    pub fn new(
        config: &Config,
        connector: &Levels<Connector>,
        inputs: &Inputs<'_>,
        head: &DenseHead,
        (student, teacher): (&Tensor<3>, &Tensor<3>),
    ) -> Result<Self, MethodError> {
        let Some(place) = config.vectors.place() else {
            debug_assert_eq!(config.vectors, Vectors::Logits);
            let vectors = |logits: &Tensor<3>| {
                let logits = logits.clone().swap_dims(1, 2);
                match config.center {
                    true => logits.clone() - logits.mean_dim(1),
                    false => logits,
                }
            };
            return Ok(Self::of(vectors(student), vectors(teacher)));
        };
        let mut levels = Vec::with_capacity(head.levels().len());
        for level in head.levels() {
            let name = format!("{place}.{level}");
            let (student, teacher) = (inputs.student(&name)?, inputs.teacher(&name)?);
            let logits = inputs.student(&format!("head.cls_logits.{level}"))?.dims();
            let student = match connector.get(&name) {
                Some(connector) => connector.forward(student),
                None => student,
            };
            let [n, c, h, w] = student.dims();
            if teacher.dims() != [n, c, h, w] || [h, w] != [logits[2], logits[3]] {
                return Err(MethodError::shape(format!(
                    "`{name}`: student {:?} (after the connector), teacher {:?}, student's class \
                     logits {logits:?}; all must have one size, a vector a cell",
                    student.dims(),
                    teacher.dims()
                )));
            }
            let columns = |map: Tensor<4>| map.reshape([n, c, h * w]);
            levels.push(Self::of(columns(student), columns(teacher)));
        }
        Ok(Self::of_anchors(levels, head))
    }

    /// Of vectors `[N, C, X]`.
    fn of(student: Tensor<3>, teacher: Tensor<3>) -> Self {
        let sum = |x: Tensor<3>| -> Tensor<2> { x.sum_dim(1).squeeze_dim(1) };
        let channels = student.dims()[1] as f64;
        let difference = student.clone() - teacher.clone();
        Agreement {
            product: sum(student.clone() * teacher.clone()),
            student_square: sum(student.square()),
            teacher_square: sum(teacher.square()),
            mean_square_difference: sum(difference.square()) / channels,
        }
    }

    /// Levels side by side; a cell's vector serves all of its anchors.
    fn of_anchors(levels: Vec<Agreement>, head: &DenseHead) -> Self {
        let joined = |part: fn(&Agreement) -> &Tensor<2>| {
            let parts = levels.iter().map(|level| part(level).clone()).collect();
            head.of_anchors(Tensor::cat(parts, 1))
        };
        Agreement {
            product: joined(|level| &level.product),
            student_square: joined(|level| &level.student_square),
            teacher_square: joined(|level| &level.teacher_square),
            mean_square_difference: joined(|level| &level.mean_square_difference),
        }
    }

    /// `[N, L]`; 0 and without gradient where either vector has no direction.
    #[must_use]
    pub fn cosine(&self) -> Tensor<2> {
        let has_direction =
            |square: &Tensor<2>| square.clone().detach().greater_elem(NO_LENGTH).float();
        let both = has_direction(&self.student_square) * has_direction(&self.teacher_square);
        // One root of the product: equal vectors have a cosine of exactly 1.
        let lengths =
            (self.student_square.clone() + NO_LENGTH) * (self.teacher_square.clone() + NO_LENGTH);
        self.product.clone() / lengths.sqrt() * both
    }

    /// Mean over channels of the squared difference, `[N, L]`.
    #[must_use]
    pub fn mean_square_difference(&self) -> Tensor<2> {
        self.mean_square_difference.clone()
    }

    /// Lengths of the student's vectors, `[N, L]`, without gradient.
    #[must_use]
    pub fn student_length(&self) -> Tensor<2> {
        self.student_square.clone().detach().sqrt()
    }
}
