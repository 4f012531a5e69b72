//! The size of the images that a vision transformer is built for: where it is left out, that of the
//! images that the configuration makes.

use super::layers::Origins;
use super::{Config, ModelConfig, ResizeMode, Task, TransformConfig};

impl Config {
    /// Builds every vision transformer for the images that this configuration gives it, where they have
    /// one size: for settings that were derived from checked ones.
    pub(crate) fn fit_image_sizes(&mut self) {
        for at in models(self) {
            if let Some((size, _)) = given(self, &at) {
                model(self, &at).vit.image_size = size.to_vec();
            }
        }
    }
}

/// Fills in what is left out and can be, and who set it.
pub(super) fn fill_in(config: &mut Config, origins: &mut Origins) {
    for at in models(config) {
        if !model(config, &at).vit.image_size.is_empty() {
            continue;
        }
        let Some((size, key)) = given(config, &at) else {
            continue;
        };
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

/// The size of all images that `transform` makes, if there is one.
pub(super) fn one_size(transform: &TransformConfig) -> Option<[usize; 2]> {
    match transform.resize {
        ResizeMode::Fixed => Some(transform.size),
        ResizeMode::KeepRatio | ResizeMode::None => None,
    }
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

/// The size of the images that a model is given, and the key that says so.
fn given(config: &Config, at: &At) -> Option<([usize; 2], Vec<String>)> {
    let own = match at {
        At::Student => None,
        At::Teacher => Some(&config.teacher),
        At::Named(name) => config.teachers.get(name),
    };
    let own = own.map(|teacher| teacher.input_size.as_slice());
    let (size, key) = match own {
        Some(&[height, width]) => {
            let mut key = at.path();
            *key.last_mut().expect("a path has keys") = "input_size";
            ([height, width], key)
        }
        _ => (
            one_size(&config.data.transform)?,
            vec!["data", "transform", "size"],
        ),
    };
    Some((size, key.into_iter().map(str::to_owned).collect()))
}
