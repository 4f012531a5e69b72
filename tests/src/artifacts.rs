//! The workspace's own build products, found through cargo.
//!
//! `cargo test` builds neither the binaries of other packages nor cdylibs in a place that tests
//! could know, so `cargo build` runs behind a lock, for the host and for the plugins, and its messages
//! say where things are. It uses the profile of the tests, so that nothing is compiled twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// Where cargo put things.
#[derive(Debug)]
pub struct Artifacts {
    executables: BTreeMap<String, PathBuf>,
    files: BTreeMap<String, Vec<PathBuf>>,
}

impl Artifacts {
    /// The `kdhost` binary.
    ///
    /// # Panics
    /// If cargo built none.
    #[must_use]
    pub fn kdhost(&self) -> &Path {
        self.executables.get("kdhost").expect("cargo builds kdhost")
    }

    /// The shared library of a plugin crate, by its library name: `kd_ssim`.
    ///
    /// # Panics
    /// If there is no such cdylib in the workspace.
    #[must_use]
    pub fn plugin(&self, library: &str) -> &Path {
        self.file(library, "so")
    }

    /// The rlib of any crate of the build, by its library name.
    ///
    /// # Panics
    /// If there is no such crate in the build.
    #[must_use]
    pub fn rlib(&self, library: &str) -> &Path {
        self.file(library, "rlib")
    }

    fn file(&self, library: &str, extension: &str) -> &Path {
        self.files
            .get(library)
            .and_then(|files| {
                files
                    .iter()
                    .find(|file| file.extension().is_some_and(|e| e == extension))
            })
            .unwrap_or_else(|| panic!("cargo built no .{extension} of `{library}`"))
    }
}

/// Builds the workspace on first use.
///
/// # Panics
/// If the build fails; the message is cargo's.
#[must_use]
pub fn artifacts() -> &'static Artifacts {
    static ARTIFACTS: OnceLock<Artifacts> = OnceLock::new();
    ARTIFACTS.get_or_init(build)
}

/// The root of the workspace.
#[must_use]
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests' package lies in the workspace")
}

fn build() -> Artifacts {
    let mut artifacts = Artifacts {
        executables: BTreeMap::new(),
        files: BTreeMap::new(),
    };
    for folder in [".", "plugins"] {
        artifacts.build(&workspace_root().join(folder));
    }
    artifacts
}

impl Artifacts {
    fn build(&mut self, workspace: &Path) {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--release", "--workspace", "--message-format=json"])
            .current_dir(workspace)
            .output()
            .expect("cargo can be started");
        assert!(
            output.status.success(),
            "cargo build failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let message: Value = serde_json::from_str(line).expect("cargo writes JSON lines");
            if message["reason"] == "compiler-artifact" {
                self.add(&message);
            }
        }
    }

    fn add(&mut self, message: &Value) {
        let name = message["target"]["name"].as_str().unwrap_or_default();
        if let Some(executable) = message["executable"].as_str() {
            self.executables.insert(name.to_owned(), executable.into());
        }
        let files = message["filenames"].as_array().into_iter().flatten();
        self.files
            .entry(name.to_owned())
            .or_default()
            .extend(files.filter_map(Value::as_str).map(PathBuf::from));
    }
}
