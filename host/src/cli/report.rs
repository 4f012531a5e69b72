//! How errors are shown: headline, causes, perhaps a hint.

use std::io::{self, Write as _};

use crate::config::ConfigError;
use crate::plugin::PluginLoadError;

/// Writes an error to standard error.
pub fn error(error: &anyhow::Error) {
    // Nobody is left to tell if standard error is closed.
    let _ = io::stderr().lock().write_all(text(error).as_bytes());
}

fn text(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}\n");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some messages already end with their cause.
        if !said.contains(&cause) {
            text.push_str(&format!("caused by: {}\n", cause.trim_end()));
        }
        said = cause;
    }
    if let Some(hint) = error.chain().find_map(hint) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

fn hint(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if let Some(ConfigError::Invalid { .. }) = error.downcast_ref() {
        return Some("`kdhost config show --origin` prints every key and who set it");
    }
    if let Some(PluginLoadError::NotFound { .. }) = error.downcast_ref() {
        return Some("`kdhost plugin list` shows the plugins that are found");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn headline_causes_and_hint_stand_on_lines_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gone.toml");
        let sources = Sources {
            files: vec![file],
            ..Sources::default()
        };
        let error = anyhow::Error::from(sources.resolve().unwrap_err()).context("cannot start");
        let text = text(&error);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "error: cannot start");
        assert!(
            lines[1].starts_with("caused by: cannot read the configuration "),
            "{text}"
        );
        assert!(lines[2].starts_with("caused by: No such file"), "{text}");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_cause_that_the_headline_repeats_is_said_once() {
        let cause = io::Error::other("disk full");
        let error = anyhow::Error::from(crate::state::StateError::Io {
            path: "x".into(),
            source: cause,
        });
        assert_eq!(text(&error), "error: `x`: disk full\n");
    }

    #[test]
    fn refused_values_come_with_a_hint() {
        let sources = Sources {
            set: vec!["train.lrr=1".to_owned()],
            ..Sources::default()
        };
        let text = text(&sources.resolve().unwrap_err().into());
        assert!(text.contains("did you mean `train.lr`?"), "{text}");
        assert!(
            text.ends_with("hint: `kdhost config show --origin` prints every key and who set it\n")
        );
    }
}
