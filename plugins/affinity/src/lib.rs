//! Knowledge adaptation for efficient semantic segmentation (CVPR 2019, arXiv 1903.04688), for any two
//! maps.
//!
//! ```text
//! L_ae    = mean (T − D(E(T)))² + α Σ|E(T)| / B                         a phase of its own, first
//! L_adapt = mean_j ‖ C_f(S)_j / ‖C_f(S)_j‖_q − z_j / ‖z_j‖_q ‖_p        z = sg E(T)
//! L_aff   = mean_n ‖ A(C_a(S)) − A(z) ‖²_F / m²                         A_ij = cos(position i, position j)
//! ```
//!
//! `S`, `T` are a student's and a teacher's map, `E` and `D` an auto-encoder of the teacher's map, `C_f`
//! and `C_a` adapters of the student's, `m` the positions of a map, `B` the images.

pub mod adaptation;
pub mod adapters;
pub mod affinity;
pub mod autoencoder;
pub mod layers;
pub mod options;
pub mod phases;
pub mod places;
pub mod resize;
pub mod vectors;

use kd_plugin::burn::module::Module;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};
use kd_plugin::{
    DistillMethod, Inputs, Levels, MethodError, Outputs, Packed, Plan, TapPattern, Taps,
    resize_bilinear,
};

use crate::adapters::{AffinityAdapter, FeatureAdapter};
use crate::autoencoder::{Decoder, Encoder};
use crate::layers::NewStatistics;
pub use crate::options::Config;
use crate::places::{Place, Places};

const AE: &str = "loss_ae";
const ADAPT: &str = "loss_adapt";
const AFF: &str = "loss_aff";

/// The method.
pub struct Affinity;

/// What is learned; all of it is thrown away after training.
#[derive(Module, Debug)]
pub struct Parts {
    /// `E`: one for all places (`shared`), one a place, or none.
    encoder: Levels<Encoder>,
    /// `D`, as `E`.
    decoder: Levels<Decoder>,
    /// `C_f`, one a place; none without `loss_adapt`.
    feature_adapter: Levels<FeatureAdapter>,
    /// `C_a`, one a place; none without `loss_aff`.
    affinity_adapter: Levels<AffinityAdapter>,
}

impl DistillMethod for Affinity {
    type Config = Config;
    type Module = Parts;

    const ID: &'static str = "affinity";
    const TITLE: &'static str = "Knowledge adaptation (auto-encoder, affinity)";
    const DOC: &'static str = "The student imitates the code of the teacher's last map and the affinities between its \
         positions, arXiv 1903.04688.";
    const TAPS: &'static [TapPattern] = &[
        TapPattern::student("feat.last|neck.*"),
        TapPattern::teacher("feat.last|neck.*"),
    ];
    const LOSSES: &'static [&'static str] = &[AE, ADAPT, AFF];
    const METRICS: &'static [&'static str] = &["ae_r2"];

    fn plan(config: &Config, taps: &Taps, device: &Device) -> Result<Plan<Parts>, MethodError> {
        config.check()?;
        let places = Places::of(config, taps)?;
        let parts = Parts::new(config, &places, device);
        let mut plan = Plan::new(parts).uses_taps(taps, |tap| places.has(&tap.name));
        if config.has_autoencoder() {
            plan = plan.loss(AE, 1.0);
        }
        if config.adapts() {
            plan = plan.loss(ADAPT, config.loss_weight_adapt);
        }
        if config.relates() {
            plan = plan.loss(AFF, config.loss_weight_aff);
        }
        Ok(match phases::schedule(config) {
            Some(schedule) => plan.schedule(schedule),
            None => plan,
        })
    }

    fn forward(
        config: &Config,
        parts: &Parts,
        inputs: &Inputs<'_>,
    ) -> Result<Outputs, MethodError> {
        let places = Places::of(config, inputs.taps())?;
        let mut statistics = NewStatistics::default();
        let mut outputs = Outputs::new();
        let not_wanted = || Tensor::<1>::zeros([1], &inputs.device());

        if inputs.wants(AE) {
            let learnt = parts.learn_code(config, &places, inputs, &mut statistics)?;
            outputs = outputs.loss(AE, learnt.loss).metric("ae_r2", learnt.r2);
        } else if config.has_autoencoder() {
            outputs = outputs.loss(AE, not_wanted());
        }

        let (wants_adapt, wants_aff) = (inputs.wants(ADAPT), inputs.wants(AFF));
        let pairs = match wants_adapt || wants_aff {
            true => parts.pairs(config, &places, inputs)?,
            false => Vec::new(),
        };
        if wants_adapt {
            let of_pair = |pair: &Compared<'_>| {
                let adapter = parts.feature_adapter.expect(&pair.place.name)?;
                let path = format!("feature_adapter.{}", pair.place.name);
                let adapted = adapter.forward(pair.student.clone(), &path, &mut statistics);
                Ok(adaptation::loss(config, adapted, pair.code.clone()))
            };
            outputs = outputs.loss(ADAPT, mean(&pairs, of_pair)?);
        } else if config.adapts() {
            outputs = outputs.loss(ADAPT, not_wanted());
        }
        if wants_aff {
            let of_pair = |pair: &Compared<'_>| {
                let adapter = parts.affinity_adapter.expect(&pair.place.name)?;
                let adapted = adapter.forward(pair.student.clone());
                Ok(affinity::loss(adapted, pair.code.clone(), config.affinity))
            };
            outputs = outputs.loss(AFF, mean(&pairs, of_pair)?);
        } else if config.relates() {
            outputs = outputs.loss(AFF, not_wanted());
        }
        Ok(statistics.write(outputs))
    }
}

/// What the losses compare at a place; both of the same height and width.
struct Compared<'a> {
    place: &'a Place,
    /// `[N, C_s, H, W]`.
    student: Tensor<4>,
    /// `z`, `[N, C_z, H, W]`; constant.
    code: Tensor<4>,
}

/// What the auto-encoders' phase gives.
struct Learnt {
    loss: Tensor<1>,
    r2: Tensor<1>,
}

/// Mean of `loss` over pairs.
fn mean<P>(
    pairs: &[P],
    loss: impl FnMut(&P) -> Result<Tensor<1>, MethodError>,
) -> Result<Tensor<1>, MethodError> {
    let losses: Vec<Tensor<1>> = pairs.iter().map(loss).collect::<Result<_, _>>()?;
    let count = losses.len() as f64;
    let sum = losses.into_iter().reduce(|sum, loss| sum + loss);
    Ok(sum.expect("a plan has a place") / count)
}

impl Parts {
    fn new(config: &Config, places: &Places, device: &Device) -> Self {
        let mut encoder = Vec::new();
        let mut decoder = Vec::new();
        for (name, members) in places.groups(config) {
            let [channels, code] = [members[0].teacher_channels, members[0].code_channels];
            encoder.push((name.to_owned(), Encoder::new(channels, code, device)));
            decoder.push((name.to_owned(), Decoder::new(channels, code, device)));
        }
        let mut feature_adapter = Vec::new();
        let mut affinity_adapter = Vec::new();
        for place in places.iter() {
            let [from, to] = [place.student_channels, place.code_channels];
            if config.adapts() {
                let adapter = FeatureAdapter::new(from, to, device);
                feature_adapter.push((place.name.clone(), adapter));
            }
            if config.relates() {
                let adapter = AffinityAdapter::new(from, to, device);
                affinity_adapter.push((place.name.clone(), adapter));
            }
        }
        Parts {
            encoder: Levels::new(encoder),
            decoder: Levels::new(decoder),
            feature_adapter: Levels::new(feature_adapter),
            affinity_adapter: Levels::new(affinity_adapter),
        }
    }

    /// The phase of the auto-encoders: reads teacher taps alone.
    fn learn_code(
        &self,
        config: &Config,
        places: &Places,
        inputs: &Inputs<'_>,
        statistics: &mut NewStatistics,
    ) -> Result<Learnt, MethodError> {
        let mut all = Vec::new();
        for (name, members) in places.groups(config) {
            let (encoder, decoder) = (self.encoder.expect(name)?, self.decoder.expect(name)?);
            let maps = members.iter().map(|place| inputs.teacher(&place.name));
            let maps = Packed::pack(maps.collect::<Result<Vec<_>, _>>()?);
            let strides: Vec<_> = members.iter().map(|place| place.strides()).collect();
            let path = format!("encoder.{name}");
            let encoded = encoder.learn(&maps, &strides, &path, statistics);
            let path = format!("decoder.{name}");
            let decoded = decoder.learn(&encoded, &strides, &path, statistics);
            for level in 0..members.len() {
                all.push(autoencoder::Level {
                    map: maps.level(level),
                    code: encoded.code.level(level),
                    decoded: decoded.level(level),
                });
            }
        }
        Ok(Learnt {
            loss: mean(&all, |level| Ok(level.loss(config)))?,
            r2: mean(&all, |level| Ok(level.r2()))?,
        })
    }

    /// Student maps and codes on one grid.
    fn pairs<'a>(
        &self,
        config: &Config,
        places: &'a Places,
        inputs: &Inputs<'_>,
    ) -> Result<Vec<Compared<'a>>, MethodError> {
        let mut codes = std::collections::BTreeMap::new();
        for (name, members) in places.groups(config) {
            let maps = members.iter().map(|place| inputs.teacher(&place.name));
            let maps = Packed::pack(maps.collect::<Result<Vec<_>, _>>()?);
            let strides: Vec<_> = members.iter().map(|place| place.strides()).collect();
            let encoded = self.encoder.expect(name)?.encode(&maps, &strides);
            for (place, code) in members.iter().zip(encoded.detach().unpack()) {
                codes.insert(place.name.as_str(), code);
            }
        }
        let pair = |place: &'a Place| {
            let student = inputs.student(&place.name)?;
            let size = resize::size(&student);
            let (student, code) = match codes.remove(place.name.as_str()) {
                // The teacher's map is its own code.
                None => {
                    let map = inputs.teacher(&place.name)?;
                    (student, resize::averaged_or_bilinear(map, size))
                }
                Some(code) if config.code_stride > 0 => {
                    let size = resize::size(&code);
                    (resize::averaged(student, size), code)
                }
                Some(code) => (student, resize_bilinear(code, size)),
            };
            Ok(Compared {
                place,
                student,
                code,
            })
        };
        places.iter().map(pair).collect()
    }
}

kd_plugin::export!(Affinity);

#[cfg(test)]
mod tests;
