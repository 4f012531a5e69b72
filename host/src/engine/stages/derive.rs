//! The settings of a stage's run, from those of the job.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::{Config, ModelConfig, ResizeMode, StageConfig, TeacherConfig, TransformConfig};
use crate::distill::roles::Roles;
use crate::distill::schedule::declared::Stage;
use crate::distill::taps::{STUDENT, TEACHER};
use crate::engine::job;

/// The shortest side of images that a model is trained on, as the schema has it for `data.transform`.
const SHORTEST_SIDE: usize = 32;

/// Trained models by the name of the stage or teacher, as far as they are there.
#[derive(Clone, Debug, Default)]
pub(super) struct Files(pub(super) BTreeMap<String, PathBuf>);

impl Files {
    /// Empty where the model is not there yet.
    fn of(&self, name: &str) -> PathBuf {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

/// What settings are made from.
pub(super) struct From<'a> {
    /// The job's settings.
    pub(super) job: &'a Config,
    /// Which configured teacher plays which role of the method.
    pub(super) cast: &'a Roles,
    /// Settings of the earlier stages.
    pub(super) earlier: BTreeMap<&'a str, &'a Config>,
    /// Their results, and the configured teachers'.
    pub(super) files: &'a Files,
}

impl<'a> From<'a> {
    /// The configured teacher that a stage means by `name`, with its own name: the player of that role,
    /// or the one called so.
    fn teacher(&self, name: &str) -> Result<(String, &'a TeacherConfig), String> {
        let player = self.cast.get(name).map_or(name, String::as_str);
        match self.job.teacher_named(player) {
            Some(teacher) => Ok((player.to_owned(), teacher)),
            None => Err(format!(
                "`{name}` is neither an earlier stage nor a configured teacher; there are: {}",
                self.job.teacher_names().join(", ")
            )),
        }
    }
}

/// The settings of the run of `stage`, the `index`-th of its method.
///
/// # Errors
/// A clause that says what of it is impossible under the job's settings.
pub(super) fn config(from: &From<'_>, stage: &Stage, index: u32) -> Result<Config, String> {
    let job = from.job;
    let mut config = job.clone();
    let (architecture, transform) = student(from, stage)?;
    config.student = architecture;
    config.student.pyramid_scale = stage.pyramid_scale;
    if let Some(name) = &stage.init_from {
        config.student.weights = initial_weights(from, name, &config.student)?;
    }
    config.data.transform = scaled(&transform, stage.input_scale)
        .map_err(|reason| format!("`input_scale = {}`: {reason}", stage.input_scale))?;
    if stage.method {
        if let Some(name) = &stage.teacher {
            config.teacher = teacher(from, name, stage)?;
            let entries = config.distill.methods.values_mut();
            for entry in entries.chain([&mut config.distill.single]) {
                entry.teachers.remove(TEACHER);
            }
        }
    } else {
        config.distill = Config::base().distill;
        config.eval.oracle = false;
    }
    for (name, teacher) in &mut config.teachers {
        if teacher.checkpoint.as_os_str().is_empty() {
            teacher.checkpoint = from.files.of(name);
        }
    }
    if stage.epochs_scale != 1.0 {
        let scale = |epochs: usize| ((epochs as f64 * stage.epochs_scale).round() as usize).max(1);
        config.train.epochs = scale(job.train.epochs);
        config.train.milestones = job.train.milestones.iter().map(|m| scale(*m)).collect();
        config.train.milestones.dedup();
    }
    let phases = stage.phases.iter();
    let value = |phase| serde_json::to_value(phase).expect("a phase is plain data");
    config.stage = StageConfig {
        name: stage.name.clone(),
        index,
        phases: phases.map(value).collect(),
    };
    config.fit_image_sizes();
    Ok(config)
}

/// The settings under which plain training gives what a stage must reach: the same architecture from
/// its configured start, on the same images, for the configured epochs.
pub(super) fn plain(from: &From<'_>, stage: &Stage, of_stage: &Config) -> Config {
    let mut config = job::plain(of_stage);
    config.train = from.job.train.clone();
    let (architecture, _) = student(from, stage).expect("the stage was derived from it");
    config.student.weights = architecture.weights;
    config.fit_image_sizes();
    config
}

/// The architecture that learns, with its configured start, and how images are prepared for it at full
/// size.
fn student(from: &From<'_>, stage: &Stage) -> Result<(ModelConfig, TransformConfig), String> {
    let transform = &from.job.data.transform;
    if stage.student == STUDENT {
        return Ok((from.job.student.clone(), transform.clone()));
    }
    let (_, teacher) = from.teacher(&stage.student)?;
    let own = teacher.transform(transform);
    let transform = TransformConfig {
        mean: own.mean,
        std: own.std,
        ..transform.clone()
    };
    Ok((teacher.model.clone(), transform))
}

/// The file that the student starts from, whose model must be its own.
fn initial_weights(from: &From<'_>, name: &str, student: &ModelConfig) -> Result<PathBuf, String> {
    let (name, model) = match from.earlier.get(name) {
        Some(earlier) => (name.to_owned(), &earlier.student),
        None => {
            let (player, teacher) = from.teacher(name)?;
            (player, &teacher.model)
        }
    };
    // What has no parameters may differ, and a grid of positions is resized.
    let bare = |model: &ModelConfig| {
        let mut bare = model.clone();
        bare.weights = PathBuf::new();
        bare.pyramid_scale = 1.0;
        bare.vit.image_size.clear();
        bare
    };
    if bare(model) != bare(student) {
        return Err(format!(
            "it starts from `{name}`, which is another architecture than the one that learns"
        ));
    }
    Ok(from.files.of(&name))
}

fn teacher(from: &From<'_>, name: &str, stage: &Stage) -> Result<TeacherConfig, String> {
    let job = from.job;
    let (mut teacher, full) = match from.earlier.get(name) {
        Some(earlier) => {
            let teacher = TeacherConfig {
                model: ModelConfig {
                    weights: PathBuf::new(),
                    ..earlier.student.clone()
                },
                checkpoint: from.files.of(name),
                ..job.teacher.clone()
            };
            let own = &earlier.data.transform;
            let full = TransformConfig {
                mean: own.mean,
                std: own.std,
                ..job.data.transform.clone()
            };
            (teacher, full)
        }
        None => {
            let (player, configured) = from.teacher(name)?;
            let mut teacher = configured.clone();
            if teacher.checkpoint.as_os_str().is_empty() {
                teacher.checkpoint = from.files.of(&player);
            }
            let full = configured.transform(&job.data.transform);
            (teacher, full)
        }
    };
    let scale = stage.teacher_input_scale;
    let seen = scaled(&full, scale)
        .map_err(|reason| format!("`teacher_input_scale = {scale}`: {reason}"))?;
    teacher.mean = seen.mean.to_vec();
    teacher.std = seen.std.to_vec();
    // Of whole images of one size the extents are known; of others their ratio to the student's.
    let whole = seen.crop_size.is_empty() && seen.scale_range == [1.0, 1.0];
    (teacher.input_size, teacher.input_scale) = match seen.one_size() {
        Some(size) if whole => (size.to_vec(), 0.0),
        _ => (Vec::new(), scale / stage.input_scale),
    };
    Ok(teacher)
}

/// Images of `scale` times the sides; extents are rounded down.
fn scaled(transform: &TransformConfig, scale: f64) -> Result<TransformConfig, String> {
    if scale == 1.0 {
        return Ok(transform.clone());
    }
    // A product that is whole but for its rounding stays whole.
    let extent = |extent: usize| (extent as f64 * scale + 1e-6).floor() as usize;
    let mut scaled = transform.clone();
    scaled.crop_size.iter_mut().for_each(|e| *e = extent(*e));
    // What the mode does not read stays, so that it is no difference between two stages.
    let (key, extents) = match scaled.resize {
        ResizeMode::KeepRatio => {
            scaled.short_side = extent(scaled.short_side);
            scaled.long_side = extent(scaled.long_side);
            ("data.transform.short_side", vec![scaled.short_side])
        }
        ResizeMode::Fixed | ResizeMode::CenterCrop => {
            scaled.size = scaled.size.map(extent);
            if scaled.resize == ResizeMode::CenterCrop {
                scaled.short_side = extent(scaled.short_side);
            }
            ("data.transform.size", scaled.size.to_vec())
        }
        ResizeMode::None => {
            scaled.own_scale *= scale;
            ("data.transform.crop_size", Vec::new())
        }
    };
    let all = extents.iter().chain(&scaled.crop_size);
    match all.min() {
        Some(&shortest) if shortest < SHORTEST_SIDE => Err(format!(
            "images of {shortest} pixels a side are left, {SHORTEST_SIDE} are needed; enlarge `{key}`"
        )),
        _ => Ok(scaled),
    }
}
