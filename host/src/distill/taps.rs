//! Binding tap patterns of a manifest to the taps that the models have.

use crate::config::MethodEntry;
use crate::model::TapSpec;
use crate::plugin::{MethodManifest, TapBinding};

use super::DistillError;
use super::distiller::Models;
use super::roles::Roles;

/// Role of the model to deploy.
pub const STUDENT: &str = "student";
/// Role of the model to learn from, and the name of the one that `[teacher]` configures.
pub const TEACHER: &str = "teacher";

/// True if `pattern` covers `name`. `*` stands for any characters within one dot-separated segment;
/// `|` stands between patterns of which any may fit.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    pattern.split('|').any(|one| one_matches(one, name))
}

fn one_matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let name: Vec<&str> = name.split('.').collect();
    pattern.len() == name.len()
        && pattern
            .iter()
            .zip(&name)
            .all(|(p, n)| segment_matches(p, n))
}

/// True if `pattern` is `text`, where `*` stands for any characters.
pub(super) fn segment_matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    loop {
        if segment_matches(rest, text) {
            return true;
        }
        let mut chars = text.chars();
        if chars.next().is_none() {
            return false;
        }
        text = chars.as_str();
    }
}

/// The concrete taps of a method: the manifest's order, within a pattern the model's order.
///
/// `cast` says who plays which role of a teacher; optional taps of a role that nobody plays are left
/// out. `taps` of the entry restricts the names of all roles; empty means everything the method asks
/// for.
///
/// # Errors
/// If a pattern that is not optional matches nothing, or the entry names a tap that the method does
/// not use.
pub fn bind(
    manifest: &MethodManifest,
    models: Models<'_>,
    cast: &Roles,
    entry: MethodEntry<'_>,
) -> Result<Vec<TapBinding>, DistillError> {
    let only = &entry.config.taps;
    let mut bound: Vec<TapBinding> = Vec::new();
    for tap in &manifest.taps {
        let player = cast
            .get(&tap.role)
            .and_then(|name| models.teachers.get(name));
        let player = match (tap.role.as_str(), player) {
            (STUDENT, _) => Some((models.student, models.student_size)),
            (_, Some(teacher)) => Some((teacher.model, teacher.size)),
            (_, None) if tap.optional => continue,
            (_, None) => None,
        };
        let specs: &[TapSpec] = player.map_or(&[], |(model, _)| model.taps());
        let size = |tap: &TapSpec| {
            let (model, size) = player?;
            Some(model.tap_size(tap, size?))
        };
        let found: Vec<&TapSpec> = specs
            .iter()
            .filter(|s| matches(&tap.pattern, &s.name))
            .collect();
        if found.is_empty() && !tap.optional {
            return Err(DistillError::UnknownTap {
                method: manifest.id.clone(),
                role: tap.role.clone(),
                pattern: tap.pattern.clone(),
                known: names(specs.iter().map(|s| s.name.as_str())),
            });
        }
        for spec in found {
            let present = bound
                .iter_mut()
                .find(|b| b.role == tap.role && b.name == spec.name);
            match present {
                Some(binding) => binding.grad |= tap.grad,
                None => bound.push(TapBinding {
                    name: spec.name.clone(),
                    role: tap.role.clone(),
                    channels: spec.channels,
                    stride: spec.stride,
                    size: size(spec),
                    grad: tap.grad,
                }),
            }
        }
    }
    for name in only {
        if !bound.iter().any(|b| &b.name == name) {
            return Err(DistillError::UnusedTap {
                key: entry.key("taps"),
                method: manifest.id.clone(),
                name: name.clone(),
                known: names(bound.iter().map(|b| b.name.as_str())),
            });
        }
    }
    if !only.is_empty() {
        bound.retain(|b| only.contains(&b.name));
    }
    Ok(bound)
}

/// `a, b, c` without repetitions; `none` if empty.
pub(crate) fn names<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let mut list: Vec<&str> = Vec::new();
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
    if list.is_empty() {
        "none".into()
    } else {
        list.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Config;
    use crate::distill::distiller::TeacherModel;
    use crate::model::build_detector;

    #[test]
    fn taps_have_the_size_of_the_images_where_these_have_one() {
        let mut config = Config::base().student;
        config.pyramid_scale = 2.0;
        let student = build_detector(&config, 3).unwrap();
        config.pyramid_scale = 1.0;
        let teacher = build_detector(&config, 3).unwrap();
        let manifest = serde_json::json!({"id": "m", "taps": [
            {"role": "student", "pattern": "backbone.c3"},
            {"role": "student", "pattern": "neck.p4"},
            {"role": "teacher", "pattern": "image"},
            {"role": "teacher", "pattern": "neck.p4"},
        ]});
        let manifest: MethodManifest = serde_json::from_value(manifest).unwrap();
        let settings = Config::base().distill.single;
        let entry = MethodEntry {
            label: None,
            config: &settings,
        };
        let cast: Roles = [(TEACHER.to_owned(), TEACHER.to_owned())].into();
        let sizes = |student_size, size| {
            let teacher = TeacherModel {
                model: teacher.as_ref(),
                has_own_size: true,
                size,
            };
            let teachers: BTreeMap<String, TeacherModel<'_>> =
                [(TEACHER.to_owned(), teacher)].into();
            let models = Models {
                student: student.as_ref(),
                student_size,
                teachers: &teachers,
            };
            let bound = bind(&manifest, models, &cast, entry).unwrap();
            bound.iter().map(|tap| tap.size).collect::<Vec<_>>()
        };
        assert_eq!(
            sizes(Some([64, 96]), Some([128, 192])),
            [
                Some([8, 12]),
                Some([8, 12]),
                Some([128, 192]),
                Some([8, 12])
            ]
        );
        assert_eq!(sizes(None, None), [None; 4]);
    }

    #[test]
    fn a_star_stays_within_its_segment() {
        for (pattern, name, expected) in [
            ("neck.*", "neck.p3", true),
            ("neck.*", "neck", false),
            ("head.*", "head.cls_logits.p3", false),
            ("head.*.p3", "head.cls_logits.p3", true),
            ("head.*_feat.p*", "head.cls_feat.p4", true),
            ("head.*_feat.p*", "head.cls_logits.p4", false),
            ("backbone.c3", "backbone.c3", true),
            ("backbone.c3", "backbone.c4", false),
            ("*", "image", true),
            ("n*c*.p3", "neck.p3", true),
            ("neck.*|feat.last", "neck.p3", true),
            ("neck.*|feat.last", "feat.last", true),
            ("neck.*|feat.last", "feat", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
