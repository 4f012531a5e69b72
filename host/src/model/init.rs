//! Initial weights, drawn from torchvision's distributions.

use super::{Init, Model, ParamSpec};
use crate::rng::KeyedRng;
use crate::state::{Array, StateDict};

/// Initial weights: a function of the architecture and `seed` alone.
///
/// Each parameter is drawn from a stream of its own, keyed by seed and name, so that a layer more
/// or fewer changes no other layer's start.
#[must_use]
pub fn initial_state(model: &dyn Model, seed: u64) -> StateDict {
    let entries = model
        .specs()
        .iter()
        .map(|spec| {
            let array = Array {
                shape: spec.shape.clone(),
                data: draw(spec, seed),
            };
            (spec.name.clone(), array)
        })
        .collect();
    StateDict {
        entries,
        metadata: Default::default(),
    }
}

fn draw(spec: &ParamSpec, seed: u64) -> Vec<f32> {
    let count = spec.shape.iter().product();
    // A convolution's weight is `[out, in, kernel, kernel]`.
    let kernel: usize = spec.shape.iter().skip(2).product();
    let fan = |channels: usize| (spec.shape[channels] * kernel) as f64;
    let mut rng = KeyedRng::new(&format!("initial {}", spec.name), &[seed]);
    let mut fill = |draw: &mut dyn FnMut(&mut KeyedRng) -> f64| {
        (0..count).map(|_| draw(&mut rng) as f32).collect()
    };
    match spec.init {
        Init::Constant(value) => vec![value; count],
        Init::Normal { std } => fill(&mut |rng| f64::from(std) * rng.normal()),
        Init::Uniform { bound } => {
            let bound = f64::from(bound);
            fill(&mut |rng| rng.range(-bound, bound))
        }
        Init::KaimingNormalFanOut => {
            let std = (2.0 / fan(0)).sqrt();
            fill(&mut |rng| std * rng.normal())
        }
        Init::KaimingUniformFanIn => {
            // With a = 1 the gain is 1.
            let bound = (3.0 / fan(1)).sqrt();
            fill(&mut |rng| rng.range(-bound, bound))
        }
    }
}
