//! Puts together what a run works with, afresh or from a checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::info;

use crate::config::Config;
use crate::distill::Distiller;
use crate::distill::distiller::Models;
use crate::distill::schedule::Schedule;
use crate::model::{self, Detector};
use crate::plugin::{CallInfo, Library};
use crate::state::StateDict;

use super::EngineError;
use super::checkpoint::Snapshot;
use super::ema::Ema;
use super::environment::PluginFacts;
use super::lr_schedule::LrSchedule;
use super::optim::{Algorithm, MethodOptimizer, Optimizer, ParamGroups, method_param};
use super::step::Learner;
use super::teacher::Teacher;
use super::weights::ModelWeights;

/// What `environment.json` says of the plugin.
pub(super) fn plugin_facts(library: &Library, config: &Config) -> PluginFacts {
    PluginFacts {
        path: library.path().into(),
        sha256: library.sha256().into(),
        method: config.distill.method.clone(),
        manifest: serde_json::to_value(library.manifest()).expect("a manifest is plain data"),
    }
}

/// Everything a step needs, at its start.
pub(super) fn learner(
    label: &str,
    config: &Config,
    library: Option<&Arc<Library>>,
    detector: Arc<dyn Detector>,
    teacher: Option<Teacher>,
    [total_steps, steps_per_epoch]: [u64; 2],
) -> Result<Learner, EngineError> {
    let train = &config.train;
    let mut state = model::initial_state(detector.as_ref(), config.seed);
    if !config.student.weights.as_os_str().is_empty() {
        let file = StateDict::load(&config.student.weights)?;
        let report = model::weights::load_into(&mut state, detector.as_ref(), &file)?;
        info!(
            "{label}: weights from `{}`: {report}",
            config.student.weights.display()
        );
    }
    let device = config.compute_device().open()?;
    let weights = ModelWeights::from_state(detector.as_ref(), &state)?.on(&device);
    let teacher = teacher.map(|teacher| teacher.on(&device));
    let (distiller, schedule) = method(
        config,
        library,
        detector.as_ref(),
        teacher.as_ref(),
        [total_steps, steps_per_epoch],
    )?;
    Ok(Learner {
        ema: (train.ema_decay > 0.0).then(|| Ema::new(&weights, train.ema_decay)),
        detector,
        weights,
        precision: train.precision,
        optimizer: Optimizer::new(Algorithm::from_config(train)),
        method_optimizer: MethodOptimizer::from_config(train),
        groups: ParamGroups::from_config(train),
        lr: LrSchedule::new(train, steps_per_epoch, total_steps),
        schedule,
        distiller,
        teacher,
        grad_clip_norm: train.grad_clip_norm,
        grad_clip_value: train.grad_clip_value,
        task_weight: 1.0,
    })
}

/// The method of a run, bound to its models and with its initial state, and the phases it asks for.
pub(super) fn method(
    config: &Config,
    library: Option<&Arc<Library>>,
    student: &dyn Detector,
    teacher: Option<&Teacher>,
    [total_steps, steps_per_epoch]: [u64; 2],
) -> Result<(Option<Distiller>, Schedule), EngineError> {
    let Some(library) = library else {
        return Ok((None, Schedule::single(total_steps)));
    };
    let models = Models {
        student,
        teacher: teacher.map(Teacher::detector),
    };
    let distiller = bind(config, library, models, total_steps)?;
    let schedule = distiller.schedule(total_steps, steps_per_epoch)?;
    Ok((Some(distiller), schedule))
}

/// The method of a configuration on these models, with its initial state.
pub(super) fn bind(
    config: &Config,
    library: &Arc<Library>,
    models: Models<'_>,
    total_steps: u64,
) -> Result<Distiller, EngineError> {
    let call = CallInfo {
        training: true,
        seed: config.seed,
        total_steps,
        ..CallInfo::default()
    };
    let device = config.compute_device().open()?;
    let distiller = Distiller::bind(library, &config.distill, models, &device, &call)?;
    if config.eval.oracle && !distiller.has_maps() {
        return Err(EngineError::NoMaps {
            method: distiller.id().to_owned(),
        });
    }
    Ok(distiller)
}

/// Takes a learner to where a checkpoint was written.
pub(super) fn restore(learner: &mut Learner, snapshot: &Snapshot) -> Result<(), EngineError> {
    let device = learner.weights.device();
    let weights = ModelWeights::from_state(learner.detector.as_ref(), &snapshot.student)?;
    learner.weights = weights.on(&device);
    let mut lengths: BTreeMap<String, usize> = learner
        .detector
        .specs()
        .iter()
        .map(|spec| (spec.name.clone(), spec.shape.iter().product()))
        .collect();
    if let (Some(distiller), Some(state)) = (&mut learner.distiller, &snapshot.method) {
        distiller.load_state(state)?;
        let sizes = distiller.param_shapes().map(|shape| shape.iter().product());
        let sizes: Vec<usize> = sizes.collect();
        lengths.extend(distiller.param_names().map(method_param).zip(sizes));
    }
    learner
        .optimizer
        .load_state(&snapshot.optimizer, &lengths)?;
    if let (Some(own), Some(state)) = (&mut learner.method_optimizer, &snapshot.method_optimizer) {
        own.optimizer.load_state(state, &lengths)?;
    }
    if let (Some(ema), Some(state)) = (&mut learner.ema, &snapshot.ema) {
        let average = Ema::from_state(learner.detector.specs(), state, ema.decay())?;
        *ema = average.on(&device);
    }
    Ok(())
}
