//! Rules of `[teacher]` and `[teachers]`.

use super::super::{Config, TeacherConfig};
use super::methods::is_label;
use super::{Rules, is_unset, model, vit};

pub(super) fn rules(config: &Config, rules: &mut Rules) {
    teacher("teacher", &config.teacher, config, rules);
    for (name, further) in &config.teachers {
        let path = || ["teachers", name].map(str::to_owned).to_vec();
        if name == TeacherConfig::UNNAMED {
            rules.refuse(
                path(),
                "the teacher of this name is configured by `[teacher]`".to_owned(),
            );
        } else if name == "student" || !is_label(name) {
            rules.refuse(
                path(),
                format!(
                    "{name:?} cannot name a teacher: letters, digits, `_` and `-` can, and \
                     `student` is the model to deploy"
                ),
            );
        } else {
            teacher(&format!("teachers.{name}"), further, config, rules);
        }
    }
}

fn teacher(at: &str, teacher: &TeacherConfig, config: &Config, rules: &mut Rules) {
    let has_checkpoint = !is_unset(&teacher.checkpoint);
    model(
        &format!("{at}.model"),
        &teacher.model,
        config,
        has_checkpoint,
        rules,
    );
    vit(
        &format!("{at}.model"),
        &teacher.model,
        config,
        Some(teacher),
        rules,
    );
    for (key, values) in [("mean", &teacher.mean), ("std", &teacher.std)] {
        let fits = matches!(values.len(), 0 | 3);
        rules.require(fits, &format!("{at}.{key}"), || {
            format!(
                "expected a value for each of the channels RGB, or none, got {}",
                values.len()
            )
        });
    }
    let key = format!("{at}.input_size");
    let size = &teacher.input_size;
    rules.require(matches!(size.len(), 0 | 2), &key, || {
        format!(
            "expected `[height, width]`, or `[]`, got {} numbers",
            size.len()
        )
    });
    let transform = &config.data.transform;
    let whole = transform.crop_size.is_empty() && transform.scale_range == [1.0, 1.0];
    rules.require(size.is_empty() || whole, &key, || {
        format!(
            "needs whole images: a crop of the student's (`data.transform.crop_size`, \
             `data.transform.scale_range`) says nothing of the teacher's scale; leave it `[]` and give \
             `{at}.input_scale`"
        )
    });
    let one_size = transform.one_size().is_some();
    rules.require(size.is_empty() || one_size, &key, || {
        format!(
            "needs `data.transform.resize` \"fixed\" or \"center_crop\": images that keep their ratio \
             have no size in common; leave it `[]` and give `{at}.input_scale`"
        )
    });
    let scale = teacher.input_scale;
    rules.require(
        size.is_empty() || scale == 0.0,
        &format!("{at}.input_scale"),
        || format!("`{key}` says it too; leave one of them out (`[]`, or 0)"),
    );
}
