//! The auto-encoder learns first, alone; then the student learns with the adapters.

use kd_plugin::Schedule;
use kd_plugin::schedule::{Phase, Pretrain, Until};

use crate::options::Config;
use crate::{ADAPT, AE, AFF};

/// SGD of the auto-encoder's phase.
const MOMENTUM: f64 = 0.9;
const POLY_POWER: f64 = 0.9;

/// Both phases; none where no code is learned.
#[must_use]
pub fn schedule(config: &Config) -> Option<Schedule> {
    if !config.has_autoencoder() {
        return None;
    }
    let until = match config.autoencoder_iters {
        0 => Until::Epochs(config.autoencoder_epochs),
        iters => Until::Iters(iters),
    };
    let recipe = Pretrain {
        lr: config.autoencoder_lr,
        momentum: MOMENTUM,
        weight_decay: config.autoencoder_weight_decay,
        poly_power: POLY_POWER,
    };
    let autoencoder = Phase {
        losses: vec![AE.to_owned()],
        params: vec!["encoder.*".to_owned(), "decoder.*".to_owned()],
        ..Phase::pretrain("autoencoder", until, recipe)
    };
    let sides = [
        (config.adapts(), ADAPT, "feature_adapter.*"),
        (config.relates(), AFF, "affinity_adapter.*"),
    ];
    let (losses, params) = sides
        .iter()
        .filter(|(is_there, ..)| *is_there)
        .map(|&(_, loss, params)| (loss.to_owned(), params.to_owned()))
        .unzip();
    let joint = Phase {
        losses,
        params,
        ..Phase::new("joint")
    };
    Some(Schedule::single(vec![autoencoder, joint]))
}
