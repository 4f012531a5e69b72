//! Training steps to be timed: nothing is written, nothing is kept.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;

use crate::config::{Config, ModelConfig, OptimizerKind, ScheduleKind, TrainConfig};
use crate::data::{Batch, Epoch, ImageMeta, ImageTargets, Loader, LoaderOptions};
use crate::device::{ComputeDevice, wait_for};
use crate::model::{self, Model};
use crate::state::StateDict;

use super::EngineError;
use super::assemble::learner;
use super::job::{Chosen, choose, configured, teacher_names};
use super::step::{Learner, StepPosition, StepReport};
use super::teacher::{Teacher, Teachers, views};
use super::train::Datasets;
use super::weights::ModelWeights;

/// Steps that a schedule is laid out for: more than anyone times.
const TOTAL_STEPS: u64 = 1_000_000;

/// A training step that can be repeated.
pub struct StepBench {
    learner: Learner,
    source: Source,
    step: u64,
    seed: u64,
}

enum Source {
    Loader {
        loader: Loader,
        batches: Epoch,
        epoch: u64,
    },
    /// The same batch again and again.
    Fixed(Batch),
}

/// `case.json` of a reference folder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    backbone: String,
    num_classes: usize,
    fpn_channels: usize,
    lr: f64,
    momentum: f64,
    weight_decay: f64,
    targets: Vec<CaseTargets>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseTargets {
    boxes_xyxy: Vec<[f32; 4]>,
    labels: Vec<usize>,
}

/// What a run of `config` starts with, but for teachers at their initial weights.
pub(super) fn untrained_learner(
    config: &Config,
    chosen: &[Chosen<'_>],
    num_classes: usize,
    [total_steps, steps_per_epoch]: [u64; 2],
) -> Result<Learner, EngineError> {
    let build = |model: &ModelConfig| -> Result<Arc<dyn Model>, EngineError> {
        Ok(Arc::from(model::build(model, config.task, num_classes)?))
    };
    let student = build(&config.student)?;
    let mut teachers = Teachers::new();
    for name in teacher_names(chosen) {
        let teacher = configured(config, &name);
        let model = build(&teacher.model)?;
        let state = model::initial_state(model.as_ref(), config.seed);
        let weights = ModelWeights::from_state(model.as_ref(), &state)?;
        let transform = &config.data.transform;
        let grid_scale = config.student.pyramid_scale / teacher.model.pyramid_scale;
        let teacher = Teacher::new(model, weights, teacher, transform, grid_scale);
        teachers.insert(name, teacher);
    }
    let lengths = [total_steps, steps_per_epoch];
    learner("bench", config, chosen, student, teachers, lengths)
}

impl StepBench {
    /// The step of a configuration, its methods and teachers included. Student and teachers start from
    /// their initial weights: their values do not change the time.
    ///
    /// # Errors
    /// As a run.
    pub fn of_config(config: &Config) -> Result<Self, EngineError> {
        Self::of_config_for(config, TOTAL_STEPS)
    }

    /// The same, in a run of `total_steps`.
    ///
    /// # Errors
    /// As a run.
    pub(super) fn of_config_for(config: &Config, total_steps: u64) -> Result<Self, EngineError> {
        let chosen = choose(config)?;
        let datasets = Datasets::open(config)?;
        let num_classes = datasets.train.classes().len();
        let divisor = model::build(&config.student, config.task, num_classes)?.size_divisor();
        let options = LoaderOptions::training(&config.data, config.seed, divisor);
        let loader = Loader::new(Arc::clone(&datasets.train), options.clone())?;
        let per_epoch = loader.batches_per_epoch() as u64;
        let lengths = [total_steps, per_epoch];
        let learner = untrained_learner(config, &chosen, num_classes, lengths)?;
        let options = options.with_views(views(&learner.teachers));
        let loader = Loader::new(datasets.train, options)?;
        Ok(StepBench {
            learner,
            source: Source::Loader {
                batches: loader.epoch(0, 0),
                loader,
                epoch: 0,
            },
            // In the middle of a run every phase that warms up is over.
            step: total_steps / 2,
            seed: config.seed,
        })
    }

    /// The step of `case.json` and `case.safetensors` in `folder`: torchvision's RetinaNet with its
    /// weights, on fixed images and targets, with plain SGD, on `device` (see `tests/bench/README.md`).
    ///
    /// # Errors
    /// If a file is missing or broken, or the weights do not fit.
    pub fn of_reference(folder: &Path, device: ComputeDevice) -> Result<Self, EngineError> {
        let path = folder.join("case.json");
        let fault = |reason: String| EngineError::Case {
            path: path.clone(),
            reason,
        };
        let text = std::fs::read_to_string(&path).map_err(|e| fault(e.to_string()))?;
        let case: Case = serde_json::from_str(&text).map_err(|e| fault(e.to_string()))?;
        let mut file = StateDict::load(&folder.join("case.safetensors"))?;
        let images = file
            .entries
            .remove("images")
            .ok_or_else(|| fault("`case.safetensors` has no `images` [N, 3, H, W]".into()))?;
        let shape: [usize; 4] = images
            .shape
            .try_into()
            .map_err(|s| fault(format!("`images` is {s:?}, not [N, 3, H, W]")))?;
        if shape[0] != case.targets.len() {
            let (images, targets) = (shape[0], case.targets.len());
            return Err(fault(format!("{images} images but {targets} targets")));
        }
        let config = Config {
            device: device.to_string(),
            ..case.config()
        };
        let model: Arc<dyn Model> = Arc::from(model::build(
            &config.student,
            config.task,
            case.num_classes,
        )?);
        let mut learner = learner(
            "bench",
            &config,
            &[],
            Arc::clone(&model),
            Teachers::new(),
            [TOTAL_STEPS, 1],
        )?;
        let mut state = learner.weights.to_state();
        model::weights::load_into(&mut state, model.as_ref(), &file)?.strict()?;
        let weights = ModelWeights::from_state(model.as_ref(), &state)?;
        learner.weights = weights.on(&learner.weights.device());
        let size = [shape[2], shape[3]];
        let metas = (0..shape[0])
            .map(|image| ImageMeta {
                image_id: image as i64,
                original_size: size,
                size,
                flipped: false,
            })
            .collect();
        let targets = case.targets.into_iter().map(|targets| ImageTargets {
            boxes_xyxy: targets.boxes_xyxy,
            labels: targets.labels,
            ..ImageTargets::default()
        });
        Ok(StepBench {
            learner,
            source: Source::Fixed(Batch {
                images: images.data,
                shape,
                targets: targets.collect(),
                metas,
                ..Batch::default()
            }),
            step: 0,
            seed: config.seed,
        })
    }

    /// Images of one step.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        match &self.source {
            Source::Loader { loader, .. } => loader.options().batch_size,
            Source::Fixed(batch) => batch.shape[0],
        }
    }

    /// Runs one step; the times include the wait for data.
    ///
    /// # Errors
    /// As a training step.
    pub fn run(&mut self) -> Result<StepReport, EngineError> {
        let clock = Instant::now();
        let batch = self.source.next()?;
        let data = clock.elapsed().as_secs_f64();
        let at = StepPosition {
            step: self.step,
            total_steps: TOTAL_STEPS,
            epoch: 0,
            seed: self.seed,
        };
        let mut report = self.learner.step(vec![batch], at)?;
        // A device works on while this thread goes ahead; the last part waits for all of it.
        let clock = Instant::now();
        wait_for(&self.learner.weights.device())?;
        report.times.optimizer += clock.elapsed().as_secs_f64();
        report.times.data = data;
        self.step += 1;
        Ok(report)
    }
}

impl StepBench {
    /// The next batch.
    pub(super) fn batch(&mut self) -> Result<Batch, EngineError> {
        self.source.next()
    }

    /// What a step works with.
    pub(super) fn learner_mut(&mut self) -> &mut Learner {
        &mut self.learner
    }
}

impl Source {
    fn next(&mut self) -> Result<Batch, EngineError> {
        match self {
            Source::Fixed(batch) => Ok(batch.clone()),
            Source::Loader {
                loader,
                batches,
                epoch,
            } => loop {
                if let Some(batch) = batches.next() {
                    return Ok(batch?);
                }
                *epoch += 1;
                *batches = loader.epoch(*epoch, 0);
            },
        }
    }
}

impl Case {
    /// torchvision's RetinaNet and `torch.optim.SGD` over all parameters, in our words.
    fn config(&self) -> Config {
        let base = Config::base();
        Config {
            student: ModelConfig {
                backbone: self.backbone.clone(),
                fpn_channels: self.fpn_channels,
                head_convs: 4,
                anchor_base_size: 32,
                ..base.student
            },
            train: TrainConfig {
                optimizer: OptimizerKind::Sgd,
                lr: self.lr,
                momentum: self.momentum,
                weight_decay: self.weight_decay,
                norm_decay: self.weight_decay,
                bias_decay: self.weight_decay,
                warmup_iters: 0,
                schedule: ScheduleKind::Constant,
                grad_clip_norm: 0.0,
                grad_clip_value: 0.0,
                ema_decay: 0.0,
                ..base.train
            },
            ..base
        }
    }
}
