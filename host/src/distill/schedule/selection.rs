//! What of a method counts and learns in a phase.

use crate::distill::taps::{names, segment_matches};

/// Losses and patterns of parameters; where nothing is named, all are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Names of losses, and of the task losses on maps.
    pub losses: Vec<String>,
    /// Patterns of parameters; `*` stands for any characters, dots too.
    pub params: Vec<String>,
}

impl Selection {
    /// Whether the term `name` counts.
    #[must_use]
    pub fn counts(&self, name: &str) -> bool {
        self.losses.is_empty() || self.losses.iter().any(|loss| loss == name)
    }

    /// Whether the parameter `name` learns.
    #[must_use]
    pub fn learns(&self, name: &str) -> bool {
        let covers = |pattern: &String| segment_matches(pattern, name);
        self.params.is_empty() || self.params.iter().any(covers)
    }

    /// Checks that every entry means something of a method with these terms and parameters.
    ///
    /// # Errors
    /// A clause that names the entry and what exists.
    pub fn check(&self, terms: &[&str], params: &[&str]) -> Result<(), String> {
        if let Some(unknown) = self.losses.iter().find(|l| !terms.contains(&l.as_str())) {
            return Err(format!(
                "`losses` names `{unknown}`; the method has: {}",
                names(terms.iter().copied())
            ));
        }
        let covers_nothing =
            |pattern: &&String| !params.iter().any(|name| segment_matches(pattern, name));
        match self.params.iter().find(covers_nothing) {
            None => Ok(()),
            Some(pattern) => Err(format!(
                "`params` has the pattern `{pattern}`, which no parameter of the method matches; it \
                 has: {}",
                names(params.iter().copied())
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(losses: &[&str], params: &[&str]) -> Selection {
        let owned = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect();
        Selection {
            losses: owned(losses),
            params: owned(params),
        }
    }

    #[test]
    fn nothing_named_means_all() {
        let all = Selection::default();
        assert!(all.counts("loss_a") && all.learns("coder.0.weight"));
        let some = selection(&["loss_a"], &["coder.*", "*.bias"]);
        assert!(some.counts("loss_a") && !some.counts("loss_ab"));
        assert!(some.learns("coder.0.weight") && some.learns("adapter.bias"));
        assert!(!some.learns("adapter.weight") && !some.learns("recoder.0.weight"));
    }

    #[test]
    fn what_means_nothing_is_named_with_what_exists() {
        let (terms, params) = (["loss_a", "maps"], ["coder.weight"]);
        assert_eq!(Selection::default().check(&terms, &params), Ok(()));
        assert_eq!(selection(&["maps"], &["*"]).check(&terms, &params), Ok(()));
        let message = selection(&["loss_b"], &[]).check(&terms, &params);
        assert!(
            message
                .unwrap_err()
                .contains("`loss_b`; the method has: loss_a, maps")
        );
        let message = selection(&[], &["encoder.*"]).check(&terms, &params);
        assert!(message.unwrap_err().contains("`encoder.*`"));
    }
}
