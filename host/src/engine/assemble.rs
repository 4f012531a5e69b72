//! Puts together what a run works with, afresh or from a checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::info;

use crate::config::Config;
use crate::distill::Distiller;
use crate::distill::distiller::Models;
use crate::distill::methods::{Bound, Methods};
use crate::distill::schedule::Schedule;
use crate::model::{self, Model};
use crate::plugin::CallInfo;
use crate::state::StateDict;

use super::EngineError;
use super::checkpoint::Snapshot;
use super::ema::Ema;
use super::environment::PluginFacts;
use super::image_size::ImageSize;
use super::job::{self, Chosen};
use super::lr_schedule::LrSchedule;
use super::optim::{Algorithm, MethodOptimizer, Optimizer, ParamGroups, method_param};
use super::step::Learner;
use super::teacher::Teachers;
use super::weights::ModelWeights;

/// What `environment.json` says of the plugins.
pub(super) fn plugin_facts(chosen: &[Chosen<'_>]) -> BTreeMap<String, PluginFacts> {
    let facts = |chosen: &Chosen<'_>| {
        let library = &chosen.library;
        let facts = PluginFacts {
            path: library.path().into(),
            sha256: library.sha256().into(),
            method: chosen.manifest.id.clone(),
            manifest: serde_json::to_value(library.manifest()).expect("a manifest is plain data"),
        };
        (chosen.label.clone(), facts)
    };
    chosen.iter().map(facts).collect()
}

/// SHA-256 of the plugin file of each method, by label.
pub(super) fn plugin_hashes(chosen: &[Chosen<'_>]) -> BTreeMap<String, String> {
    let hash = |chosen: &Chosen<'_>| (chosen.label.clone(), chosen.library.sha256().to_owned());
    chosen.iter().map(hash).collect()
}

/// Everything a step needs, at its start.
pub(super) fn learner(
    label: &str,
    config: &Config,
    chosen: &[Chosen<'_>],
    model: Arc<dyn Model>,
    teachers: Teachers,
    [total_steps, steps_per_epoch]: [u64; 2],
) -> Result<Learner, EngineError> {
    let train = &config.train;
    let mut state = model::initial_state(model.as_ref(), config.seed);
    if !config.student.weights.as_os_str().is_empty() {
        let file = StateDict::load(&config.student.weights)?;
        let report = model::weights::load_into(&mut state, model.as_ref(), &file)?;
        info!(
            "{label}: weights from `{}`: {report}",
            config.student.weights.display()
        );
    }
    let device = config.compute_device().open()?;
    let weights = ModelWeights::from_state(model.as_ref(), &state)?.on(&device);
    let teachers = teachers.into_iter();
    let teachers: Teachers = teachers.map(|(name, t)| (name, t.on(&device))).collect();
    let lengths = [total_steps, steps_per_epoch];
    let (methods, schedule) = methods(config, chosen, model.as_ref(), &teachers, lengths)?;
    Ok(Learner {
        ema: (train.ema_decay > 0.0).then(|| Ema::new(&weights, train.ema_decay)),
        model,
        weights,
        precision: train.precision,
        optimizer: Optimizer::new(Algorithm::from_config(train)),
        method_optimizer: MethodOptimizer::from_config(train),
        groups: ParamGroups::from_config(train),
        lr: LrSchedule::new(train, steps_per_epoch, total_steps),
        schedule,
        methods,
        teachers,
        grad_clip_norm: train.grad_clip_norm,
        grad_clip_value: train.grad_clip_value,
        task_weight: 1.0,
    })
}

/// The methods of a run, bound to its models and with their initial state, and the phases of the run.
pub(super) fn methods(
    config: &Config,
    chosen: &[Chosen<'_>],
    student: &dyn Model,
    teachers: &Teachers,
    [total_steps, steps_per_epoch]: [u64; 2],
) -> Result<(Methods, Schedule), EngineError> {
    let student_size = ImageSize::of_training(&config.data, config.task, student.size_divisor());
    let models = teachers
        .iter()
        .map(|(name, t)| (name.clone(), t.as_bound(student_size)));
    let models = Models {
        student,
        student_size: student_size.map(|size| size.padded),
        teachers: &models.collect(),
    };
    bind(config, chosen, models, [total_steps, steps_per_epoch])
}

/// The methods of a configuration on these models, with their initial state, and the phases of a run of
/// these lengths.
pub(super) fn bind(
    config: &Config,
    chosen: &[Chosen<'_>],
    models: Models<'_>,
    [total_steps, steps_per_epoch]: [u64; 2],
) -> Result<(Methods, Schedule), EngineError> {
    let mut methods = bind_methods(config, chosen, models, total_steps)?;
    let schedule = methods.place(&config.stage, total_steps, steps_per_epoch)?;
    Ok((methods, schedule))
}

/// The methods alone, not yet placed in a run.
pub(super) fn bind_methods(
    config: &Config,
    chosen: &[Chosen<'_>],
    models: Models<'_>,
    total_steps: u64,
) -> Result<Methods, EngineError> {
    let call = CallInfo {
        training: true,
        stage: config.stage.index,
        seed: config.seed,
        total_steps,
        ..CallInfo::default()
    };
    let device = config.compute_device().open()?;
    let mut bound = Vec::new();
    for chosen in chosen {
        let (entry, cast) = (chosen.entry, &chosen.cast);
        let distiller = Distiller::bind(&chosen.library, entry, models, cast, &device, &call);
        bound.push(Bound {
            label: chosen.label.clone(),
            distiller: distiller.map_err(|error| chosen.of_entry(error))?,
        });
    }
    let methods = Methods::new(bound)?;
    if config.eval.oracle && methods.with_maps().is_empty() {
        return Err(EngineError::NoMaps {
            method: job::labels(chosen),
        });
    }
    Ok(methods)
}

/// Takes a learner to where a checkpoint was written.
pub(super) fn restore(learner: &mut Learner, snapshot: &Snapshot) -> Result<(), EngineError> {
    let device = learner.weights.device();
    let weights = ModelWeights::from_state(learner.model.as_ref(), &snapshot.student)?;
    learner.weights = weights.on(&device);
    let mut lengths: BTreeMap<String, usize> = learner
        .model
        .specs()
        .iter()
        .map(|spec| (spec.name.clone(), spec.shape.iter().product()))
        .collect();
    if let Some(state) = &snapshot.method {
        learner.methods.load_state(state)?;
    }
    for bound in learner.methods.iter() {
        let sizes = bound
            .distiller
            .param_shapes()
            .map(|shape| shape.iter().product());
        let names = bound.param_names().into_iter();
        lengths.extend(names.map(|name| method_param(&name)).zip(sizes));
    }
    learner
        .optimizer
        .load_state(&snapshot.optimizer, &lengths)?;
    if let (Some(own), Some(state)) = (&mut learner.method_optimizer, &snapshot.method_optimizer) {
        own.optimizer.load_state(state, &lengths)?;
    }
    if let (Some(ema), Some(state)) = (&mut learner.ema, &snapshot.ema) {
        let average = Ema::from_state(learner.model.specs(), state, ema.decay())?;
        *ema = average.on(&device);
    }
    Ok(())
}
