//! Plugins made for tests: compiled from `fixtures/`, or a sound one with some bytes changed.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::artifacts::{artifacts, workspace_root};

/// Compiles `fixtures/c/<source>.c` with these macros (`NAME` or `NAME=value`) into a plugin.
///
/// The file is made once a process for each set of macros.
///
/// # Panics
/// If the compiler refuses.
#[must_use]
pub fn c_plugin(source: &str, defines: &[&str]) -> PathBuf {
    let out = scratch().join(format!("lib{source}{}.so", suffix(defines)));
    once(&out, |out| {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/c");
        let mut command = c_compiler("cc", "c11");
        command
            .args(["-O2", "-shared", "-fPIC", "-fvisibility=hidden"])
            .args(defines.iter().map(|define| format!("-D{define}")))
            .arg(fixtures.join(format!("{source}.c")))
            .arg("-o")
            .arg(out);
        run(&mut command);
    });
    out
}

/// A C or C++ compiler with the plugin header on its path.
#[must_use]
pub fn c_compiler(program: &str, standard: &str) -> Command {
    let mut command = Command::new(program);
    command
        .arg(format!("-std={standard}"))
        .arg("-I")
        .arg(workspace_root().join("plugin-api/include"));
    command
}

/// The workspace's stress plugin, whose configuration says what goes wrong where.
#[must_use]
pub fn stress_plugin() -> &'static Path {
    artifacts().plugin("kd_fixture_stress")
}

/// `fixtures/rust/minimal.rs` against the workspace's kd-abi.
#[must_use]
pub fn rust_plugin() -> PathBuf {
    minimal_rust("sound", artifacts().rlib("kd_abi"), &[])
}

/// The same plugin with its layout check switched off.
#[must_use]
pub fn opted_out_plugin() -> PathBuf {
    minimal_rust(
        "opted_out",
        artifacts().rlib("kd_abi"),
        &["--cfg", "opt_out"],
    )
}

/// The same plugin against a kd-abi whose `KdTap` has two fields exchanged.
///
/// # Panics
/// If kd-abi no longer has these fields in this order.
#[must_use]
pub fn mismatched_plugin() -> PathBuf {
    let rlib = scratch().join("mismatch/libkd_abi.rlib");
    once(&rlib, |rlib| {
        let original = workspace_root().join("plugin-api/abi/src");
        let folder = rlib.parent().expect("the path has a folder");
        let copy = folder.join("src");
        fs::create_dir_all(&copy).expect("a folder can be made");
        for entry in fs::read_dir(&original).expect("kd-abi has sources") {
            let path = entry.expect("the folder can be read").path();
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            let name = path.file_name().expect("a file has a name");
            fs::write(
                copy.join(name),
                exchange_tap_fields(&text, name == "types.rs"),
            )
            .expect("a file can be written");
        }
        let mut command = rustc();
        command
            .args(["--crate-name", "kd_abi", "--crate-type", "rlib"])
            .arg(copy.join("lib.rs"))
            .arg("-o")
            .arg(rlib);
        run(&mut command);
    });
    minimal_rust("mismatched", &rlib, &[])
}

/// A copy of `original` with the bytes at `offset` replaced.
///
/// # Panics
/// If the file is too short.
#[must_use]
pub fn patched(original: &Path, name: &str, offset: usize, bytes: &[u8]) -> PathBuf {
    let mut content = fs::read(original).expect("the original can be read");
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
    write(name, &content)
}

/// A file of this content under a folder of its own.
///
/// # Panics
/// If it cannot be written.
#[must_use]
pub fn write(name: &str, content: &[u8]) -> PathBuf {
    let path = scratch().join(name);
    fs::write(&path, content).expect("a file can be written");
    path
}

/// A folder of this process beside the test binary.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let binary = std::env::current_exe().expect("a process has an executable");
        let fixtures = binary.with_file_name("fixtures");
        remove_left_over(&fixtures);
        let own = fixtures.join(std::process::id().to_string());
        fs::create_dir_all(&own).expect("a folder can be made beside the test binary");
        own
    })
}

/// Statics are never dropped, so each process clears up after those that have ended.
fn remove_left_over(fixtures: &Path) {
    for entry in fs::read_dir(fixtures).into_iter().flatten().flatten() {
        let process = Path::new("/proc").join(entry.file_name());
        if !process.exists() {
            // Another process may be clearing up too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn minimal_rust(name: &str, kd_abi: &Path, flags: &[&str]) -> PathBuf {
    let out = scratch().join(format!("libminimal_{name}.so"));
    once(&out, |out| {
        let mut command = rustc();
        command
            .args(["--crate-name", "minimal", "--crate-type", "cdylib"])
            .args(flags)
            .arg("--extern")
            .arg(format!("kd_abi={}", kd_abi.display()))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rust/minimal.rs"))
            .arg("-o")
            .arg(out);
        run(&mut command);
    });
    out
}

/// rustc as cargo would call it for kd-abi, whose name and version are part of its layout.
fn rustc() -> Command {
    let abi_stable = artifacts().rlib("abi_stable");
    let dependencies = abi_stable.parent().expect("the rlib lies in a folder");
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command
        .args(["--edition", "2024", "-Copt-level=1", "--cap-lints=allow"])
        .arg(format!("-Ldependency={}", dependencies.display()))
        .arg("--extern")
        .arg(format!("abi_stable={}", abi_stable.display()))
        .env("CARGO_PKG_NAME", "kd-abi")
        .env("CARGO_PKG_VERSION", "1.0.0")
        .env("CARGO_PKG_VERSION_MAJOR", "1")
        .env("CARGO_PKG_VERSION_MINOR", "0")
        .env("CARGO_PKG_VERSION_PATCH", "0");
    command
}

fn exchange_tap_fields(text: &str, expected: bool) -> String {
    let (first, second) = ("    pub stride: u32,", "    pub use_bits: u32,");
    let present = text.contains(first) && text.contains(second);
    assert_eq!(present, expected, "KdTap's fields have moved");
    text.replace(first, "    pub exchanged: u32,")
        .replace(second, first)
        .replace("    pub exchanged: u32,", second)
}

/// A file name's part for these macros; values can be longer than names may be.
fn suffix(defines: &[&str]) -> String {
    let text = defines.join("-");
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let shown: String = text
        .chars()
        .take(40)
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    format!("{shown}_{:x}", hasher.finish())
}

/// Makes `path` unless an earlier call did.
fn once(path: &Path, make: impl FnOnce(&Path)) {
    static MAKING: Mutex<()> = Mutex::new(());
    // Nested makes (a library and then its user) happen one after the other, never inside.
    let _guard = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.exists() {
        make(path);
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("the compiler can be started");
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
