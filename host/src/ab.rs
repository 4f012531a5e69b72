//! A/B comparisons: arms × seeds, each a process of its own, whose settings are proved equal.
//!
//! Reading order: [`spec`] (what is asked), [`plan`] (the configuration of every run, what was fixed
//! beforehand), [`equal`] (what must be the same, and is not), [`store`] (the folder), [`preflight`]
//! (methods bind, last stages are equal), [`runner`] (the processes), [`collect`] (what they left),
//! [`summary`] (the data of the report). Statistics and the forms of the report
//! are in the crate `kdhost_ab`.

pub mod board;
pub mod collect;
pub mod equal;
pub mod error;
pub mod plan;
pub mod preflight;
pub mod runner;
mod samples;
pub mod spec;
pub mod store;
pub mod summary;

pub use error::AbError;

use std::path::PathBuf;

use kdhost_ab::report::{Report, RunState};
use kdhost_ab::{html, json, markdown};

use self::plan::{PLAN_FILE, Plan};
use self::store::Store;
use crate::engine::interrupt::Interrupt;
use crate::engine::progress::ProgressMode;

/// A comparison that is over.
pub struct Finished {
    /// Its report.
    pub report: Report,
    /// Its folder.
    pub folder: PathBuf,
}

impl Finished {
    /// Runs without a result.
    #[must_use]
    pub fn without_result(&self) -> usize {
        let runs = self.report.arms.iter().flat_map(|arm| &arm.runs);
        runs.filter(|run| run.state != RunState::Done).count()
    }
}

/// Checks a comparison without its folder: that its methods bind, and that arms differ in their methods
/// alone.
///
/// # Errors
/// If a method is refused, arms differ in more, or the system refuses a file or a process.
pub fn check(plan: &mut Plan) -> Result<(), AbError> {
    let folder = tempfile::tempdir().map_err(|e| AbError::file(std::env::temp_dir(), e))?;
    preflight::check(plan, &Store::open(folder.path())?)
}

/// Carries out what is left of a comparison in `folder`, and writes its report in three forms.
/// `finished` gives the time at the end, for people.
///
/// # Errors
/// If the folder holds another comparison, arms differ in more than their methods, no run has a
/// result, a file cannot be read or written, or somebody asks to stop. Runs that are done are kept.
pub fn run(
    mut plan: Plan,
    progress: ProgressMode,
    interrupt: &Interrupt,
    finished: impl FnOnce() -> String,
) -> Result<Finished, AbError> {
    let store = Store::open(&plan.folder())?;
    match store.read(PLAN_FILE)? {
        Some(begun) => plan.go_on(&begun, store.folder())?,
        None => {
            let fixed = serde_json::to_string_pretty(&plan.fixed).expect("plain data");
            store.write(PLAN_FILE, &(fixed + "\n"))?;
        }
    }
    preflight::check(&mut plan, &store)?;
    runner::run(&plan, &store, progress, interrupt)?;
    let collected = collect::collect(&plan, &store)?;
    let report = summary::report(&plan, &collected, finished())?;
    store.write("report.json", &json::to_string(&report))?;
    store.write("report.md", &markdown::table(&report))?;
    store.write("report.html", &html::render(&report))?;
    Ok(Finished {
        report,
        folder: store.folder().into(),
    })
}
