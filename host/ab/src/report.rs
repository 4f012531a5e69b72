//! The data of a comparison, as `report.json` holds it and as every other form shows it.
//!
//! Qualities are in **points**: hundredths, so that an AP of 0.305 is 30.5; a number that is undefined (no
//! ground truth of that size) is `null`. Differences are arm minus control. Equal comparisons give
//! equal reports but for [`Machine`], which alone holds times and memory.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names the form of [`Report`].
pub const SCHEMA: &str = "kdhost.ab/1";

/// The JSON Schema (draft 2020-12) of [`Report`], `$id` is [`SCHEMA`]; committed as `report.schema.json`.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Report);
    schema.insert("$id".to_owned(), SCHEMA.into());
    schema.into()
}

/// A whole comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// What was fixed before the first run.
    pub design: Design,
    /// The control first, then in the order of the command line.
    pub arms: Vec<Arm>,
    /// One for each arm but the control, in their order.
    pub comparisons: Vec<Comparison>,
    /// Runs that gave no result, and whatever else a reader must know before a verdict.
    pub problems: Vec<Problem>,
    /// What all runs have in common, and proof of it.
    pub settings: Settings,
    /// Images on which an arm and the control disagree most.
    pub samples: Vec<Sample>,
    /// Times, memory, energy.
    pub machine: Machine,
}

/// What was fixed before the first run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Design {
    /// `detection`, `segmentation` or `classification`.
    pub task: String,
    /// The number that verdicts are about: `AP`, `mIoU`, `top1`.
    pub metric: String,
    /// Every number of [`Run::metrics`], in the order of tables; the first is `metric`.
    pub metrics: Vec<String>,
    /// The smallest difference that matters, points.
    pub threshold: f64,
    /// Two-sided error of the first kind of all comparisons together.
    pub alpha: f64,
    /// Seeds of every arm.
    pub seeds: Vec<u64>,
    /// Resamples of the evaluation images.
    pub bootstrap: usize,
    /// What differences the number of seeds can show.
    pub resolution: Resolution,
    /// Name of the data set.
    pub dataset: String,
    /// Names of its classes.
    pub classes: Vec<String>,
    /// Images that are evaluated.
    pub num_images: usize,
    /// Evaluator and its settings.
    pub protocol: String,
    /// Hash of the ids and sizes of the evaluated images.
    pub image_list_hash: String,
}

/// What differences a number of seeds can show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resolution {
    /// Probability with which a true difference of the resolvable size is found.
    pub power: f64,
    /// The resolvable difference in standard deviations of the paired differences; none with one seed.
    pub in_sd: Option<f64>,
    /// Standard deviation of the paired differences that was stated or piloted, points.
    pub sd: Option<f64>,
    /// Where `sd` comes from: `stated`, or `pilot FOLDER`.
    pub sd_source: Option<String>,
    /// `in_sd` times `sd`, points.
    pub difference: Option<f64>,
}

/// The runs of one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// The plain student.
    pub control: bool,
    /// Files of its plugins; none for the control.
    pub plugins: Vec<Plugin>,
    /// What it sets, by key.
    pub set: BTreeMap<String, String>,
    /// One a seed, in the order of [`Design::seeds`].
    pub runs: Vec<Run>,
    /// By name of metric, over the runs that are done.
    pub summary: BTreeMap<String, Summary>,
    /// [`Design::metric`] over training, at each evaluation.
    pub curve: Vec<CurvePoint>,
    /// Of detection: precision (a fraction) at IoU 0.5 at recall 0, 0.01, … 1, the mean over classes and
    /// runs.
    pub precision_recall: Option<Vec<f64>>,
    /// [`Design::metric`] by class, mean over the runs; in the order of [`Design::classes`].
    pub by_class: Vec<Option<f64>>,
}

/// A plugin file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plugin {
    /// Name of the file.
    pub file: String,
    /// Id of the method.
    pub method: String,
    /// Its SHA-256, lowercase hex.
    pub sha256: String,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// Its directory, below that of the comparison.
    pub folder: String,
    /// How it ended.
    pub state: RunState,
    /// Why it gave no result.
    pub reason: Option<String>,
    /// By name of metric, points; empty without a result.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// Hash of the trained weights.
    pub student_hash: Option<String>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// With a result.
    Done,
    /// With an error: a loss that is not finite, a failing plugin, a full disk.
    Failed,
    /// From outside, by a signal.
    Killed,
    /// Not at all: it was never begun, or is not over.
    Missing,
    /// Its settings or inputs are not those of the others, which was not allowed.
    Refused,
}

/// Mean and spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Number of values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (n − 1); none for one value.
    pub sd: Option<f64>,
}

/// A point of a curve over training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// Optimizer steps.
    pub iter: u64,
    /// Epochs.
    pub epoch: u64,
    /// Over the runs, points.
    pub value: Summary,
}

/// Both ends of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// An arm against the control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// The arm.
    pub arm: String,
    /// The control.
    pub control: String,
    /// Seeds of which both have a result: what every number below is taken over.
    pub pairs: Vec<Pair>,
    /// Seeds that are left out.
    pub left_out: Vec<LeftOut>,
    /// Mean of the paired differences, points; none without a pair.
    pub difference: Option<f64>,
    /// Their standard deviation (n − 1); none with one pair.
    pub sd: Option<f64>,
    /// Student's interval of the mean difference at 95 %, of this comparison by itself.
    pub interval: Option<Interval>,
    /// Student's interval at the level 1 − alpha / number of comparisons (Bonferroni), which hold together.
    pub interval_together: Option<Interval>,
    /// Two-sided, Student's t of the paired differences.
    pub p: Option<f64>,
    /// The same after Holm's correction for all comparisons.
    pub p_holm: Option<f64>,
    /// Over resamples of the images, of the mean difference over the pairs: how much of the
    /// difference hangs on which images are evaluated. It says nothing about other seeds.
    pub bootstrap: Option<Bootstrap>,
    /// The difference that this many pairs of the observed `sd` find with [`Resolution::power`], points.
    pub resolvable: Option<f64>,
    /// What it comes to.
    pub verdict: Verdict,
    /// The verdict in a sentence, with its numbers.
    pub reading: String,
    /// Differences of every other metric, in the order of [`Design::metrics`].
    pub metrics: Vec<Difference>,
    /// Differences of [`Design::metric`] by class, in the order of [`Design::classes`].
    pub by_class: Vec<Difference>,
}

/// Both runs of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The seed.
    pub seed: u64,
    /// The arm's, points.
    pub arm: f64,
    /// The control's, points.
    pub control: f64,
    /// `arm − control`.
    pub difference: f64,
    /// Over resamples of the images.
    pub bootstrap: Option<Bootstrap>,
}

/// What resampling the images gives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// Percentile interval at 95 %.
    pub interval: Interval,
    /// Standard deviation over the resamples, points.
    pub se: f64,
    /// Share of resamples in which the arm is above the control.
    pub share_above: f64,
}

/// A seed without a pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// The seed.
    pub seed: u64,
    /// Whose run is missing, and why.
    pub reason: String,
}

/// A difference that no verdict is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// Metric or class.
    pub name: String,
    /// Mean over the pairs, points; none where it is undefined.
    pub difference: Option<f64>,
    /// Student's interval at 95 %, uncorrected: a description.
    pub interval: Option<Interval>,
}

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Above the control after correction, by the threshold or more.
    Better,
    /// Below it after correction, by the threshold or more.
    Worse,
    /// Differences of the threshold's size are excluded.
    NoDifferenceShown,
    /// Neither: the pairs do not tell.
    Underpowered,
}

/// Something a reader must know before a verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The arm.
    pub arm: Option<String>,
    /// The seed.
    pub seed: Option<u64>,
    /// What, in a sentence.
    pub message: String,
}

/// What all runs have in common, and proof of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Every setting but the arms' own, by dotted key.
    pub shared: BTreeMap<String, String>,
    /// Keys that may differ (`--allow-diff`).
    pub allowed: Vec<String>,
    /// Where runs of one seed differ, all of it allowed.
    pub differences: Vec<SettingDifference>,
    /// Hashes of every run, by folder: what was fed in and what was left of it.
    pub fingerprints: BTreeMap<String, BTreeMap<String, String>>,
}

/// A value that is not the same in all arms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingDifference {
    /// Of a setting or of a fingerprint.
    pub key: String,
    /// The arm.
    pub arm: String,
    /// The seed; none where it is the same for all.
    pub seed: Option<u64>,
    /// The control's.
    pub control_value: String,
    /// The arm's.
    pub arm_value: String,
}

/// An image on which an arm and the control disagree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The arm.
    pub arm: String,
    /// The seed of both runs.
    pub seed: u64,
    /// Id of the image.
    pub image_id: i64,
    /// Name of its file.
    pub source: String,
    /// What differs, in words.
    pub caption: String,
    /// With the control's best detections: a `data:` address.
    pub control_image: String,
    /// With the arm's.
    pub arm_image: String,
}

/// What depends on the machine's mood; empty but for the names of arms where it was not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Name of the processor.
    pub cpu: Option<String>,
    /// Threads of every run.
    pub threads: usize,
    /// Runs at once; times of several at once disturb each other.
    pub jobs: usize,
    /// Version of kdhost.
    pub kdhost: String,
    /// UTC.
    pub finished: String,
    /// By arm.
    pub costs: BTreeMap<String, Cost>,
}

/// What an arm costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Median milliseconds of an optimizer step, over the runs.
    pub step_ms: Option<Summary>,
    /// The parts of it, by name, means over the runs: `student forward`, `teacher forward`, …
    pub parts_ms: BTreeMap<String, f64>,
    /// Highest resident memory while training, MiB.
    pub peak_mib: Option<Summary>,
    /// Seconds from the first step to the result, teachers apart.
    pub run_seconds: Option<Summary>,
    /// Joules of the processor package over a run, where the machine tells and runs went one by one.
    pub joules: Option<Summary>,
    /// Numbers that the method learns and that are thrown away after training.
    pub method_parameters: Option<u64>,
    /// Numbers of the student that is deployed; the same for every arm, or listed as a difference.
    pub student_parameters: Option<u64>,
    /// Seconds of one evaluation.
    pub evaluation_seconds: Option<Summary>,
}
