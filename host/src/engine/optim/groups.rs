//! Parameter groups: decay and learning-rate scale by what a parameter is and where it belongs.

use std::collections::BTreeMap;

use crate::config::TrainConfig;
use crate::model::{ParamSpec, Part};

/// How one parameter is treated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParamGroup {
    /// Multiplies the scheduled learning rate.
    pub lr_scale: f64,
    /// Passed to [`super::Optimizer::update`].
    pub weight_decay: f64,
}

/// Chooses the group of a parameter from what it is and where it belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamGroups {
    weight_decay: f64,
    norm_decay: f64,
    bias_decay: f64,
    method_lr_scale: f64,
    part_lr_scale: BTreeMap<Part, f64>,
}

impl ParamGroups {
    /// The decays and scales of `config`; every part of the detector at scale 1.
    #[must_use]
    pub fn from_config(config: &TrainConfig) -> Self {
        ParamGroups {
            weight_decay: config.weight_decay,
            norm_decay: config.norm_decay,
            bias_decay: config.bias_decay,
            method_lr_scale: config.method_lr_scale,
            part_lr_scale: BTreeMap::new(),
        }
    }

    /// Scales the learning rate of a part of the detector, as a phase may ask.
    pub fn set_part_lr_scale(&mut self, part: Part, scale: f64) {
        self.part_lr_scale.insert(part, scale);
    }

    /// Scales the learning rate of the method's parameters, replacing the configured scale.
    pub fn set_method_lr_scale(&mut self, scale: f64) {
        self.method_lr_scale = scale;
    }

    /// The group of a parameter of the detector.
    #[must_use]
    pub fn of_detector(&self, spec: &ParamSpec) -> ParamGroup {
        use crate::model::ParamKind::{
            Bias, NormBias, NormWeight, Positions, RunningMean, RunningVar, Token, Weight,
        };
        ParamGroup {
            lr_scale: self.part_lr_scale.get(&spec.part).copied().unwrap_or(1.0),
            weight_decay: match spec.kind {
                Weight => self.weight_decay,
                Bias => self.bias_decay,
                NormWeight | NormBias => self.norm_decay,
                Token | Positions { .. } | RunningMean | RunningVar => 0.0,
            },
        }
    }

    /// The group of a parameter of the method.
    #[must_use]
    pub fn of_method(&self, shape: &[usize]) -> ParamGroup {
        ParamGroup {
            lr_scale: self.method_lr_scale,
            weight_decay: decay_by_rank(shape, self.weight_decay, self.bias_decay),
        }
    }
}

/// The decay of a parameter of the method. A plan does not say what a parameter is, so its rank
/// decides: vectors and scalars decay as biases, all others as weights.
pub(super) fn decay_by_rank(shape: &[usize], weight_decay: f64, bias_decay: f64) -> f64 {
    if shape.len() > 1 {
        weight_decay
    } else {
        bias_decay
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::weights::tests::spec;
    use crate::model::ParamKind;

    #[test]
    fn groups_follow_kind_part_and_rank() {
        let mut groups = ParamGroups {
            weight_decay: 1e-4,
            norm_decay: 0.0,
            bias_decay: 5e-5,
            method_lr_scale: 10.0,
            part_lr_scale: BTreeMap::new(),
        };
        groups.set_part_lr_scale(Part::Backbone, 0.1);
        let group = |kind, part| groups.of_detector(&spec("p", 1, kind, part));
        let expect = |lr_scale, weight_decay| ParamGroup {
            lr_scale,
            weight_decay,
        };
        assert_eq!(group(ParamKind::Weight, Part::Backbone), expect(0.1, 1e-4));
        assert_eq!(group(ParamKind::NormBias, Part::Backbone), expect(0.1, 0.0));
        assert_eq!(group(ParamKind::NormWeight, Part::Neck), expect(1.0, 0.0));
        assert_eq!(group(ParamKind::Bias, Part::Head), expect(1.0, 5e-5));
        let positions = ParamKind::Positions { grid: [2, 3] };
        for kind in [ParamKind::Token, positions] {
            assert_eq!(group(kind, Part::Head), expect(1.0, 0.0));
        }
        assert_eq!(groups.of_method(&[8, 4, 1, 1]), expect(10.0, 1e-4));
        assert_eq!(groups.of_method(&[8]), expect(10.0, 5e-5));
        groups.set_method_lr_scale(0.5);
        assert_eq!(groups.of_method(&[]), expect(0.5, 5e-5));
    }
}
