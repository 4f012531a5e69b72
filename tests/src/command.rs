//! The binary as a user runs it, on an experiment that takes seconds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::artifacts::artifacts;

/// Settings of the smallest experiment that still learns: 64-pixel `shapes`, narrow models.
const TINY: &str = r#"
seed = 3

[data]
batch_size = 4

[data.transform]
size = [64, 64]

[data.shapes]
num_train = 40
num_val = 8
size = [64, 64]

[student]
tiny_width = 8
fpn_channels = 16
head_convs = 1
anchor_base_size = 12

[teacher]
epochs = 1

[teacher.model]
tiny_width = 12
tiny_blocks = [1, 1, 1, 1]
fpn_channels = 16
head_convs = 1
anchor_base_size = 12

[train]
epochs = 2
warmup_iters = 4
log_interval_iters = 1
"#;

/// A folder with the tiny experiment in it; commands run there.
pub struct Workbench {
    folder: tempfile::TempDir,
}

impl Default for Workbench {
    fn default() -> Self {
        Self::new()
    }
}

impl Workbench {
    /// Makes the folder.
    ///
    /// # Panics
    /// If the file system says no.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("tiny.toml"), TINY).expect("the folder takes a file");
        Workbench { folder }
    }

    /// A path below the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes an image of 90 by 70 pixels, as its extension says.
    ///
    /// # Panics
    /// If the file system says no.
    pub fn photo(&self, name: &str) {
        let pixels: Vec<u8> = (0..90 * 70 * 3).map(|i| (i * 37 % 251) as u8).collect();
        let image = image::RgbImage::from_raw(90, 70, pixels).expect("so many bytes");
        image
            .save(self.path(name))
            .expect("the folder takes a file");
    }

    /// `kdhost ARGS`, to be run in the folder.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(artifacts().kdhost());
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_remove("KDHOST_PLUGIN_PATH")
            .env_remove("KDHOST_LOG");
        command
    }

    /// Runs `kdhost ARGS`.
    ///
    /// # Panics
    /// If the binary cannot be started.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary starts")
    }

    /// `kdhost train --config tiny.toml --output OUT --quiet` and further arguments.
    #[must_use]
    pub fn train_command(&self, out: &str, args: &[&str]) -> Command {
        let mut command = self.command(&["train", "--config", "tiny.toml"]);
        command.args(["--output", out, "--quiet"]).args(args);
        command
    }

    /// Runs [`Self::train_command`], which must succeed.
    ///
    /// # Panics
    /// If it fails.
    pub fn train(&self, out: &str, args: &[&str]) -> PathBuf {
        succeed(&mut self.train_command(out, args));
        self.path(out)
    }

    /// Runs `kdhost train --resume RUN`, which must succeed.
    ///
    /// # Panics
    /// If it fails.
    pub fn resume(&self, run: &str) {
        succeed(&mut self.command(&["train", "--resume", run, "--quiet"]));
    }
}

/// Runs a command, which must succeed.
///
/// # Panics
/// If it cannot be started or fails.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("the binary starts");
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    output
}

/// The path of a plugin, by its library name, as an argument.
#[must_use]
pub fn plugin(library: &str) -> String {
    artifacts().plugin(library).display().to_string()
}

/// Standard error as text.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output as text.
#[must_use]
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The bytes of a run's student.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn student(run: &Path) -> Vec<u8> {
    fs::read(run.join("student.safetensors")).expect("a finished run has a student")
}

/// The text of a run's `metrics.jsonl`.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn metrics(run: &Path) -> String {
    fs::read_to_string(run.join("metrics.jsonl")).expect("a run has metrics")
}

/// All values of a key in `metrics.jsonl`, in order.
///
/// # Panics
/// If a line is no JSON.
#[must_use]
pub fn series(text: &str, key: &str) -> Vec<f64> {
    let values = text.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).expect("a log is lines of JSON");
        line.get(key)?.as_f64()
    });
    values.collect()
}
