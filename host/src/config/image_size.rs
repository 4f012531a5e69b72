//! The size of the images that a vision transformer is built for: where it is left out, that of the
//! images that the configuration makes.

use super::layers::Origins;
use super::{Config, ModelConfig, Task, TeacherConfig, TransformConfig};

impl Config {
    /// Builds every vision transformer for the images that this configuration gives it, where they have
    /// one size: for settings that were derived from checked ones.
    pub(crate) fn fit_image_sizes(&mut self) {
        if let Some(size) = self.data.transform.one_size() {
            self.fit_image_sizes_to(size);
        }
    }

    /// The same for images `[height, width]` of the student.
    pub(crate) fn fit_image_sizes_to(&mut self, size: [usize; 2]) {
        for at in models(self) {
            let scale = teacher(self, &at).map(|teacher| teacher.scale(&self.data.transform));
            let size = scaled(size, scale);
            model(self, &at).vit.image_size = size.to_vec();
        }
    }
}

/// Fills in what is left out and can be, and who set it.
pub(super) fn fill_in(config: &mut Config, origins: &mut Origins) {
    for at in models(config) {
        if !model(config, &at).vit.image_size.is_empty() {
            continue;
        }
        let Some(size) = given(config, &at) else {
            continue;
        };
        let key = source(config, &at);
        model(config, &at).vit.image_size = size.to_vec();
        let path = at.path().into_iter().chain(["vit", "image_size"]);
        if let Some(origin) = origins.of(&key).cloned() {
            origins.set(path.map(str::to_owned).collect(), origin);
        }
    }
}

/// Whether `model` is a vision transformer under `task`.
pub(super) fn is_vit(model: &ModelConfig, task: Task) -> bool {
    task == Task::Classification && model.classifier == "vit"
}

/// `[height, width]` of all images that `transform` makes for the student or for `teacher`, if they have
/// one size.
pub(super) fn of_images(
    transform: &TransformConfig,
    teacher: Option<&TeacherConfig>,
) -> Option<[usize; 2]> {
    let scale = teacher.map(|teacher| teacher.scale(transform));
    Some(scaled(transform.one_size()?, scale))
}

/// `size` of the student's images as a teacher of this scale has it, to the nearest pixel.
fn scaled(size: [usize; 2], scale: Option<[f64; 2]>) -> [usize; 2] {
    let scale = scale.unwrap_or([1.0; 2]);
    [0, 1].map(|axis| ((size[axis] as f64 * scale[axis]).round() as usize).max(1))
}

/// Whose model it is.
enum At {
    Student,
    Teacher,
    Named(String),
}

impl At {
    /// Keys of the model's table.
    fn path(&self) -> Vec<&str> {
        match self {
            At::Student => vec!["student"],
            At::Teacher => vec!["teacher", "model"],
            At::Named(name) => vec!["teachers", name, "model"],
        }
    }
}

/// All vision transformers.
fn models(config: &mut Config) -> Vec<At> {
    let named = config.teachers.keys().cloned().map(At::Named);
    let all = [At::Student, At::Teacher].into_iter().chain(named);
    let all: Vec<At> = all.collect();
    let task = config.task;
    let is_one = |at: &At| is_vit(model(config, at), task);
    all.into_iter().filter(is_one).collect()
}

fn model<'c>(config: &'c mut Config, at: &At) -> &'c mut ModelConfig {
    match at {
        At::Student => &mut config.student,
        At::Teacher => &mut config.teacher.model,
        At::Named(name) => {
            let teacher = config.teachers.get_mut(name);
            &mut teacher.expect("it was listed from there").model
        }
    }
}

/// Whose images it is given.
fn teacher<'c>(config: &'c Config, at: &At) -> Option<&'c TeacherConfig> {
    match at {
        At::Student => None,
        At::Teacher => Some(&config.teacher),
        At::Named(name) => config.teachers.get(name),
    }
}

/// The size of the images that a model is given.
fn given(config: &Config, at: &At) -> Option<[usize; 2]> {
    of_images(&config.data.transform, teacher(config, at))
}

/// The key that says so.
fn source(config: &Config, at: &At) -> Vec<String> {
    let own = teacher(config, at).and_then(|teacher| {
        if teacher.input_scale != 0.0 {
            return Some("input_scale");
        }
        (!teacher.input_size.is_empty()).then_some("input_size")
    });
    let key = match own {
        Some(own) => {
            let mut key = at.path();
            *key.last_mut().expect("a path has keys") = own;
            key
        }
        None => vec!["data", "transform", "size"],
    };
    key.into_iter().map(str::to_owned).collect()
}
