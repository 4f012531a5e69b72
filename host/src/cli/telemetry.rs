//! Logs, on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Environment variable with the filter, as `tracing-subscriber` reads it.
pub const LOG_VARIABLE: &str = "KDHOST_LOG";

/// Starts logging; `quiet` asks for warnings and errors alone unless the variable says otherwise.
pub fn init(quiet: bool) {
    let default = if quiet {
        LevelFilter::WARN
    } else {
        LevelFilter::INFO
    };
    let builder = EnvFilter::builder().with_default_directive(default.into());
    let variable = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let (filter, problem) = match builder.parse(&variable) {
        Ok(filter) => (filter, None),
        Err(problem) => (
            EnvFilter::default().add_directive(default.into()),
            Some(problem),
        ),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
    if let Some(problem) = problem {
        tracing::warn!("{LOG_VARIABLE} is not used: {problem}");
    }
}
