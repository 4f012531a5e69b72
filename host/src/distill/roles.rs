//! Which configured teacher plays which role of a method.

use std::collections::BTreeMap;

use crate::config::{Config, MethodEntry};
use crate::plugin::MethodManifest;

use super::DistillError;
use super::taps::{STUDENT, names};

/// Names of configured teachers by the role that each plays.
pub type Roles = BTreeMap<String, String>;

/// The roles of a method and who plays them: the teacher that `teachers` of its entry names, or else
/// the one of the role's own name. A role whose taps are all optional is played only if the entry
/// names a teacher for it.
///
/// # Errors
/// If the entry names a role that the method does not have, or a teacher is not configured.
pub fn cast(
    manifest: &MethodManifest,
    entry: MethodEntry<'_>,
    config: &Config,
) -> Result<Roles, DistillError> {
    let chosen = &entry.config.teachers;
    let roles = || manifest.taps.iter().filter(|tap| tap.role != STUDENT);
    for role in chosen.keys() {
        if !roles().any(|tap| tap.role == *role) {
            return Err(DistillError::UnusedRole {
                key: entry.key(&format!("teachers.{role}")),
                method: manifest.id.clone(),
                known: names(roles().map(|tap| tap.role.as_str())),
            });
        }
    }
    let mut cast = Roles::new();
    for tap in roles() {
        let role = &tap.role;
        let name = match chosen.get(role) {
            Some(name) => name,
            None if tap.optional => continue,
            None => role,
        };
        if config.teacher_named(name).is_none() {
            return Err(DistillError::UnknownRole {
                method: manifest.id.clone(),
                role: role.clone(),
                name: name.clone(),
                advice: format!(
                    "add a table `[teachers.{name}]`, or name another one by `{}`: {}",
                    entry.key(&format!("teachers.{role}")),
                    names(config.teacher_names().iter().map(String::as_str))
                ),
            });
        }
        cast.insert(role.clone(), name.clone());
    }
    Ok(cast)
}
