//! Which configured teacher plays which role of a method.

use std::collections::BTreeMap;

use crate::config::{Config, MethodEntry};
use crate::plugin::MethodManifest;

use super::DistillError;
use super::taps::{STUDENT, names};
use super::targets;

/// Names of configured teachers by the role that each plays.
pub type Roles = BTreeMap<String, String>;

/// The roles of a method and who plays them: the teacher that `teachers` of its entry names, or else
/// the one of the role's own name. A role whose taps are all optional, or that targets alone name, is
/// played only if the entry names a teacher for it.
///
/// # Errors
/// If the entry names a role that the method does not have, or a teacher is not configured.
pub fn cast(
    manifest: &MethodManifest,
    entry: MethodEntry<'_>,
    config: &Config,
) -> Result<Roles, DistillError> {
    let chosen = &entry.config.teachers;
    // With what is known of each: whether the method does without.
    let of_taps = manifest
        .taps
        .iter()
        .map(|tap| (tap.role.as_str(), tap.optional));
    let of_targets = manifest
        .targets
        .iter()
        .filter_map(|name| targets::role_of(name));
    let all = of_taps.chain(of_targets.map(|role| (role, true)));
    let roles: Vec<(&str, bool)> = all.filter(|(role, _)| *role != STUDENT).collect();
    for role in chosen.keys() {
        if !roles.iter().any(|(known, _)| known == role) {
            return Err(DistillError::UnusedRole {
                key: entry.key(&format!("teachers.{role}")),
                method: manifest.id.clone(),
                known: names(roles.iter().map(|(known, _)| *known)),
            });
        }
    }
    let mut cast = Roles::new();
    for (role, optional) in roles {
        let name = match chosen.get(role) {
            Some(name) => name.as_str(),
            None if optional => continue,
            None => role,
        };
        if config.teacher_named(name).is_none() {
            return Err(DistillError::UnknownRole {
                method: manifest.id.clone(),
                role: role.to_owned(),
                name: name.to_owned(),
                advice: format!(
                    "add a table `[teachers.{name}]`, or name another one by `{}`: {}",
                    entry.key(&format!("teachers.{role}")),
                    names(config.teacher_names().iter().map(String::as_str))
                ),
            });
        }
        cast.insert(role.to_owned(), name.to_owned());
    }
    Ok(cast)
}
