//! Which students methods can teach from which teachers, found by trying: every registered model of the
//! task as student and as teacher, one batch each.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::config::{Config, ModelConfig, Task};
use crate::data::{Batch, DatasetError, ImageMeta, ImageTargets, View, ViewSpec};
use crate::model::{self, Model};
use crate::rng::KeyedRng;

use super::EngineError;
use super::bench::untrained_learner;
use super::job::{Chosen, choose, labels, teacher_names};
use super::step::StepPosition;
use super::teacher::views;

/// Optimizer steps that a schedule is laid out for, and the step that is tried: in the middle every
/// phase that warms up is over.
const TOTAL_STEPS: u64 = 1000;

/// Columns of the table; reasons wrap.
const WIDTH: u16 = 110;

/// Images of the batch that is tried.
const IMAGES: usize = 2;

/// A method on one pair of models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// Detector, segmenter or classifier of the student.
    pub student: String,
    /// That of all teachers; none if the methods read none.
    pub teacher: Option<String>,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What came of trying.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// One batch went through.
    Works(Trial),
    /// A method, or the host for it, refused; the reason.
    Refused(String),
}

/// One batch through student, teachers and methods, from initial weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Terms of the total, weights applied.
    pub losses: BTreeMap<String, f64>,
    /// Student taps for which a method's plan declares a gradient.
    pub declared: Vec<String>,
    /// Student taps at which a gradient arrived, with its L2 norm.
    pub gradients: BTreeMap<String, f64>,
}

/// Every pair for the methods of a configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pairs {
    /// Labels of the methods.
    pub method: String,
    /// One an ordered pair of models.
    pub pairs: Vec<Pair>,
}

impl Pairs {
    /// Tries the methods of `config` together with every registered model of the task in place of the student's and the
    /// teacher's, everything else as configured, on an input of `[height, width]` pixels. None
    /// without a plugin.
    ///
    /// # Errors
    /// If the plugin or its configuration is refused. What a pair refuses is its verdict.
    pub fn of_config(
        config: &Config,
        num_classes: usize,
        input_size: [usize; 2],
    ) -> Result<Option<Self>, EngineError> {
        let chosen = choose(config)?;
        if chosen.is_empty() {
            return Ok(None);
        }
        let names = match config.task {
            Task::Detection => model::detector_names(),
            Task::Segmentation => model::segmenter_names(),
            Task::Classification => model::classifier_names(),
        };
        let teachers: Vec<Option<&str>> = match teacher_names(&chosen).is_empty() {
            false => names.iter().map(|name| Some(*name)).collect(),
            true => vec![None],
        };
        let mut pairs = Vec::new();
        let task = config.task;
        for student in &names {
            for teacher in &teachers {
                let mut config = config.clone();
                *name_of(&mut config.student, task) = (*student).to_owned();
                show(&mut config, input_size);
                if let Some(teacher) = teacher {
                    for model in std::iter::once(&mut config.teacher)
                        .chain(config.teachers.values_mut())
                        .map(|teacher| &mut teacher.model)
                    {
                        *name_of(model, task) = (*teacher).to_owned();
                    }
                }
                config.fit_image_sizes_to(input_size);
                let verdict = match trial(&config, &chosen, num_classes, input_size) {
                    Ok(trial) => Verdict::Works(trial),
                    Err(error) => Verdict::Refused(error.to_string()),
                };
                pairs.push(Pair {
                    student: (*student).to_owned(),
                    teacher: teacher.map(str::to_owned),
                    verdict,
                });
            }
        }
        Ok(Some(Pairs {
            method: labels(&chosen),
            pairs,
        }))
    }

    /// For people.
    #[must_use]
    pub fn render(&self) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(WIDTH)
            .set_header([&self.method, "student", "teacher", "terms, or why not"]);
        for pair in &self.pairs {
            let (works, why) = match &pair.verdict {
                Verdict::Works(trial) => {
                    let terms: Vec<&str> = trial.losses.keys().map(String::as_str).collect();
                    ("yes", terms.join(", "))
                }
                Verdict::Refused(reason) => ("no", reason.clone()),
            };
            let teacher = pair.teacher.as_deref().unwrap_or("-");
            table.add_row([works, &pair.student, teacher, &why]);
        }
        let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

/// Where a configuration says which model of a task it is.
fn name_of(model: &mut ModelConfig, task: Task) -> &mut String {
    match task {
        Task::Detection => &mut model.detector,
        Task::Segmentation => &mut model.segmenter,
        Task::Classification => &mut model.classifier,
    }
}

/// Lets the settings say that images are of the size that is tried, where they say one.
fn show(config: &mut Config, input_size: [usize; 2]) {
    let transform = &mut config.data.transform;
    transform.size = input_size;
    if !transform.crop_size.is_empty() {
        transform.crop_size = input_size.to_vec();
    }
}

fn trial(
    config: &Config,
    chosen: &[Chosen<'_>],
    num_classes: usize,
    input_size: [usize; 2],
) -> Result<Trial, EngineError> {
    let mut learner = untrained_learner(config, chosen, num_classes, [TOTAL_STEPS, 1])?;
    let views = views(&learner.teachers);
    let batch = batch(learner.model.as_ref(), input_size, config.seed, &views)?;
    let at = StepPosition {
        step: TOTAL_STEPS / 2,
        total_steps: TOTAL_STEPS,
        epoch: TOTAL_STEPS / 2,
        seed: config.seed,
    };
    let probe = learner.probe(batch, at)?;
    let mut declared: Vec<String> = Vec::new();
    for tap in learner
        .methods
        .iter()
        .flat_map(|b| b.distiller.gradient_taps())
    {
        if !declared.iter().any(|known| known == tap) {
            declared.push(tap.to_owned());
        }
    }
    Ok(Trial {
        losses: probe.losses.into_iter().collect(),
        declared,
        gradients: probe.tap_gradients,
    })
}

/// Noise with two objects an image, so that every detector has foreground and background, and with every
/// class among the pixels. What further views show is noise of their own.
fn batch(
    model: &dyn Model,
    input_size: [usize; 2],
    seed: u64,
    views: &[ViewSpec],
) -> Result<Batch, EngineError> {
    let padded @ [height, width] = input_size.map(|e| e.next_multiple_of(model.size_divisor()));
    let mut rng = KeyedRng::new("pairs", &[seed]);
    let mut noise = |[height, width]: [usize; 2]| -> Vec<f32> {
        let pixels = 0..IMAGES * 3 * height * width;
        pixels.map(|_| rng.normal() as f32).collect()
    };
    let boxes = |[height, width]: [usize; 2]| {
        let [h, w] = [height as f32, width as f32];
        vec![
            [0.1 * w, 0.1 * h, 0.45 * w, 0.5 * h],
            [0.3 * w, 0.2 * h, 0.95 * w, 0.9 * h],
        ]
    };
    let objects = ImageTargets {
        boxes_xyxy: boxes(padded),
        labels: vec![0, model.num_classes() - 1],
        ..ImageTargets::default()
    };
    let meta = |image: usize| ImageMeta {
        image_id: image as i64,
        original_size: padded,
        size: padded,
        flipped: false,
    };
    let images = noise(padded);
    let view = |spec: &ViewSpec| {
        let size = spec.size(padded);
        let [height, width] = spec.padded(padded, size)?;
        Ok(View {
            spec: spec.clone(),
            images: noise([height, width]),
            shape: [IMAGES, 3, height, width],
            sizes: vec![size; IMAGES],
            boxes_xyxy: vec![boxes(size); IMAGES],
        })
    };
    let views = views
        .iter()
        .map(view)
        .collect::<Result<_, DatasetError>>()?;
    Ok(Batch {
        images,
        shape: [IMAGES, 3, height, width],
        targets: vec![objects; IMAGES],
        metas: (0..IMAGES).map(meta).collect(),
        label_maps: match model.task() {
            Task::Segmentation => (0..IMAGES * height * width)
                .map(|pixel| (pixel % model.num_classes()) as u8)
                .collect(),
            Task::Detection | Task::Classification => Vec::new(),
        },
        labels: match model.task() {
            Task::Classification => (0..IMAGES).map(|i| i % model.num_classes()).collect(),
            Task::Detection | Task::Segmentation => Vec::new(),
        },
        views,
        ..Batch::default()
    })
}
