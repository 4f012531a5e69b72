//! A/B comparisons: arms × seeds, each a process of its own, whose settings are proved equal.
//!
//! Reading order: [`spec`] (what is asked), [`plan`] (the configuration of every run, what was fixed
//! beforehand), [`equal`] (what must be the same, and is not), [`store`] (the folder), [`runner`] (the
//! processes), [`collect`] (what they left), [`summary`] (the report's data). Statistics and the report's forms
//! are in the crate `kdhost_ab`.

pub mod board;
pub mod collect;
pub mod equal;
pub mod error;
pub mod plan;
pub mod runner;
mod samples;
pub mod spec;
pub mod store;
pub mod summary;

pub use error::AbError;
