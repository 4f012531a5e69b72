//! Which folders hold runs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::run_dir::RunDir;
use crate::engine::stages;
use crate::engine::{arm, checkpoint, events};

/// Of the hash in the name of a folder of the cache, see [`arm::key`].
const KEY_DIGITS: usize = 16;

/// A folder with a run, or one that cannot be looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As reached from the folder that was searched.
    pub folder: PathBuf,
    /// Runs whose folders it lies in: 1 for a stage of a job.
    pub depth: usize,
    /// A control or teacher that the cache keeps for other jobs.
    pub is_kept: bool,
    /// Why it cannot be looked into.
    pub problem: Option<String>,
}

/// Every run in `root` and below it, a job before its stages, in the order of their names.
///
/// # Errors
/// If `root` cannot be read.
pub fn find(root: &Path) -> io::Result<Vec<Found>> {
    let mut walk = Walk::default();
    walk.visit(root, 0, false)?;
    Ok(walk.found)
}

#[derive(Default)]
struct Walk {
    found: Vec<Found>,
    /// Resolved, so that links that lead back end.
    seen: BTreeSet<PathBuf>,
}

impl Walk {
    fn visit(&mut self, folder: &Path, depth: usize, in_job: bool) -> io::Result<()> {
        if !self.seen.insert(folder.canonicalize()?) {
            return Ok(());
        }
        // A stage that was taken from the cache has its result and nothing else.
        let is_run =
            RunDir::require(folder).is_ok() || (in_job && folder.join(arm::RESULT).is_file());
        if is_run {
            self.found.push(Found {
                folder: folder.into(),
                depth,
                is_kept: is_kept(folder),
                problem: None,
            });
        }
        let (below, in_job) = match is_run {
            true => (depth + 1, stages::is_job(folder)),
            false => (depth, in_job),
        };
        for child in folders(folder, is_run)? {
            if let Err(error) = self.visit(&child, below, in_job) {
                self.found.push(Found {
                    folder: child,
                    depth: below,
                    is_kept: false,
                    problem: Some(error.to_string()),
                });
            }
        }
        Ok(())
    }
}

/// Folders in `folder` that may hold runs, by name.
fn folders(folder: &Path, is_run: bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let own = [checkpoint::FOLDER, events::FOLDER];
        let skipped = (is_run && own.iter().any(|own| name == *own))
            || name.to_string_lossy().starts_with('.');
        if !skipped && entry.path().is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Whether it is called as the cache calls its runs: `LABEL-<16 hexadecimal digits>`.
fn is_kept(folder: &Path) -> bool {
    let name = folder.file_name().map(|name| name.to_string_lossy());
    let key = name.as_ref().and_then(|name| name.rsplit_once('-'));
    key.is_some_and(|(_, key)| {
        key.len() == KEY_DIGITS && key.bytes().all(|b| b"0123456789abcdef".contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, file: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn runs_are_found_with_their_stages_and_without_their_checkpoints() {
        let root = tempfile::tempdir().unwrap();
        for file in [
            "b/config.resolved.toml",
            "b/checkpoints/iter_1/config.resolved.toml",
            "b/tensorboard/config.resolved.toml",
            "group/a/config.resolved.toml",
            "group/a/stages.json",
            "group/a/stages/1-first/config.resolved.toml",
            "group/a/stages/2-from-cache/result.json",
            "group/a/stages/3-not-begun/note.txt",
            "cache/student-0123456789abcdef/config.resolved.toml",
            "cache/stage-0123456789abcdef/result.json",
            ".hidden/config.resolved.toml",
            "checkpoints/no-run/config.resolved.toml",
            "notes/read.me",
        ] {
            touch(root.path(), file);
        }
        std::os::unix::fs::symlink(root.path(), root.path().join("notes/back")).unwrap();
        let found: Vec<String> = find(root.path())
            .unwrap()
            .iter()
            .map(|found| {
                let path = found.folder.strip_prefix(root.path()).unwrap().display();
                let kept = if found.is_kept { " kept" } else { "" };
                format!("{} {path}{kept}", found.depth)
            })
            .collect();
        assert_eq!(
            found,
            [
                "0 b",
                "0 cache/student-0123456789abcdef kept",
                "0 checkpoints/no-run",
                "0 group/a",
                "1 group/a/stages/1-first",
                "1 group/a/stages/2-from-cache",
            ]
        );
    }

    #[test]
    fn the_folder_itself_may_be_a_run_and_must_be_there() {
        let root = tempfile::tempdir().unwrap();
        touch(root.path(), "config.resolved.toml");
        let found = find(root.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].folder, root.path());
        assert!(find(&root.path().join("gone")).is_err());
    }
}
