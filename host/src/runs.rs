//! Runs that are there: found below a folder, read, compared. Nothing is written or locked, and no
//! plugin is loaded: a run may be going on, on another machine of a shared disk.
//!
//! [`find`](mod@find) walks folders, [`read`] gives one run, [`measured`] what its logs say,
//! [`compare`] two of them side by side.

pub mod compare;
pub mod find;
pub mod measured;
pub mod read;
pub mod state;
