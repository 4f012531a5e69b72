//! What the integration tests need: built artifacts and plugins that are wrong in one way each.

pub mod artifacts;
pub mod command;
pub mod fixtures;
