//! What the runs of a comparison left, read back.

use std::path::Path;
use std::sync::Arc;

use kdhost_ab::report::RunState;
use kdhost_ab::resampled::{
    ClassMatches, ConfusionByImage, ConfusionCell, DetectionMatches, ImageHits, Resampled,
};

use super::AbError;
use super::plan::Plan;
use super::store::{RunFiles, Store};
use crate::config::Task;
use crate::data::{self, Dataset, Split};
use crate::engine::arm::{self, Arm};
use crate::engine::environment::Environment;
use crate::engine::fingerprint::Fingerprint;
use crate::eval::coco::{self, GroundTruth};
use crate::eval::{ByImage, PREDICTIONS_FILE};
use crate::runs::measured::each_line;

/// All runs of a comparison.
pub struct Collected {
    /// The images that were evaluated.
    pub dataset: Arc<dyn Dataset>,
    /// By arm, then by seed.
    pub runs: Vec<Vec<CollectedRun>>,
}

/// What one run left.
pub struct CollectedRun {
    /// Its directory, below that of the comparison.
    pub folder: String,
    /// How it ended.
    pub state: RunState,
    /// Why it has no result.
    pub reason: Option<String>,
    /// Its result.
    pub done: Option<Arm>,
    /// `(iter, epoch, main metric in points)` of every evaluation.
    pub curve: Vec<(u64, u64, f64)>,
    /// Seconds of its last evaluation.
    pub evaluation_seconds: Option<f64>,
    /// Hashes of what went in and came out.
    pub fingerprint: Option<Fingerprint>,
    /// What it ran on.
    pub environment: Option<Environment>,
    /// Its final evaluation by image; none where its file is gone.
    pub evaluation: Option<Evaluated>,
}

/// A final evaluation by image.
pub struct Evaluated {
    /// As it was written.
    pub by_image: ByImage,
    /// Of a detector: which detections find an object, by class.
    pub matches: Vec<ClassMatches>,
    /// For resampling.
    pub resampled: Resampled,
}

/// Reads every run.
///
/// # Errors
/// If the data set cannot be opened, or a file of a run is not what was written.
pub fn collect(plan: &Plan, store: &Store) -> Result<Collected, AbError> {
    let config = &plan.arms[0].configs[0];
    let dataset = data::open(&config.data, config.task, Split::Val)?;
    let judge = Judge {
        task: config.task,
        dataset: dataset.as_ref(),
        truth: GroundTruth::from_dataset(dataset.as_ref(), config.eval.max_images),
    };
    let mut runs = Vec::new();
    for arm in &plan.arms {
        let mut of_arm = Vec::new();
        for &seed in &plan.spec.seeds {
            of_arm.push(read(&store.run(&arm.spec.folder(), seed), &judge)?);
        }
        runs.push(of_arm);
    }
    Ok(Collected { dataset, runs })
}

/// What evaluations are compared with.
struct Judge<'a> {
    task: Task,
    dataset: &'a dyn Dataset,
    truth: GroundTruth,
}

fn read(files: &RunFiles, judge: &Judge<'_>) -> Result<CollectedRun, AbError> {
    let done = arm::done(&files.folder)?;
    let failure = match done {
        Some(_) => None,
        None => files.failure()?,
    };
    let folder = files.of_student()?;
    let evaluation = match done {
        Some(_) => evaluated(&folder, judge)?,
        None => None,
    };
    let main = done
        .as_ref()
        .and_then(|done| Some(done.row.metrics.named().first()?.0.clone()));
    let log = match main {
        Some(main) => Log::read(&folder, &main)?,
        None => Log::default(),
    };
    let environment = std::fs::read_to_string(folder.join("environment.json"));
    let environment = environment
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok());
    Ok(CollectedRun {
        folder: files.relative.clone(),
        state: match (&done, &failure) {
            (Some(_), _) => RunState::Done,
            (None, Some(failure)) => failure.state,
            (None, None) => RunState::Missing,
        },
        reason: match (&done, failure) {
            (Some(_), _) => None,
            (None, Some(failure)) => Some(failure.reason),
            (None, None) => Some("it was not run, or is not over".into()),
        },
        curve: log.curve,
        evaluation_seconds: log.evaluation_seconds,
        fingerprint: Fingerprint::load(&folder)?,
        environment,
        evaluation,
        done,
    })
}

fn evaluated(folder: &Path, judge: &Judge<'_>) -> Result<Option<Evaluated>, AbError> {
    let path = folder.join(PREDICTIONS_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let by_image = ByImage::load(&path, judge.task, &judge.dataset.category_ids())?;
    let mut matches = Vec::new();
    let num_classes = judge.dataset.classes().len();
    let resampled = match &by_image {
        ByImage::Detection(predictions) => {
            matches = coco::matches(&judge.truth, predictions)?;
            let images = judge.truth.images.len();
            Resampled::Detection(DetectionMatches::new(images, matches.clone()))
        }
        ByImage::Segmentation(images) => {
            let cells = |pixels: &Vec<[u64; 3]>| -> Vec<ConfusionCell> {
                let cell = |&[truth, predicted, pixels]: &[u64; 3]| ConfusionCell {
                    truth: truth as usize,
                    predicted: predicted as usize,
                    pixels,
                };
                pixels.iter().map(cell).collect()
            };
            let images: Vec<_> = images.iter().map(|image| cells(&image.pixels)).collect();
            Resampled::Segmentation(ConfusionByImage::new(num_classes, &images))
        }
        ByImage::Classification(images) => {
            let hits = images.iter().map(|image| image.rank == 0).collect();
            Resampled::Classification(ImageHits::new(hits))
        }
    };
    Ok(Some(Evaluated {
        by_image,
        matches,
        resampled,
    }))
}

/// What is taken from a run's logs.
#[derive(Default)]
struct Log {
    curve: Vec<(u64, u64, f64)>,
    evaluation_seconds: Option<f64>,
}

impl Log {
    fn read(folder: &Path, main: &str) -> Result<Self, AbError> {
        let mut log = Log::default();
        let key = format!("val/{main}");
        // A stage that was taken from the cache has no logs.
        each_line(&folder.join("metrics.jsonl"), |values| {
            let number = |key: &str| values.get(key).and_then(serde_json::Value::as_f64);
            if let (Some(iter), Some(epoch), Some(value)) =
                (number("iter"), number("epoch"), number(&key))
                && value >= 0.0
            {
                log.curve.push((iter as u64, epoch as u64, 100.0 * value));
            }
        })?;
        each_line(&folder.join("timing.jsonl"), |values| {
            let seconds = values.get("time/evaluation");
            if let Some(seconds) = seconds.and_then(serde_json::Value::as_f64) {
                log.evaluation_seconds = Some(seconds);
            }
        })?;
        Ok(log)
    }
}
