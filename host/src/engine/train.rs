//! One run: from initial weights to an evaluated, exported model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::config::{Config, GatePolicy, PretrainSource, TrainConfig};
use crate::data::{Batch, Dataset, Epoch, Loader, LoaderOptions, Split, open};
use crate::device::ComputeDevice;
use crate::eval::{ByImage, Metrics};
use crate::model::{self, Model};
use crate::state::hex;

mod pretrain;
mod record;

use super::EngineError;
use super::assemble::{learner, plugin_facts, plugin_hashes, restore};
use super::checkpoint::{CheckpointStore, KEEP_LAST, Progress, Snapshot};
use super::ema::Ema;
use super::energy::EnergyMeter;
use super::environment::Environment;
use super::export;
use super::fingerprint::{self, Fingerprint, Steps};
use super::interrupt::Interrupt;
use super::job::Chosen;
use super::memory::{self, MemoryUsage};
use super::metrics_log::{LogPosition, MetricsLog};
use super::optim::PretrainOptimizer;
use super::preflight;
use super::progress::{ProgressMode, StepReport as ProgressReport, TrainProgress};
use super::run_dir::RunDir;
use super::step::{Learner, StepPosition};
use super::step_times::StepTimes;
use super::teacher::{Teachers, views};

/// Training and evaluation images.
#[derive(Clone)]
pub struct Datasets {
    /// For training.
    pub train: Arc<dyn Dataset>,
    /// For evaluation.
    pub val: Arc<dyn Dataset>,
}

impl Datasets {
    /// Opens both splits.
    ///
    /// # Errors
    /// If a file is missing or broken, or the splits have different classes.
    pub fn open(config: &Config) -> Result<Self, EngineError> {
        let train = open(&config.data, config.task, Split::Train)?;
        let val = open(&config.data, config.task, Split::Val)?;
        if train.classes() != val.classes() {
            return Err(EngineError::Classes {
                train: train.classes().join(", "),
                val: val.classes().join(", "),
            });
        }
        Ok(Datasets { train, val })
    }
}

/// What to run.
pub struct Run<'a> {
    /// For progress and messages.
    pub label: &'a str,
    /// Every setting of this run; `student` is the model that is trained.
    pub config: &'a Config,
    /// Its images.
    pub datasets: &'a Datasets,
    /// The methods; none for plain training.
    pub chosen: &'a [Chosen<'a>],
    /// The models that they learn from.
    pub teachers: Teachers,
    /// Where its files go.
    pub folder: &'a Path,
    /// Continue what is there.
    pub resume: bool,
    /// What a person sees.
    pub progress: ProgressMode,
    /// Asked after each step.
    pub interrupt: &'a Interrupt,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Evaluation at the end.
    pub metrics: Metrics,
    /// Evaluation of the head on the maps of each method that makes some, by label, if asked for.
    pub oracles: Oracles,
    /// Median seconds of a step, by part.
    pub step: StepTimes,
    /// Highest resident memory, bytes.
    pub peak_bytes: u64,
    /// Learned numbers of the methods.
    pub method_parameters: usize,
    /// Seconds from the start of the run to its result; none where it was interrupted.
    pub seconds: Option<f64>,
    /// Joules of the processor packages meanwhile, where the system tells.
    pub joules: Option<f64>,
    /// The exported model.
    pub student: PathBuf,
}

/// Evaluations of the head on methods' maps, by label.
pub type Oracles = BTreeMap<String, Metrics>;

/// Hash of the settings that decide the result of a run: where files go and how many threads decode
/// do not. Nor does the device, whose roundings differ as those of two processors do: a checkpoint of
/// one is continued on another.
#[must_use]
pub fn config_hash(config: &Config) -> String {
    let mut config = config.clone();
    config.output_dir = PathBuf::new();
    config.cache_dir = PathBuf::new();
    config.data.workers = 1;
    config.device = ComputeDevice::Cpu.to_string();
    config.train.log_interval_iters = 1;
    // What a method learns by itself is the same, from the cache or anew.
    let entries = config.distill.methods.values_mut();
    for entry in entries.chain([&mut config.distill.single]) {
        entry.pretrain = PretrainSource::default();
        // It decides whether a job goes on, not what its runs give.
        entry.gate = GatePolicy::default();
    }
    let json = serde_json::to_string(&config).expect("a configuration is plain data");
    hex(&Sha256::digest(json))
}

/// Optimizer steps of a run and of one of its epochs.
pub(super) fn length(loader: &Loader, train: &TrainConfig) -> Result<[u64; 2], EngineError> {
    let steps_per_epoch = (loader.batches_per_epoch() / train.accumulate) as u64;
    if steps_per_epoch == 0 {
        return Err(EngineError::NoBatches {
            images: loader.num_images(),
            batch_size: loader.options().batch_size * train.accumulate,
        });
    }
    let limit = match train.max_iters {
        0 => u64::MAX,
        n => n as u64,
    };
    let total_steps = (steps_per_epoch * train.epochs as u64).min(limit);
    Ok([total_steps, steps_per_epoch])
}

/// Trains, evaluates and exports.
///
/// # Errors
/// If something cannot be built or read, a loss or gradient is not finite, the plugin fails, or the
/// run is interrupted; whatever was reached is in a checkpoint then.
pub fn train(run: Run<'_>) -> Result<Outcome, EngineError> {
    let mut session = Session::start(run)?;
    session.pretrain()?;
    session.run_epochs()?;
    session.finish()
}

/// The newest evaluation.
struct LastEvaluation {
    iter: u64,
    metrics: Metrics,
    oracles: Oracles,
    by_image: ByImage,
}

struct Session<'a> {
    run: Run<'a>,
    /// Held so that no other process writes here.
    _folder: RunDir,
    store: CheckpointStore,
    log: MetricsLog,
    loader: Loader,
    learner: Learner,
    steps_per_epoch: u64,
    total_steps: u64,
    /// Of this process; none where another began the run.
    started: Option<(Instant, Option<EnergyMeter>)>,
    at: Progress,
    /// Within a phase of a method alone.
    pretrain_optimizer: Option<PretrainOptimizer>,
    times: Vec<StepTimes>,
    zero_terms: BTreeMap<String, u64>,
    last_evaluation: Option<LastEvaluation>,
    /// Hash of the batches of the last step.
    last_batch: Option<String>,
}

impl<'a> Session<'a> {
    fn start(mut run: Run<'a>) -> Result<Self, EngineError> {
        // Where the kernel refuses, the peak of the whole process stands in.
        let _ = memory::reset_peak();
        let started = (Instant::now(), EnergyMeter::start());
        let config = run.config;
        let num_classes = run.datasets.train.classes().len();
        let built = model::build(&config.student, config.task, num_classes)?;
        let model: Arc<dyn Model> = Arc::from(built);
        let options = LoaderOptions::training(&config.data, config.seed, model.size_divisor())
            .with_views(views(&run.teachers));
        let loader = Loader::new(Arc::clone(&run.datasets.train), options)?;
        let [total_steps, steps_per_epoch] = length(&loader, &config.train)?;

        let environment = Environment {
            device: config.compute_device(),
            ..Environment::current(plugin_facts(run.chosen))
        };
        let hash = config_hash(config);
        let teachers = std::mem::take(&mut run.teachers);
        let mut learner = learner(
            run.label,
            config,
            run.chosen,
            Arc::clone(&model),
            teachers,
            [total_steps, steps_per_epoch],
        )?;
        let steps = Steps {
            total: total_steps,
            per_epoch: steps_per_epoch,
            accumulate: config.train.accumulate,
        };
        let facts = fingerprint::at_start(
            config,
            &learner.weights.to_state(),
            &loader,
            steps,
            run.datasets,
            &learner.teachers,
            &environment,
        )?;
        // Whatever can be refused is refused by now, and leaves no folder behind.
        let folder = if run.resume {
            RunDir::resume(run.folder)?
        } else {
            RunDir::create(run.folder, &config.to_toml(), &environment)?
        };
        Fingerprint::note_start(run.folder, facts)?;
        let store = CheckpointStore::open(run.folder, KEEP_LAST)?;

        let plugins = plugin_hashes(run.chosen);
        let mut at = Progress {
            iter: 0,
            epoch: 0,
            batch_in_epoch: 0,
            pretrain: None,
            seed: config.seed,
            config_hash: hash.clone(),
            plugins: plugins.clone(),
            finished: false,
            metrics: BTreeMap::new(),
            best: None,
            log: LogPosition::default(),
        };
        let snapshot = if run.resume { store.latest()? } else { None };
        let mut pretrain_optimizer = None;
        let started = snapshot.is_none().then_some(started);
        let log = match snapshot {
            Some((path, snapshot)) => {
                let what = match snapshot.progress.config_hash == hash {
                    false => Some("its settings differ".to_owned()),
                    true => other_plugin(&snapshot.progress.plugins, &plugins),
                };
                if let Some(what) = what {
                    return Err(EngineError::ResumeMismatch {
                        run_dir: run.folder.into(),
                        what,
                    });
                }
                restore(&mut learner, &snapshot)?;
                info!("{}: continuing from `{}`", run.label, path.display());
                at = snapshot.progress;
                pretrain_optimizer = snapshot.pretrain_optimizer;
                folder.note_resume(at.iter, &environment)?;
                MetricsLog::resume(run.folder, at.log)?
            }
            None => MetricsLog::create(run.folder)?,
        };
        let mut session = Session {
            run,
            _folder: folder,
            store,
            log,
            loader,
            learner,
            steps_per_epoch,
            total_steps,
            started,
            at,
            pretrain_optimizer: None,
            times: Vec::new(),
            zero_terms: BTreeMap::new(),
            last_evaluation: None,
            last_batch: None,
        };
        session.begin_pretrain(pretrain_optimizer)?;
        if session.at.iter == 0 {
            session.preflight()?;
        }
        Ok(session)
    }

    fn position(&self) -> StepPosition {
        StepPosition {
            step: self.at.iter,
            total_steps: self.total_steps,
            epoch: self.at.epoch,
            seed: self.run.config.seed,
        }
    }

    fn preflight(&mut self) -> Result<(), EngineError> {
        let Some(batch) = self.loader.epoch(0, 0).next() else {
            return Ok(());
        };
        let at = self.position();
        let report = preflight::run(&mut self.learner, batch?, at)?;
        let label = self.run.label;
        for line in report.taps.lines() {
            info!("{label}: {line}");
        }
        for name in &report.without_gradient {
            warn!("{label}: learned part `{name}` of a method gets no gradient from one batch");
        }
        let losses: Vec<String> = report
            .losses
            .iter()
            .map(|(name, value)| format!("{name} {value:.4}"))
            .collect();
        info!(
            "{label}: {} steps ({} an epoch), first batch {:.2} s, {} MiB; {}",
            self.total_steps,
            self.steps_per_epoch,
            report.times.total(),
            report.resident_bytes >> 20,
            losses.join(", "),
        );
        self.preflight_alone()
    }

    fn run_epochs(&mut self) -> Result<(), EngineError> {
        let train = &self.run.config.train;
        let (log_interval, eval_interval) = (
            train.log_interval_iters as u64,
            train.eval_interval_epochs as u64,
        );
        let mut progress = TrainProgress::new(
            self.run.progress,
            self.run.label,
            self.at.iter,
            self.total_steps,
            log_interval,
        );
        while self.at.iter < self.total_steps {
            self.run_epoch(&mut progress)?;
            let epoch_over = self.at.batch_in_epoch == 0;
            let over = self.at.iter == self.total_steps;
            if epoch_over {
                for (name, teacher) in &self.learner.teachers {
                    teacher.verify(name)?;
                }
                let due = eval_interval > 0 && self.at.epoch.is_multiple_of(eval_interval);
                if due && !over {
                    let line = self.evaluate()?;
                    progress.print(&line);
                }
                if !over {
                    self.checkpoint()?;
                }
            }
        }
        progress.finish();
        Ok(())
    }

    /// Runs to the end of the epoch or of the run.
    fn run_epoch(&mut self, progress: &mut TrainProgress) -> Result<(), EngineError> {
        let accumulate = self.run.config.train.accumulate;
        let interval = self.run.config.train.checkpoint_interval_iters as u64;
        let log_interval = self.run.config.train.log_interval_iters as u64;
        let mut batches = self
            .loader
            .epoch(self.at.epoch, self.at.batch_in_epoch as usize);
        let last = self.steps_per_epoch * accumulate as u64;
        while self.at.batch_in_epoch < last && self.at.iter < self.total_steps {
            let clock = Instant::now();
            let micro = take(&mut batches, accumulate)?;
            let data_time = clock.elapsed();
            if self.at.iter + 1 == self.total_steps {
                self.last_batch = Some(fingerprint::hash_batches(&micro));
            }
            let clock = Instant::now();
            let mut report = match self.learner.step(micro, self.position()) {
                Ok(report) => report,
                Err(error) => {
                    // The last good state, so that nothing is lost.
                    self.checkpoint()?;
                    warn!(
                        "{}: step {} failed and was not applied; the state before it is in `{}`",
                        self.run.label,
                        self.at.iter,
                        self.run.folder.join("checkpoints").display()
                    );
                    return Err(error);
                }
            };
            report.times.data = data_time.as_secs_f64();
            self.at.iter += 1;
            self.at.batch_in_epoch += accumulate as u64;
            if self.at.batch_in_epoch == last {
                self.at.batch_in_epoch = 0;
                self.at.epoch += 1;
            }
            progress.step(&ProgressReport {
                iter: self.at.iter,
                epoch: self.at.epoch,
                lr: report.lr,
                data_time,
                step_time: clock.elapsed() + data_time,
                losses: &report.losses,
            });
            self.times.push(report.times.clone());
            self.watch_zero_terms(&report);
            let over = self.at.iter == self.total_steps;
            if self.at.iter.is_multiple_of(log_interval.max(1)) || over {
                self.record(&report)?;
            }
            if self.run.interrupt.requested() {
                self.checkpoint()?;
                return Err(EngineError::Interrupted {
                    step: self.at.iter,
                    phase: None,
                    run_dir: self.run.folder.into(),
                });
            }
            if self.at.batch_in_epoch == 0 {
                break;
            }
            if interval > 0 && self.at.iter.is_multiple_of(interval) && !over {
                self.checkpoint()?;
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), EngineError> {
        self.at.log = self.log.sync()?;
        self.store.save(&Snapshot {
            progress: self.at.clone(),
            student: self.learner.weights.to_state(),
            optimizer: self.learner.optimizer.to_state(),
            method_optimizer: self
                .learner
                .method_optimizer
                .as_ref()
                .map(|own| own.optimizer.to_state()),
            pretrain_optimizer: self
                .pretrain_optimizer
                .as_ref()
                .map(PretrainOptimizer::to_state),
            method: match self.learner.methods.is_empty() {
                true => None,
                false => Some(self.learner.methods.to_state()),
            },
            ema: self.learner.ema.as_ref().map(Ema::to_state),
        })?;
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome, EngineError> {
        let newest = self.last_evaluation.as_ref();
        if newest.is_none_or(|last| last.iter != self.at.iter) {
            let line = self.evaluate()?;
            info!("{line}");
        }
        let last = self.last_evaluation.take().expect("evaluated just now");
        for skipped in self.loader.skipped() {
            warn!("{}: left out: {}", self.run.label, skipped.reason);
        }
        self.at.finished = true;
        self.checkpoint()?;
        let student = self.run.folder.join("student.safetensors");
        let classes = self.run.datasets.train.classes();
        let exported = self.exported().to_state();
        self.write_predictions(&last.by_image)?;
        self.note_end(&last.metrics, &exported)?;
        export::save(&student, exported, self.run.config, classes)?;
        Ok(Outcome {
            metrics: last.metrics,
            oracles: last.oracles,
            step: StepTimes::median(&self.times),
            peak_bytes: MemoryUsage::now().map_or(0, |m| m.peak_bytes),
            method_parameters: self.learner.methods.num_parameters(),
            seconds: self
                .started
                .as_ref()
                .map(|(clock, _)| clock.elapsed().as_secs_f64()),
            joules: self.started.and_then(|(_, meter)| meter?.joules()),
            student,
        })
    }
}

/// How the plugin file of a method differs from the one that a checkpoint was written with.
fn other_plugin(
    recorded: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Option<String> {
    let labels = recorded.keys().chain(now.keys());
    let other = labels
        .into_iter()
        .find(|label| recorded.get(*label) != now.get(*label))?;
    Some(format!("the plugin file of method `{other}` differs"))
}

fn take(batches: &mut Epoch, count: usize) -> Result<Vec<Batch>, EngineError> {
    let mut taken = Vec::with_capacity(count);
    for _ in 0..count {
        taken.push(batches.next().expect("an epoch has its promised batches")?);
    }
    Ok(taken)
}
