//! Kullback-Leibler divergences between class predictions, from logits.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What class logits mean, and so how far the student's predictions are from the teacher's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// Sigmoid heads (RetinaNet, FCOS, YOLOX): every class is a yes or no of its own; summed over
    /// classes.
    #[default]
    Bernoulli,
    /// Softmax heads: one distribution over the classes. Blind to a constant added to all logits.
    Softmax,
}

impl Divergence {
    /// `temperature² · KL(teacher ‖ student)` of `[N, L, K]` logits divided by `temperature`: `[N, L]`.
    #[must_use]
    pub fn kl(self, student: Tensor<3>, teacher: Tensor<3>, temperature: f64) -> Tensor<2> {
        let (student, teacher) = match temperature {
            1.0 => (student, teacher),
            t => (student / t, teacher / t),
        };
        let kl = match self {
            Divergence::Bernoulli => Surprise::of(student).kl_from(&Surprise::of(teacher)),
            Divergence::Softmax => {
                let (log_q, log_p) = (log_softmax(student, 2), log_softmax(teacher, 2));
                sum_classes(log_p.clone().exp() * (log_p - log_q))
            }
        };
        match temperature {
            1.0 => kl,
            t => kl * (t * t),
        }
    }
}

/// What a sigmoid prediction `p` pays for either answer, `[N, L, K]`.
///
/// Both are computed from the logit and keep their relative precision where `p` is near 0 or 1; their
/// gradients are exact everywhere, 0 included.
#[derive(Clone, Debug)]
pub struct Surprise {
    /// `-log p`.
    pub if_present: Tensor<3>,
    /// `-log(1 - p)`.
    pub if_absent: Tensor<3>,
}

impl Surprise {
    /// Of logits.
    #[must_use]
    pub fn of(logits: Tensor<3>) -> Self {
        let size = logits.clone().abs();
        let tail = size.clone().neg().exp().log1p();
        // Half the sum of `|z|` and `±z` is the positive part, with the derivative 1/2 at 0 that the
        // tail's derivative, 0 there, needs.
        Surprise {
            if_present: (size.clone() - logits.clone()) * 0.5 + tail.clone(),
            if_absent: (size + logits) * 0.5 + tail,
        }
    }

    /// Without gradient.
    #[must_use]
    pub fn detach(&self) -> Self {
        Surprise {
            if_present: self.if_present.clone().detach(),
            if_absent: self.if_absent.clone().detach(),
        }
    }

    /// `Σ_k KL(teacher_k ‖ self_k)`: `[N, L]`, exactly 0 where both are equal. The teacher is taken as
    /// it is: detach it if it must not learn.
    #[must_use]
    pub fn kl_from(&self, teacher: &Surprise) -> Tensor<2> {
        let excess = |own: &Tensor<3>, of_teacher: &Tensor<3>| {
            of_teacher.clone().neg().exp() * (own.clone() - of_teacher.clone())
        };
        sum_classes(
            excess(&self.if_present, &teacher.if_present)
                + excess(&self.if_absent, &teacher.if_absent),
        )
    }
}

fn sum_classes(x: Tensor<3>) -> Tensor<2> {
    x.sum_dim(2).squeeze_dim(2)
}
