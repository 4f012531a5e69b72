//! Who computes a method: this host, from the program that the plugin gives, or the plugin.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::config::{Execution, MethodEntry};
use crate::plugin::Method;

use super::DistillError;

/// Who computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// This host.
    Program,
    /// The plugin.
    Plugin,
}

/// A method is bound several times in a run.
fn warn_once(method: &str, format: &str) {
    static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.insert(format!("{method} {format}")) {
        tracing::warn!(
            target: "kdhost::distill",
            "method `{method}`: its program is written in `{format}`, this kdhost reads `{}`; the \
             plugin computes by itself on the CPU, which is slower: rebuild it with this kdhost's SDK",
            kd_graph::FORMAT
        );
    }
}

/// Decides for a planned method. Programs are exchanged in one exact format
/// ([`kd_graph::FORMAT`]): of another, nothing is read.
///
/// # Errors
/// If what is asked for, or what is left, is not offered.
pub fn choose(method: &Method, entry: MethodEntry<'_>) -> Result<Executor, DistillError> {
    let (wanted, key) = (entry.config.execution, entry.key("execution"));
    let refuse = |reason: String| {
        Err(DistillError::Program {
            method: method.manifest().id.clone(),
            reason,
        })
    };
    let Some(door) = method.program_door() else {
        return match wanted {
            Execution::Auto | Execution::Plugin => Ok(Executor::Plugin),
            Execution::Program => {
                refuse(format!("the plugin offers none; leave `{key}` at `auto`"))
            }
        };
    };
    let readable = door.format == kd_graph::FORMAT;
    match (wanted, readable, door.only) {
        (Execution::Plugin, _, false) => Ok(Executor::Plugin),
        (Execution::Plugin, _, true) => refuse(format!(
            "the plugin cannot compute by itself; leave `{key}` at `auto`, or use a build of it \
             with `--features cpu`"
        )),
        (_, true, _) => Ok(Executor::Program),
        (Execution::Auto, false, false) => {
            warn_once(&method.manifest().id, &door.format);
            Ok(Executor::Plugin)
        }
        (_, false, _) => refuse(format!(
            "it is written in `{}`, this kdhost reads `{}`; rebuild the plugin with this kdhost's \
             SDK, or with `--features cpu` so that it computes by itself",
            door.format,
            kd_graph::FORMAT
        )),
    }
}
