//! Why a call into a plugin failed.

use kd_abi::KdStatus;

use super::status_name;

/// A call into a plugin that failed. The training step it belongs to did not happen.
#[derive(Debug, thiserror::Error)]
pub enum PluginCallError {
    /// The library has no such method.
    #[error("plugin `{plugin}` has no method `{method}`; it has {}", .available.join(", "))]
    UnknownMethod {
        /// Plugin id.
        plugin: String,
        /// Asked for; empty if the only method was meant and there are several.
        method: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The entry returned an error status.
    #[error("plugin `{plugin}`, method `{method}`: {entry} returned {}: {message}{}", status_name(*.status), detail_text(.detail))]
    Status {
        /// Plugin id.
        plugin: String,
        /// Method id.
        method: String,
        /// Entry called.
        entry: &'static str,
        /// Its status.
        status: KdStatus,
        /// Its words, or the host's if it gave none.
        message: String,
        /// JSON given with the message; may be empty.
        detail: String,
    },
    /// The entry panicked; the instance takes no further calls.
    #[error("plugin `{plugin}`, method `{method}`: {entry} panicked: {message}{}", detail_text(.detail))]
    Panicked {
        /// Plugin id.
        plugin: String,
        /// Method id.
        method: String,
        /// Entry called.
        entry: &'static str,
        /// The panic's message.
        message: String,
        /// JSON given with the message; may be empty.
        detail: String,
    },
    /// An earlier call panicked.
    #[error(
        "plugin `{plugin}`, method `{method}`: {entry} was not called, because an earlier call panicked; make a new instance"
    )]
    Poisoned {
        /// Plugin id.
        plugin: String,
        /// Method id.
        method: String,
        /// Entry wanted.
        entry: &'static str,
    },
    /// `plan` declared something that the host refuses.
    #[error("plugin `{plugin}`, method `{method}`: plan declared {subject}: {problem} ({})", status_name(*.status))]
    BadPlan {
        /// Plugin id.
        plugin: String,
        /// Method id.
        method: String,
        /// `param `a``, `map `b``, …
        subject: String,
        /// Why it is refused.
        problem: String,
        /// The status the plugin was given.
        status: KdStatus,
    },
    /// An output was left unwritten; seen in check calls alone.
    #[error(
        "plugin `{plugin}`, method `{method}`: {entry} left {count} of {total} elements of {output} unwritten; write every element of every wanted output"
    )]
    Unwritten {
        /// Plugin id.
        plugin: String,
        /// Method id.
        method: String,
        /// Entry called.
        entry: &'static str,
        /// Which output.
        output: String,
        /// Elements not written.
        count: usize,
        /// Elements in all.
        total: usize,
    },
    /// An output holds NaN or infinity.
    #[error(
        "plugin `{plugin}`, method `{method}`: {entry} gave {count} non-finite of {total} values in {output} (first: {first})"
    )]
    NonFinite {
        /// Plugin id.
        plugin: String,
        /// Method id.
        method: String,
        /// Entry called.
        entry: &'static str,
        /// Which output.
        output: String,
        /// The first such value.
        first: f32,
        /// Values not finite.
        count: usize,
        /// Values in all.
        total: usize,
    },
    /// The host called with arguments that do not fit the plan: a fault of the host.
    #[error("plugin `{plugin}`, method `{method}`: {entry} called wrongly: {problem}")]
    BadArguments {
        /// Plugin id.
        plugin: String,
        /// Method id.
        method: String,
        /// Entry wanted.
        entry: &'static str,
        /// What does not fit.
        problem: String,
    },
}

impl PluginCallError {
    /// True if the plugin stopped because the cancel flag was set.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Status { status, .. } if *status == kd_abi::KD_E_CANCELLED)
    }
}

fn detail_text(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(" {detail}")
    }
}
